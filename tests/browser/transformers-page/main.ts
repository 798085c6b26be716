// What the tests of transformers.js do inside a page, put on `window` for them.
import {
  AutoModelForCausalLM,
  DynamicCache,
  env,
  type PreTrainedModel,
  Tensor,
} from "@huggingface/transformers";
import { createModelCache, createPastKeyValues } from "tierheap/adapters/transformers";
import { createTensorMemory } from "tierheap/browser";
import { seededRandom } from "tierheap/testing";

export type Device = "wasm" | "webgpu";

const RUNTIME = "/runtime/ort-wasm-simd-threaded.asyncify";
/** [prompt, answer] tokens of each turn. A software adapter is slow. */
const TURNS = {
  wasm: [
    [55, 12],
    [4, 9],
  ],
  webgpu: [
    [15, 6],
    [4, 5],
  ],
} as const;

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = "/models/";
env.useBrowserCache = false;
env.useWasmCache = false;
Object.assign(env.backends.onnx.wasm ?? {}, {
  wasmPaths: { mjs: `${RUNTIME}.mjs`, wasm: `${RUNTIME}.wasm` },
  numThreads: 1,
});

function loadModel(name: string, device: Device): Promise<PreTrainedModel> {
  return AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device });
}

function inputsOf(tokens: readonly number[], newTokens: number) {
  const dims = [1, tokens.length];
  return {
    input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), dims),
    attention_mask: new Tensor("int64", new BigInt64Array(tokens.length).fill(1n), dims),
    max_new_tokens: newTokens,
    do_sample: false,
  };
}

function numbersIn(output: unknown): number[] {
  return Array.from((output as Tensor).data as BigInt64Array, Number);
}

/** Two turns with the library's own cache, and with one that is demoted between them. */
async function chat(name: string, seed: number, device: Device) {
  const model = await loadModel(name, device);
  const memory = await createTensorMemory({
    budgets: { ram: "16MiB", ssd: "64MiB" },
    ssd: { directory: `chat-${name}-${device}` },
  });
  const cache = createPastKeyValues(memory, { Tensor, fingerprint: name, id: "chat" });
  const own = new DynamicCache();
  const random = seededRandom(seed);
  let bare: number[] = [];
  let kept: number[] = [];
  for (const [length, newTokens] of TURNS[device]) {
    const prompt = Array.from({ length }, () => random.uint32() % 256);
    const inputs = { ...inputsOf([...bare, ...prompt], newTokens), past_key_values: own };
    bare = numbersIn(await model.generate(inputs));
    kept = numbersIn(await cache.generate(model, inputsOf([...kept, ...prompt], newTokens)));
    for await (const { id } of memory.list()) await memory.swapOut(id);
  }
  const { problems } = memory.verify();
  const { swapInCount } = memory.stats().transfers;
  const stats = cache.stats();
  await cache.dispose();
  await memory.close();
  await own.dispose();
  await model.dispose();
  return { bare, kept, stats, swapInCount, problems };
}

/** An answer of a model that is loaded through the cache, or what went wrong. */
async function loadThroughCache(
  name: string,
): Promise<{ answer: number[] | string; stats: object }> {
  const memory = await createTensorMemory({
    budgets: { ram: "16MiB", ssd: "64MiB" },
    ssd: { directory: "models" },
  });
  const cache = createModelCache(memory, { chunkBytes: "32KiB" });
  const { fetch } = env;
  Object.assign(env, { useCustomCache: true, customCache: cache, fetch: cache.fetch });
  try {
    const model = await loadModel(name, "wasm");
    const answer = numbersIn(await model.generate(inputsOf([1, 2, 3], 9)));
    await model.dispose();
    return { answer, stats: cache.stats() };
  } catch (error) {
    return { answer: String(error), stats: cache.stats() };
  } finally {
    Object.assign(env, { useCustomCache: false, customCache: null, fetch });
    await memory.close();
  }
}

const api = { chat, loadThroughCache };

declare global {
  interface Window {
    transformersPage: typeof api;
  }
}

window.transformersPage = api;
