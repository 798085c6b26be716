// A runtime that lives in a worker by `env.wasm.proxy` is handed what it is given: bytes of models and arrays of runs are
// gone afterwards, and the memory of a heap cannot be handed over. The browser's own is in tests/browser/demo.test.ts.
import * as web from "onnxruntime-web";
import { expect, it } from "vitest";
import { greedyToken, type OrtNamespace, openOrtDecoder } from "../../src/adapters/ort.js";
import {
  answersOf,
  bareChat,
  FAMILIES,
  type Family,
  SEEDS,
  SHORT_TURNS,
} from "../support/decoder-families.js";
import { openMemory } from "../support/oracle.js";

const SESSION = { executionProviders: ["wasm"], logSeverityLevel: 4 } as const;

web.env.wasm.numThreads = 1;

let takenCount = 0;

/** Takes the buffers away, as `postMessage` with a list of transfers does in a browser. */
function take(arrays: readonly ArrayBufferView[]): void {
  for (const { buffer } of arrays) {
    structuredClone(null, { transfer: [buffer as ArrayBuffer] });
    // Node leaves what it cannot transfer where it is; browsers throw.
    if (buffer.byteLength > 0) throw new Error("a buffer cannot be transferred");
  }
  takenCount += arrays.length;
}

/** onnxruntime-web, which takes what it is given once it has read it. */
const ort: OrtNamespace = {
  env: { wasm: { proxy: true } },
  Tensor: web.Tensor as OrtNamespace["Tensor"],
  InferenceSession: {
    create: async (model) => {
      const session = await web.InferenceSession.create(model.slice(), SESSION);
      take([model]);
      return {
        run: async (feeds: web.InferenceSession.FeedsType, fetches: string[]) => {
          const outputs = await session.run(feeds, fetches);
          take(Object.values(feeds).map(({ data }) => data as ArrayBufferView));
          return outputs;
        },
        release: () => session.release(),
      };
    },
  },
};

// One that concatenates, and one with GroupQueryAttention.
it.each([FAMILIES[0], FAMILIES[2]] as Family[])(
  "gets copies, and answers as ever: $name",
  async (family) => {
    const [seed = 1] = SEEDS;
    const model = family.build(seed);
    const bytes = model.slice();
    const bare = await bareChat(family, model, { ort: web, sessionOptions: SESSION });
    const expected = await answersOf(bare.chat, seed, SHORT_TURNS);
    await bare.release();
    const memory = await openMemory();
    for (const mode of ["delta", "plain"] as const) {
      takenCount = 0;
      const decoder = await openOrtDecoder({ ort, memory, model, mode, pageTokens: 16 });
      const cache = decoder.createCache();
      const tokens: number[] = [];
      const say = async (prompt: readonly number[], answerTokens: number) => {
        tokens.push(...prompt);
        for (let count = 0; count < answerTokens; count++) {
          tokens.push(greedyToken((await decoder.step(cache, tokens)).logits));
        }
        return tokens.slice(-answerTokens);
      };
      expect(await answersOf({ say }, seed, SHORT_TURNS), mode).toEqual(expected);
      expect(decoder.stats().mode).toBe(mode);
      expect(takenCount).toBeGreaterThan(50);
      expect(model).toEqual(bytes);
      cache.free();
      await decoder.close();
    }
  },
);
