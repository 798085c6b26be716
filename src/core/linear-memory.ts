// Fixed-size linear memories and the views on them. Layer: core.
//
// Our memories never grow, so a view never detaches; it only goes stale when its block moves.
import { OutOfMemoryError } from "../errors.js";
import { type Dtype, dtypeTraits, type TensorView } from "../types.js";

export const WASM_PAGE_BYTES = 65536;
/** A 32-bit memory holds at most this many wasm pages: 4 GiB. */
const WASM_PAGES_MAX = 65536;

/**
 * Seam: creates a memory of exactly `pages` wasm pages. May throw a `RangeError` when the platform
 * has no room; the caller treats that as a refusal.
 */
export type MemoryFactory = (pages: number) => WebAssembly.Memory;

/** A WebAssembly memory, for those who hand one on without touching it. */
export type WasmMemory = WebAssembly.Memory;

/** Unshared memories: native ONNX Runtime refuses views on shared ones. */
export const createUnsharedMemory: MemoryFactory = (pages) =>
  new WebAssembly.Memory({ initial: pages, maximum: pages });

/** Shared memories, which workers can be given. Where they cannot: see {@link canShareMemory}. */
export const createSharedMemory: MemoryFactory = (pages) =>
  new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });

/**
 * Whether this environment lets workers share memory. Pages must be cross-origin isolated; without
 * that a shared memory can be made, but not be sent.
 */
export function canShareMemory(): boolean {
  const { crossOriginIsolated = true } = globalThis as { crossOriginIsolated?: boolean };
  return typeof SharedArrayBuffer === "function" && crossOriginIsolated;
}

export function isSharedMemory(memory: WebAssembly.Memory): boolean {
  return typeof SharedArrayBuffer === "function" && memory.buffer instanceof SharedArrayBuffer;
}

/** The bytes of a shared memory, in a thread that did not create it. */
export class SharedBytes {
  readonly buffer: SharedArrayBuffer;

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
  }

  view<D extends Dtype>(dtype: D, offset: number, byteLength: number): TensorView<D> {
    const { View, elementBytes } = dtypeTraits(dtype);
    return new View(this.buffer as never, offset, byteLength / elementBytes) as TensorView<D>;
  }
}

export class LinearMemory {
  readonly wasm: WebAssembly.Memory;
  readonly byteLength: number;

  constructor(wasm: WebAssembly.Memory) {
    this.wasm = wasm;
    this.byteLength = wasm.buffer.byteLength;
  }

  /** A memory of at least `byteLength` bytes, or null when the platform refuses. */
  static tryCreate(byteLength: number, createMemory: MemoryFactory): LinearMemory | null {
    const pages = Math.ceil(byteLength / WASM_PAGE_BYTES);
    if (pages > WASM_PAGES_MAX) return null;
    try {
      return new LinearMemory(createMemory(pages));
    } catch (error) {
      if (error instanceof RangeError) return null;
      throw error;
    }
  }

  /** As {@link tryCreate}, where there is no doing without. @throws {OutOfMemoryError} */
  static create(byteLength: number, createMemory: MemoryFactory): LinearMemory {
    const memory = LinearMemory.tryCreate(byteLength, createMemory);
    if (memory !== null) return memory;
    throw new OutOfMemoryError({
      requestedBytes: byteLength,
      freeBytes: 0,
      largestFreeBlockBytes: 0,
      pinnedBytes: 0,
      budgetBytes: 0,
      remediesTried: [],
      advice: "The platform has no memory for the bookkeeping: use a smaller RAM budget.",
    });
  }

  /** Lives as long as the memory, or any view of it: views keep the buffer alive, not `wasm`. */
  get anchor(): object {
    return this.wasm.buffer;
  }

  /** Raw bytes. The view aliases the memory: it is never handed to a tier. */
  bytes(offset: number, byteLength: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.wasm.buffer as ArrayBuffer, offset, byteLength);
  }

  /** Address of the first byte of a view of this memory; null if the view is of something else. */
  tryAddressOf(view: ArrayBufferView): number | null {
    return view.buffer === this.wasm.buffer ? view.byteOffset : null;
  }

  view(dtype: Dtype, offset: number, byteLength: number): TensorView {
    const { View, elementBytes } = dtypeTraits(dtype);
    return new View(this.wasm.buffer, offset, byteLength / elementBytes);
  }

  /** Copies within the memory; the ranges may overlap. */
  move(sourceOffset: number, targetOffset: number, byteLength: number): void {
    this.bytes(0, this.byteLength).copyWithin(
      targetOffset,
      sourceOffset,
      sourceOffset + byteLength,
    );
  }
}
