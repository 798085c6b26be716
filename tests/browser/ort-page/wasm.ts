// The wasm provider in a page: delta rows in the heap beside the bare runtime.
import { greedyToken, type OrtDecoderStats, openOrtDecoder } from "tierheap/adapters/ort";
import { createTensorMemory } from "tierheap/browser";
import { answersOf, bareChat, FAMILIES, type Family } from "../../support/decoder-families.js";

/** Where the tests serve the runtime's files. */
export const RUNTIME_FILES = "/onnxruntime-web/";

export interface WasmResult {
  readonly threads: number | undefined;
  readonly expected: number[][];
  readonly answers: number[][];
  readonly stats: OrtDecoderStats;
  readonly problems: readonly string[];
}

/** A conversation of one seed with the family of that index, on both. */
export async function runWasm(familyIndex: number, seed: number): Promise<WasmResult> {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = RUNTIME_FILES;
  ort.env.wasm.numThreads = crossOriginIsolated ? 2 : 1;
  const sessionOptions = { executionProviders: ["wasm"], logSeverityLevel: 4 as const };
  const family = FAMILIES[familyIndex] as Family;
  const model = family.build(seed);
  const bare = await bareChat(family, model, { ort, sessionOptions });
  const expected = await answersOf(bare.chat, seed);
  await bare.release();
  const memory = await createTensorMemory({ budgets: { ram: "32MiB" } });
  const decoder = await openOrtDecoder({ ort, sessionOptions, memory, model, pageTokens: 16 });
  const cache = decoder.createCache();
  const tokens: number[] = [];
  const say = async (prompt: readonly number[], answerTokens: number) => {
    tokens.push(...prompt);
    const from = tokens.length;
    while (tokens.length < from + answerTokens) {
      tokens.push(greedyToken((await decoder.step(cache, tokens)).logits));
    }
    return tokens.slice(from);
  };
  const answers = await answersOf({ say }, seed);
  const stats = decoder.stats();
  cache.free();
  const { problems } = memory.verify();
  await decoder.close();
  await memory.close();
  return { threads: ort.env.wasm.numThreads, expected, answers, stats, problems };
}
