// Tensors with content that tells them apart.
import { expect } from "vitest";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { openMemory } from "./oracle.js";

export function allocateFilled(memory: TensorMemory, id: string, byteLength: number, seed: number) {
  const tensor = memory.allocate({ kind: "KV_CACHE", byteLength, id });
  using pin = tensor.pin();
  pin.bytes.forEach((_byte, index, bytes) => {
    bytes[index] = (index * 7 + seed) & 0xff;
  });
  return tensor;
}

export async function expectFilled(
  memory: TensorMemory,
  id: string,
  byteLength: number,
  seed: number,
) {
  using lease = await memory.acquire(id, { access: "read" });
  expect(lease?.bytes.byteLength).toBe(byteLength);
  expect(lease?.bytes.findIndex((byte, index) => byte !== ((index * 7 + seed) & 0xff))).toBe(-1);
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

export const onMemory = () => openMemory({ seams: { tier: memoryTier() } });
