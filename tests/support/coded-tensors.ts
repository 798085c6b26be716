// Tensors on their way into a tier and back, and the object that is left there.
import { expect } from "vitest";
import type { CodecOptions } from "../../src/memory/codec-options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier, TierReader } from "../../src/tier/tier.js";
import type { TensorErrorBudget } from "../../src/types.js";
import { type PrivateBytes, privateBytes } from "../../src/util/private-bytes.js";
import { openMemory } from "./oracle.js";

/** A tier that stays open, so that another memory can have it. */
export function keptTier(options?: { readonly capacityBytes: number }): Tier {
  const tier = memoryTier(options);
  return { ...tier, close: async () => {} };
}

export const open = (codecs: CodecOptions, tier: Tier = memoryTier(), ram = "64MiB") =>
  openMemory({ budgets: { ram }, codecs, seams: { tier } });

/** Values like those of a KV cache: roughly normal, of 16 significant bits. */
export function valuesLike(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  const uniform = () => random.uint32() / 2 ** 32;
  const values = Float32Array.from({ length: count }, (_each, index) => {
    const scale = 1 + (index % 64) / 16;
    return scale * (uniform() + uniform() + uniform() - 1.5);
  });
  const words = new Uint32Array(values.buffer);
  words.forEach((word, index) => {
    words[index] = word & 0xffff0000;
  });
  return values;
}

export function allocate(
  memory: TensorMemory,
  id: string,
  values: Float32Array,
  more: { readonly budget?: TensorErrorBudget; readonly tag?: string } = {},
): void {
  const shape = [values.length / 64, 64];
  const tensor = memory.allocate({ kind: "KV_CACHE", id, shape, dtype: "f32", ...more });
  using pin = tensor.pin();
  pin.view.set(values);
}

export async function read(memory: TensorMemory, id: string): Promise<Float32Array> {
  using lease = await memory.acquire<"f32">(id, { access: "read" });
  return (lease?.view ?? new Float32Array()).slice();
}

/** Equal bytes: unlike values, these are compared fast, and NaN is what it was. */
export function expectSame(values: Float32Array, original: Float32Array): void {
  const bytesOf = (array: Float32Array) => new Uint8Array(array.buffer, 0, array.byteLength);
  expect(Buffer.compare(bytesOf(values), bytesOf(original))).toBe(0);
}

export function relativeError(values: Float32Array, original: Float32Array): number {
  let squares = 0;
  let errors = 0;
  original.forEach((value, index) => {
    squares += value ** 2;
    errors += (value - (values[index] as number)) ** 2;
  });
  return Math.sqrt(errors / squares);
}

/** The bytes of the only object of a tier. */
export async function onlyObject(tier: Tier): Promise<{ key: string; bytes: PrivateBytes }> {
  for await (const key of tier.list()) {
    const reader = (await tier.openRead(key)) as TierReader;
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    await reader.close();
    return { key, bytes };
  }
  throw new Error("the tier is empty");
}

export async function plant(tier: Tier, key: string, bytes: PrivateBytes): Promise<void> {
  const writer = await tier.begin(key, bytes.byteLength);
  if (writer === "no-space") throw new Error("no space");
  await writer.write(bytes);
  await writer.commit({ durable: false });
}
