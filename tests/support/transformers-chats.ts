// Small models of transformers.js, conversations with them, and the same with KV in the heap.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { AutoModelForCausalLM, env, type PreTrainedModel, Tensor } from "@huggingface/transformers";
import { afterAll, beforeAll, expect } from "vitest";
import { type TinyFamily, tinyModelFiles } from "../../examples/transformers/tiny-model.js";
import {
  createPastKeyValues,
  type PastKeyValues,
  type PastKeyValuesOptions,
} from "../../src/adapters/transformers.js";
import type { TensorMemory } from "../../src/index.js";
import { seededRandom } from "../../src/testing/index.js";

export const FAMILIES: readonly TinyFamily[] = ["llama", "gpt2"];
export const SEEDS = [1, 2, 3, 4, 5];
/** [prompt, answer] tokens of each turn; the first crosses a page of the cache. */
export const TURNS = [
  [55, 16],
  [4, 9],
  [1, 5],
] as const;

let directory: string;
const models = new Map<string, Promise<PreTrainedModel>>();

/** Makes and keeps the models of a file of tests. */
export function useTinyModels(): void {
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "tierheap-transformers-"));
    env.allowRemoteModels = false;
    env.useFSCache = false;
    env.localModelPath = directory;
  });
  afterAll(async () => {
    for (const model of models.values()) await (await model).dispose();
    await rm(directory, { recursive: true, force: true });
  });
}

async function loadModel(family: TinyFamily, seed: number): Promise<PreTrainedModel> {
  const name = `${family}-${seed}`;
  for (const [path, bytes] of tinyModelFiles(family, seed)) {
    const file = join(directory, name, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, bytes);
  }
  return AutoModelForCausalLM.from_pretrained(name, { dtype: "fp32", device: "cpu" });
}

export function modelOf(family: TinyFamily, seed: number): Promise<PreTrainedModel> {
  const name = `${family}-${seed}`;
  const known = models.get(name) ?? loadModel(family, seed);
  models.set(name, known);
  return known;
}

export function inputsOf(tokens: readonly number[], newTokens: number) {
  const dims = [1, tokens.length];
  return {
    input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), dims),
    attention_mask: new Tensor("int64", new BigInt64Array(tokens.length).fill(1n), dims),
    max_new_tokens: newTokens,
    do_sample: false,
  };
}

export function numbersIn(output: unknown): number[] {
  return Array.from((output as Tensor).data as BigInt64Array, Number);
}

export async function bareAnswer(
  model: PreTrainedModel,
  tokens: readonly number[],
  newTokens: number,
): Promise<number[]> {
  return numbersIn(await model.generate(inputsOf(tokens, newTokens)));
}

export async function answer(
  cache: PastKeyValues,
  model: PreTrainedModel,
  tokens: readonly number[],
  newTokens: number,
): Promise<number[]> {
  return numbersIn(await cache.generate(model, inputsOf(tokens, newTokens)));
}

export function promptsFor(seed: number): number[][] {
  const random = seededRandom(seed);
  return TURNS.map(([length]) => Array.from({ length }, () => random.uint32() % 256));
}

/** The whole conversation of a seed, turn by turn, with the library's own cache. */
export async function bareChat(model: PreTrainedModel, seed: number): Promise<number[][]> {
  let tokens: number[] = [];
  const turns: number[][] = [];
  for (const [turn, prompt] of promptsFor(seed).entries()) {
    tokens = await bareAnswer(model, [...tokens, ...prompt], TURNS[turn]?.[1] ?? 0);
    turns.push(tokens);
  }
  // A family whose answers hardly depend on its KV would prove nothing.
  expect(new Set(tokens.slice(TURNS[0][0])).size).toBeGreaterThan(8);
  return turns;
}

export function cacheOn(
  memory: TensorMemory,
  options: Partial<PastKeyValuesOptions> = {},
): PastKeyValues {
  return createPastKeyValues(memory, { Tensor, fingerprint: "tiny@1", ...options });
}

/** The rows of each entry, head by head, of a cache between prepare and commit. */
export function rowsOf(cache: PastKeyValues): Map<string, Float32Array[]> {
  return new Map(
    Object.entries(cache).map(([key, { data, dims }]: [string, Tensor]) => {
      const [, heads = 0, tokens = 0, headDim = 0] = dims;
      const count = tokens * headDim;
      const rows = Array.from({ length: heads }, (_, head) =>
        (data as Float32Array).slice(head * count, (head + 1) * count),
      );
      return [key, rows];
    }),
  );
}

export const KEYS = [0, 1].flatMap((layer) => [
  `past_key_values.${layer}.key`,
  `past_key_values.${layer}.value`,
]);

export async function idsIn(memory: TensorMemory): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of memory.list()) ids.push(id);
  return ids.sort();
}
