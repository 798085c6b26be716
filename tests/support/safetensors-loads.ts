// What tests of safetensors ask of files and heaps.
import type { LoadedSafetensors } from "tierheap/adapters/safetensors";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { seededRandom } from "../../src/testing/index.js";
import { DTYPE_NAMES, dtypeTraits } from "../../src/types.js";
import { entryOf, fileOf } from "./safetensors.js";

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return new Uint8Array(Buffer.concat(parts));
}

export function randomBytes(random: { uint32(): number }, byteLength: number): Uint8Array {
  return Uint8Array.from({ length: byteLength }, () => random.uint32() & 0xff);
}

/** The bytes of each tensor by name; tensors that left RAM come back for it. */
export async function bytesOf(memory: TensorMemory, loaded: LoadedSafetensors) {
  const all = new Map<string, Uint8Array>();
  for (const { name, tensor } of loaded.tensors.values()) {
    if (tensor === null) continue;
    const pin =
      tensor.id === null
        ? tensor.pin({ access: "read" })
        : await memory.acquire(tensor.id, { access: "read" });
    if (pin === null) throw new Error(`${name} is gone`);
    all.set(name, pin.bytes.slice());
    pin[Symbol.dispose]();
  }
  return all;
}

export function allocationCount(memory: TensorMemory): number {
  return memory.stats().pools.reduce((sum, pool) => sum + pool.allocationCount, 0);
}

/** A file with one tensor of each of our element types, an empty one and a single value. */
export function everyDtype(seed: number) {
  const random = seededRandom(seed);
  const names = [...DTYPE_NAMES].map((dtype) => [dtype.toUpperCase(), dtype] as const);
  const shapes = new Map<string, number[]>();
  const parts = new Map<string, Uint8Array>();
  const members: string[] = [];
  let offset = 0;
  const add = (name: string, dtype: string, elementBytes: number, shape: number[]) => {
    const byteLength = shape.reduce((product, length) => product * length, elementBytes);
    shapes.set(name, shape);
    parts.set(name, randomBytes(random, byteLength));
    members.push(entryOf(name, dtype, shape, [offset, offset + byteLength]));
    offset += byteLength;
  };
  for (const [name, dtype] of names) {
    const { elementBytes } = dtypeTraits(dtype);
    add(`layer.${dtype}`, name, elementBytes, [1 + (random.uint32() % 3), 5, 2]);
  }
  add("scale", "F32", 4, []);
  add("none", "BF16", 2, [3, 0]);
  const data = new Uint8Array(Buffer.concat([...parts.values()]));
  const header = `{"__metadata__":{"format":"pt","note":"é"},${members.join(",")}}`;
  return { file: fileOf(header, data), parts, shapes };
}
