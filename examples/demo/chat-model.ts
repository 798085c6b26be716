// The model on onnxruntime-web, loaded when somebody asks the first question: a decoder over KV in the heap,
// and the runtime by itself, with which its tokens are compared.
import type { InferenceSession, Tensor } from "onnxruntime-web";
import runtimeModule from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import runtimeWasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import * as ort from "onnxruntime-web/wasm";
import type { TensorMemory } from "tierheap";
import { greedyToken, type OrtDecoder, openOrtDecoder } from "tierheap/adapters/ort";
import { breathe } from "./dom.js";
import { kvIdsOf, MODEL } from "./model.js";
import { isRuntimeInPage } from "./settings.js";

const SESSION_OPTIONS = { executionProviders: ["wasm"], logSeverityLevel: 4 } as const;

let modelBytes: Promise<Uint8Array<ArrayBuffer>> | null = null;

function buildModel(): Promise<Uint8Array<ArrayBuffer>> {
  modelBytes ??= new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./model-worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Uint8Array<ArrayBuffer>>) => {
      worker.terminate();
      resolve(data);
    };
    worker.onerror = (event) => {
      reject(new Error(`the model could not be built: ${event.message}`));
    };
  });
  return modelBytes;
}

async function prepare(): Promise<Uint8Array<ArrayBuffer>> {
  ort.env.wasm.wasmPaths = { mjs: new URL(runtimeModule, location.href).href, wasm: runtimeWasm };
  // One thread computes the same with and without isolation.
  ort.env.wasm.numThreads = 1;
  // The runtime starts a worker for itself, by the script that it is in: here a chunk of its own.
  ort.env.wasm.proxy = !isRuntimeInPage(location.search);
  return buildModel();
}

/** A decoder whose KV lies in that memory. */
export async function openDecoder(memory: TensorMemory): Promise<OrtDecoder> {
  const model = await prepare();
  const options = { sessionOptions: SESSION_OPTIONS, fingerprint: `demo/${MODEL.seed}` };
  return openOrtDecoder({ ort, memory, model, checkTokens: 4, ...options });
}

export { greedyToken };

const KV_HEADS = MODEL.kvHeads;
const HEAD_DIM = MODEL.hidden / MODEL.heads;

function integers(values: readonly number[]): Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
}

/**
 * Takes the same turns on the runtime alone, which keeps its own KV.
 *
 * @param prompts Of each turn. @param answerCounts How many tokens each answer has.
 * @returns All tokens, prompts and answers.
 */
export async function answerBare(
  prompts: readonly (readonly number[])[],
  answerCounts: readonly number[],
): Promise<number[]> {
  // A runtime in a worker takes the bytes with it.
  const model = (await prepare()).slice();
  const session = await ort.InferenceSession.create(model, SESSION_OPTIONS);
  try {
    return await replay(session, prompts, answerCounts);
  } finally {
    await session.release();
  }
}

async function replay(
  session: InferenceSession,
  prompts: readonly (readonly number[])[],
  answerCounts: readonly number[],
): Promise<number[]> {
  const names = kvIdsOf("").map((id) => id.slice(1));
  const empty = () => new ort.Tensor("float32", new Float32Array(0), [1, KV_HEADS, 0, HEAD_DIM]);
  let past = new Map<string, Tensor>(names.map((name) => [name, empty()]));
  let pastTokens = 0;
  const tokens: number[] = [];
  for (const [turn, prompt] of prompts.entries()) {
    tokens.push(...prompt);
    for (let answered = 0; answered < (answerCounts[turn] ?? 0); answered++) {
      const fresh = tokens.slice(pastTokens);
      const feeds: Record<string, Tensor> = {
        input_ids: integers(fresh),
        position_ids: integers(fresh.map((_, index) => pastTokens + index)),
        attention_mask: integers(tokens.map(() => 1)),
      };
      for (const [name, tensor] of past) feeds[`past_key_values.${name}`] = tensor;
      const outputs = await session.run(feeds);
      past = new Map(names.map((name) => [name, outputs[`present.${name}`] as Tensor]));
      pastTokens = tokens.length;
      const logits = outputs["logits"] as Tensor;
      const row = (logits.data as Float32Array).slice(-(logits.dims[2] as number));
      tokens.push(greedyToken(row));
      await breathe();
    }
  }
  return tokens;
}
