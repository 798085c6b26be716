// Three ways to take a decode step on one model, at equal tokens: over delta rows in the heap, with the
// runtime's own KV fed straight back, and with no KV returned at all, which is the floor.

import { buildDecoder } from "../../build/examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../build/examples/chat/model/grouped-decoder.js";
import { openOrtDecoder } from "../../dist/src/adapters/ort.js";

export const SIZES = { layers: 4, hidden: 512, heads: 8, kvHeads: 8, vocabulary: 256, seed: 1 };
const HEAD_DIM = SIZES.hidden / SIZES.heads;
export const TOKEN_BYTES = SIZES.layers * 2 * SIZES.kvHeads * HEAD_DIM * 4;

export function modelOf(style, positions) {
  return style === "concat" ? buildDecoder({ ...SIZES, positions }) : buildGroupedDecoder(SIZES);
}

export const RUNTIMES = {
  node: {
    load: () => import("onnxruntime-node"),
    sessionOptions: { logSeverityLevel: 4 },
  },
  wasm: {
    load: () => import("onnxruntime-web"),
    sessionOptions: { logSeverityLevel: 4, executionProviders: ["wasm"] },
  },
};

const NAMES = Array.from({ length: SIZES.layers }, (_, layer) => [
  `${layer}.key`,
  `${layer}.value`,
]).flat();

/** Chats of one model on the runtime by itself. */
export class BareModel {
  #ort;
  #session;
  #style;
  #capacityTokens;

  static async open({ ort, sessionOptions, style, positions, capacityTokens }) {
    const bare = new BareModel();
    bare.#ort = ort;
    bare.#session = await ort.InferenceSession.create(modelOf(style, positions), sessionOptions);
    bare.#style = style;
    bare.#capacityTokens = capacityTokens;
    return bare;
  }

  /** The runtime's KV goes straight back in. */
  plainChat() {
    const past = new Map();
    let tokenCount = 0;
    return {
      tokenCount: () => tokenCount,
      step: async (tokens) => {
        const outputs = await this.#session.run(this.#feeds(tokens, tokenCount, past));
        for (const name of NAMES) past.set(name, outputs[`present.${name}`]);
        tokenCount += tokens.length;
        return outputs.logits;
      },
    };
  }

  /** The past is a fixed one, and only logits come back. @param fedTokens Its length. */
  floor(fedTokens, usedTokens) {
    const past = new Map(NAMES.map((name) => [name, this.#zeros(fedTokens)]));
    const feeds = this.#feeds([1], this.#style === "concat" ? fedTokens : usedTokens, past);
    return { step: async () => (await this.#session.run(feeds, ["logits"])).logits };
  }

  release() {
    return this.#session.release();
  }

  #zeros(tokens) {
    const elements = new Float32Array(SIZES.kvHeads * tokens * HEAD_DIM);
    return new this.#ort.Tensor("float32", elements, [1, SIZES.kvHeads, tokens, HEAD_DIM]);
  }

  #feeds(tokens, pastTokens, past) {
    const { Tensor } = this.#ort;
    const long = (values) =>
      new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const total = pastTokens + tokens.length;
    const feeds = { input_ids: long(tokens) };
    if (this.#style === "concat") {
      feeds.position_ids = long(tokens.map((_, index) => pastTokens + index));
      feeds.attention_mask = long(Array(total).fill(1));
    } else {
      feeds.seqlens_k = new Tensor("int32", Int32Array.of(total - 1), [1]);
      feeds.total_sequence_length = new Tensor("int32", Int32Array.of(total), [1]);
    }
    const fedTokens = this.#style === "concat" ? pastTokens : this.#capacityTokens;
    for (const name of NAMES) {
      feeds[`past_key_values.${name}`] = past.get(name) ?? this.#zeros(fedTokens);
    }
    return feeds;
  }
}

/** A decoder over the heap, and chats of it. */
export async function openDelta({ ort, sessionOptions, style, positions, memory, pageTokens }) {
  const decoder = await openOrtDecoder({
    ...{ ort, sessionOptions, memory, fingerprint: `${style} bench` },
    model: modelOf(style, positions),
    ...(pageTokens === undefined ? {} : { pageTokens }),
  });
  if (decoder.stats().mode !== "delta") throw new Error("the decoder did not take delta rows");
  return {
    decoder,
    chat: () => {
      const cache = decoder.createCache();
      const all = [];
      return {
        cache,
        tokenCount: () => all.length,
        step: async (tokens) => {
          all.push(...tokens);
          return (await decoder.step(cache, all)).logits;
        },
      };
    },
  };
}

/** Brings a chat to a length, in parts that a busy machine can bear. */
export async function fillTo(chat, tokenCount) {
  const partTokens = 256;
  while (chat.tokenCount() < tokenCount) {
    const from = chat.tokenCount();
    const count = Math.min(partTokens, tokenCount - from);
    await chat.step(Array.from({ length: count }, (_, index) => ((from + index) * 37) % 256));
  }
}
