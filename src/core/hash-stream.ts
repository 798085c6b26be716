// The integrity hash: XXH3, 128 bits, streamed through kernels.wasm. Layer: core.
//
// Detects accidents, not attackers. Each stream copies what it is given into a window of the
// kernels' own memory and hashes full windows; one window is always held back, because the end of
// the input is hashed differently from its middle.
//
// Source: Yann Collet, "xxHash fast digest algorithm", specification 0.2.0 — the algorithm.
import * as abi from "../../assembly/kernels-abi.js";
import type { KernelExports } from "./kernel-exports.js";
import { instantiateKernels } from "./kernels-module.js";
import { LinearMemory, type MemoryFactory } from "./linear-memory.js";
import type { WasmSource } from "./module-instance.js";

const DIGEST_BYTES = 16;
const WINDOW_BYTES = 65536;
/** The last stripe of an input may begin in the window before. */
const HISTORY_BYTES = 64;

/** Hands out hash streams over one kernel memory. */
export class Hasher {
  /** Bytes of linear memory that the streams occupy. */
  readonly byteLength: number;
  readonly #kernels: KernelExports;
  readonly #memory: LinearMemory;
  readonly #secret: number;
  readonly #idle: number[] = [];
  readonly #streamBytes = abi.HASH_STATE_BYTES + HISTORY_BYTES + WINDOW_BYTES;

  private constructor(kernels: KernelExports, memory: LinearMemory, streamCount: number) {
    this.#kernels = kernels;
    this.#memory = memory;
    this.byteLength = memory.byteLength;
    this.#secret = kernels.kernelsHeapBase() >>> 0;
    kernels.hashSetup(this.#secret);
    const first = this.#secret + abi.HASH_SECRET_BYTES + DIGEST_BYTES;
    for (let stream = 0; stream < streamCount; stream++) {
      this.#idle.push(first + stream * this.#streamBytes);
    }
  }

  /** @param streamCount Most streams open at once. */
  static async create(
    streamCount: number,
    createMemory: MemoryFactory,
    wasm?: WasmSource,
  ): Promise<Hasher> {
    const streamBytes = abi.HASH_STATE_BYTES + HISTORY_BYTES + WINDOW_BYTES;
    const byteLength = 8192 + streamCount * streamBytes;
    const memory = LinearMemory.create(byteLength, createMemory);
    return new Hasher(await instantiateKernels(memory.wasm, wasm), memory, streamCount);
  }

  /** Opens a stream. It must be ended or discarded. */
  open(): HashStream {
    const address = this.#idle.pop();
    if (address === undefined) throw new RangeError("more hash streams than transfers");
    return new HashStream(this.#kernels, this.#memory, this.#secret, address, () => {
      this.#idle.push(address);
    });
  }
}

export class HashStream {
  readonly #kernels: KernelExports;
  readonly #memory: LinearMemory;
  readonly #secret: number;
  readonly #state: number;
  readonly #window: number;
  readonly #release: () => void;
  readonly #windowBytes: Uint8Array;
  #filled = 0;
  #isOpen = true;

  constructor(
    kernels: KernelExports,
    memory: LinearMemory,
    secret: number,
    state: number,
    release: () => void,
  ) {
    this.#kernels = kernels;
    this.#memory = memory;
    this.#secret = secret;
    this.#state = state;
    this.#window = state + abi.HASH_STATE_BYTES + HISTORY_BYTES;
    this.#windowBytes = memory.bytes(this.#window, WINDOW_BYTES);
    this.#release = release;
    kernels.hashBegin(state);
  }

  update(source: Uint8Array): void {
    let consumed = 0;
    while (consumed < source.byteLength) {
      if (this.#filled === WINDOW_BYTES) this.#hashWindow();
      const byteLength = Math.min(WINDOW_BYTES - this.#filled, source.byteLength - consumed);
      this.#windowBytes.set(source.subarray(consumed, consumed + byteLength), this.#filled);
      this.#filled += byteLength;
      consumed += byteLength;
    }
  }

  /** The digest of everything given, {@link DIGEST_BYTES} bytes; closes the stream. */
  end(): Uint8Array<ArrayBuffer> {
    const target = this.#secret + abi.HASH_SECRET_BYTES;
    const { hashEnd } = this.#kernels;
    const status = hashEnd(this.#state, this.#secret, this.#window, this.#filled, target);
    this.discard();
    if (status !== 0) throw new RangeError("an input of this hash is longer than 240 bytes");
    return this.#memory.bytes(target, DIGEST_BYTES).slice();
  }

  /** Gives the stream's memory back. May be called again. */
  discard(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#release();
  }

  #hashWindow(): void {
    this.#kernels.hashBlocks(this.#state, this.#secret, this.#window, WINDOW_BYTES / 1024);
    this.#memory.move(
      this.#window + WINDOW_BYTES - HISTORY_BYTES,
      this.#window - HISTORY_BYTES,
      HISTORY_BYTES,
    );
    this.#filled = 0;
  }
}
