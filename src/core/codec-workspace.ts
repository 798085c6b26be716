// The memory that codecs work in: one linear memory of fixed size with kernels.wasm on it, handed out
// as a stack. Layer: core.
//
// Views on the memory are made anew for each use: they are cheap beside the work, and none is kept.
import * as abi from "../../assembly/kernels-abi.js";
import type { KernelExports } from "./kernel-exports.js";
import { instantiateKernels } from "./kernels-module.js";
import { LinearMemory, type MemoryFactory } from "./linear-memory.js";
import type { WasmSource } from "./module-instance.js";

/** Bytes that the Huffman kernels work in. */
export const HUFFMAN_SCRATCH_BYTES = abi.HUFFMAN_SCRATCH_BYTES;

/** Everything that the workspace hands out begins at a multiple of this. */
const ALIGNMENT = 64;

export class CodecWorkspace {
  readonly kernels: KernelExports;
  /** Bytes of linear memory. */
  readonly byteLength: number;
  readonly #memory: LinearMemory;
  #top: number;

  private constructor(kernels: KernelExports, memory: LinearMemory) {
    this.kernels = kernels;
    this.byteLength = memory.byteLength;
    this.#memory = memory;
    this.#top = kernels.kernelsHeapBase() >>> 0;
  }

  /**
   * @param byteLength Of the whole memory.
   * @throws {OutOfMemoryError} The platform has no room.
   */
  static async create(
    byteLength: number,
    createMemory: MemoryFactory,
    wasm?: WasmSource,
  ): Promise<CodecWorkspace> {
    const memory = LinearMemory.create(byteLength, createMemory);
    return new CodecWorkspace(await instantiateKernels(memory.wasm, wasm), memory);
  }

  /** Bytes that {@link take} can still give. */
  get freeBytes(): number {
    return this.byteLength - this.#top;
  }

  /**
   * Takes `byteLength` bytes, whose content is undefined, until {@link within} ends.
   *
   * @throws {RangeError} There are not so many: the caller has computed its need wrongly.
   */
  take(byteLength: number): number {
    const address = this.#top;
    const end = address + Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
    if (end > this.byteLength) throw new RangeError("the codec workspace is too small");
    this.#top = end;
    return address;
  }

  /** Runs `work` and gives back everything that it took. */
  within<T>(work: () => T): T {
    const top = this.#top;
    try {
      return work();
    } finally {
      this.#top = top;
    }
  }

  bytes(address: number, byteLength: number): Uint8Array<ArrayBuffer> {
    return this.#memory.bytes(address, byteLength);
  }

  f32(address: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#memory.wasm.buffer as ArrayBuffer, address, count);
  }

  f64(address: number, count: number): Float64Array<ArrayBuffer> {
    return new Float64Array(this.#memory.wasm.buffer as ArrayBuffer, address, count);
  }

  u32(address: number, count: number): Uint32Array<ArrayBuffer> {
    return new Uint32Array(this.#memory.wasm.buffer as ArrayBuffer, address, count);
  }

  u16(address: number, count: number): Uint16Array<ArrayBuffer> {
    return new Uint16Array(this.#memory.wasm.buffer as ArrayBuffer, address, count);
  }
}
