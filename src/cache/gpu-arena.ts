// Parts of one long buffer of a GPU, handed out by the same core that manages RAM: the books are here, the
// bytes are on the device. For kernels, which can bind a buffer at an offset; runtimes cannot.
import type { ControlPlane } from "../core/control-plane.js";
import { MisuseError, TierError } from "../errors.js";
import type { GpuBuffer, GpuDevice } from "../gpu/gpu-device.js";
import { TENSOR_BYTES_MAX } from "../limits.js";
import { checkAlignment } from "../memory/checks.js";
import { openSingleArena } from "../memory/single-arena.js";
import { checkBytes } from "../types.js";

/** What every device lets bindings begin at. Source: W3C, WebGPU, minStorageBufferOffsetAlignment. */
const BINDING_BYTES = 256;

/** A part of an arena: bind it as `{ buffer, offset, size }`. */
export interface GpuBlock {
  readonly buffer: GpuBuffer;
  /** Bytes from the beginning of the buffer; a multiple of 256, and of the alignment that was asked for. */
  readonly offset: number;
  /** Bytes asked for. */
  readonly size: number;
  /** Gives the part back. @throws {MisuseError} `stale-handle` — that was done before. */
  free(): void;
}

export interface GpuArenaStats {
  readonly capacityBytes: number;
  readonly requestedBytes: number;
  readonly grantedBytes: number;
  readonly liveCount: number;
  readonly largestFreeBlockBytes: number;
}

/** Made by `memory.gpu.arena()`. */
export class GpuArena {
  readonly device: GpuDevice;
  readonly buffer: GpuBuffer;
  readonly byteLength: number;
  readonly #core: ControlPlane;
  readonly #arena: number;
  readonly #onDestroy: () => void;
  #state: "open" | "lost" | "destroyed" = "open";

  private constructor(
    parts: { readonly buffer: GpuBuffer; readonly byteLength: number; readonly device: GpuDevice },
    books: { readonly core: ControlPlane; readonly arena: number },
    onDestroy: () => void,
  ) {
    this.buffer = parts.buffer;
    this.byteLength = parts.byteLength;
    this.device = parts.device;
    this.#core = books.core;
    this.#arena = books.arena;
    this.#onDestroy = onDestroy;
  }

  /** @internal */
  static async create(
    parts: { readonly buffer: GpuBuffer; readonly byteLength: number; readonly device: GpuDevice },
    onDestroy: () => void,
  ): Promise<GpuArena> {
    const books = await openSingleArena({
      totalBytes: Math.max(parts.byteLength, BINDING_BYTES),
      granuleBytes: BINDING_BYTES,
    });
    return new GpuArena(parts, books, onDestroy);
  }

  /**
   * A part of the buffer. Its bytes are anything.
   *
   * @param bytes 1 to 2^32 − 1.
   * @param alignment A power of two up to 65,536. Default: 256, and never less.
   * @returns null when it does not fit.
   * @throws {MisuseError} `bad-size`, `bad-alignment`; `freed` — the arena was destroyed.
   * @throws {TierError} `device-lost` — the arena went with it: make another one.
   * @remarks One call into the core; nothing is asked of the device.
   */
  tryAllocate(bytes: number, alignment = BINDING_BYTES): GpuBlock | null {
    this.#checkOpen();
    checkBytes(bytes, "bytes", TENSOR_BYTES_MAX);
    const wanted = Math.max(BINDING_BYTES, checkAlignment(alignment));
    const slot = this.#core.allocate(this.#arena, bytes, wanted);
    if (slot === 0) return null;
    const generation = this.#core.generationOf(slot);
    return {
      buffer: this.buffer,
      offset: this.#core.offsetOf(slot),
      size: bytes,
      free: () => this.#core.free(slot, generation),
    };
  }

  stats(): GpuArenaStats {
    const { requestedBytes, grantedBytes, liveCount } = this.#core.poolCounters(0);
    const { capacityBytes, largestFreeBlockBytes } = this.#core.arenaCounters(this.#arena);
    return { capacityBytes, requestedBytes, grantedBytes, liveCount, largestFreeBlockBytes };
  }

  /** Gives the whole buffer back to the memory's budget. May be called again. */
  destroy(): void {
    if (this.#state === "open") this.#onDestroy();
    this.#state = "destroyed";
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** The buffer is gone. @internal */
  lose(): void {
    if (this.#state === "open") this.#state = "lost";
  }

  #checkOpen(): void {
    if (this.#state === "lost") {
      throw new TierError("device-lost", "gpu", "the arena was lost with its device");
    }
    if (this.#state === "destroyed") throw new MisuseError("freed", "the arena was destroyed");
  }
}
