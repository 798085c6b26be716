// A visitor's own .safetensors file in the heap: read straight into it, and compared with the file again.
import type { TensorMemory } from "tierheap";
import { type LoadedTensor, loadSafetensors } from "tierheap/adapters/safetensors";

const PREFIX = "weights/";

export class Weights {
  readonly file: File;
  readonly tensors: readonly LoadedTensor[];
  readonly byteLength: number;
  readonly #memory: TensorMemory;

  private constructor(
    memory: TensorMemory,
    file: File,
    tensors: readonly LoadedTensor[],
    byteLength: number,
  ) {
    this.#memory = memory;
    this.file = file;
    this.tensors = tensors;
    this.byteLength = byteLength;
  }

  /** What was loaded before is freed. */
  static async load(memory: TensorMemory, file: File): Promise<Weights> {
    await forgetWeights(memory);
    const loaded = await loadSafetensors(memory, file, {
      ids: (name) => `${PREFIX}${name}`,
      foreign: "bytes",
    });
    return new Weights(memory, file, [...loaded.tensors.values()], loaded.byteLength);
  }

  /** How many of them are in RAM. */
  get residentCount(): number {
    return this.tensors.filter(({ tensor }) => tensor?.isResident === true).length;
  }

  /** Reads every tensor again, wherever it is, and compares all bytes with the file's. */
  async compare(): Promise<{ readonly equalCount: number; readonly otherCount: number }> {
    const again = await Weights.#placesOf(this.file);
    let equalCount = 0;
    let otherCount = 0;
    for (const { name } of this.tensors) {
      const place = again.get(name);
      if (place === undefined) continue;
      const { from, to } = place;
      if (from === to) continue;
      const expected = new Uint8Array(await this.file.slice(from, to).arrayBuffer());
      using lease = await this.#memory.acquire(`${PREFIX}${name}`, { access: "read" });
      const isEqual = lease !== null && isSame(lease.bytes, expected);
      if (isEqual) equalCount += 1;
      else otherCount += 1;
    }
    return { equalCount, otherCount };
  }

  /** Where the bytes of each tensor lie in the file, read without the adapter. */
  static async #placesOf(file: File): Promise<Map<string, { from: number; to: number }>> {
    const head = new DataView(await file.slice(0, 8).arrayBuffer());
    const headerBytes = Number(head.getBigUint64(0, true));
    const header = JSON.parse(await file.slice(8, 8 + headerBytes).text()) as Record<
      string,
      { data_offsets?: [number, number] }
    >;
    const places = new Map<string, { from: number; to: number }>();
    for (const [name, { data_offsets: offsets }] of Object.entries(header)) {
      if (offsets === undefined) continue;
      const base = 8 + headerBytes;
      places.set(name, { from: base + offsets[0], to: base + offsets[1] });
    }
    return places;
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

export async function forgetWeights(memory: TensorMemory): Promise<void> {
  const ids: string[] = [];
  for await (const { id } of memory.list({ prefix: PREFIX })) ids.push(id);
  for (const id of ids) await memory.delete(id);
}

/** A file for those who have none: twelve layers of made-up weights, 24 MiB. */
export function makeSampleFile(): File {
  const header: Record<string, object> = {};
  const parts: BlobPart[] = [];
  let at = 0;
  let state = 7;
  for (let layer = 0; layer < 12; layer++) {
    for (const [name, rows] of [
      ["attention.weight", 256],
      ["mlp.weight", 768],
    ] as const) {
      const values = new Float32Array(rows * 512);
      for (let index = 0; index < values.length; index++) {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
        values[index] = state / 2 ** 36;
      }
      const offsets = [at, at + values.byteLength];
      header[`layers.${layer}.${name}`] = {
        dtype: "F32",
        shape: [rows, 512],
        data_offsets: offsets,
      };
      at += values.byteLength;
      parts.push(values);
    }
  }
  const text = JSON.stringify(header);
  const bytes = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(bytes.length), true);
  return new File([length.buffer, bytes, ...parts], "sample.safetensors");
}
