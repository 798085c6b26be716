// Brings bytes of buffers to the CPU through a fixed number of buffers that can be mapped. While one is read, the
// device fills the other; what is asked for meanwhile goes together, because each mapping costs a round trip.
import { TierError } from "../errors.js";
import type { GpuBufferPool } from "./gpu-buffer-pool.js";
import { GPU_COPY_BYTES, GPU_MAP_READ, GPU_USAGE, type GpuBuffer } from "./gpu-device.js";

const STAGING_COUNT = 2;
/** Length of a staging buffer: beside the pool's budget there are {@link STAGING_COUNT} of these. */
const STAGING_BYTES = 4 * 2 ** 20;

type Visit = (at: number, part: Uint8Array<ArrayBuffer>) => void;

/** A part of a read, short enough for a staging buffer. */
interface Piece {
  readonly buffer: GpuBuffer;
  /** Where the copy begins and how long it is: whole words. */
  readonly copyOffset: number;
  readonly copyBytes: number;
  /** Gets what was copied. */
  readonly accept: (copied: Uint8Array<ArrayBuffer>) => void;
  readonly settle: (error: unknown) => void;
}

/** Readbacks from buffers of one pool's device. */
export class GpuReadback {
  readonly #pool: GpuBufferPool;
  readonly #idle: GpuBuffer[] = [];
  readonly #all: GpuBuffer[] = [];
  /** In the order in which they were asked for. */
  readonly #queue: Piece[] = [];
  #isStarting = false;

  constructor(pool: GpuBufferPool) {
    this.#pool = pool;
  }

  /** Buffers made so far. */
  get createdCount(): number {
    return this.#all.length;
  }

  /**
   * Reads bytes of a buffer.
   *
   * @param buffer Its length is a multiple of 4.
   * @param visit Gets each part with its offset from `offset`; the part is gone when it returns. Not called
   *   any more once the promise has settled.
   * @throws {TierError} `device-lost`; `io` — the device refused the copy, or had no memory for it.
   */
  async read(buffer: GpuBuffer, offset: number, byteLength: number, visit: Visit): Promise<void> {
    const pieces: Promise<void>[] = [];
    const pieceBytes = STAGING_BYTES - GPU_COPY_BYTES;
    for (let at = 0; at < byteLength; at += pieceBytes) {
      const count = Math.min(pieceBytes, byteLength - at);
      const skipBytes = (offset + at) % GPU_COPY_BYTES;
      const copyBytes = Math.ceil((skipBytes + count) / GPU_COPY_BYTES) * GPU_COPY_BYTES;
      const accept = (copied: Uint8Array<ArrayBuffer>) =>
        visit(at, copied.subarray(skipBytes, skipBytes + count));
      const piece = { buffer, copyOffset: offset + at - skipBytes, copyBytes, accept };
      pieces.push(this.#enqueue(piece));
    }
    for (const outcome of await Promise.allSettled(pieces)) {
      if (outcome.status === "rejected") throw outcome.reason;
    }
  }

  destroy(): void {
    for (const staging of this.#all) staging.destroy();
  }

  #enqueue(piece: Omit<Piece, "settle">): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error: unknown) => (error === null ? resolve() : reject(error));
      this.#queue.push({ ...piece, settle });
      if (this.#isStarting) return;
      // Whoever asks in the same turn is in the same batch.
      this.#isStarting = true;
      queueMicrotask(() => {
        this.#isStarting = false;
        this.#start();
      });
    });
  }

  /** Gives every idle staging buffer as much as it holds. */
  #start(): void {
    while (this.#queue.length > 0) {
      const staging = this.#idle.pop() ?? this.#tryCreate();
      if (staging === null) return;
      const batch: Piece[] = [];
      let batchBytes = 0;
      for (const { copyBytes } of this.#queue) {
        if (batchBytes + copyBytes > STAGING_BYTES) break;
        batchBytes += copyBytes;
        batch.push(this.#queue[batch.length] as Piece);
      }
      this.#queue.splice(0, batch.length);
      const end = (error: unknown) => {
        staging.unmap();
        this.#idle.push(staging);
        for (const { settle } of batch) settle(error);
        this.#start();
      };
      this.#readBatch(staging, batch, batchBytes).then(() => end(null), end);
    }
  }

  async #readBatch(staging: GpuBuffer, batch: readonly Piece[], batchBytes: number): Promise<void> {
    await this.#copy(staging, batch, batchBytes);
    const mapped = staging.getMappedRange(0, batchBytes);
    let at = 0;
    for (const { copyBytes, accept } of batch) {
      accept(new Uint8Array(mapped, at, copyBytes));
      at += copyBytes;
    }
  }

  async #copy(staging: GpuBuffer, batch: readonly Piece[], batchBytes: number): Promise<void> {
    const { device } = this.#pool;
    const copied = this.#pool.scoped(() => {
      const encoder = device.createCommandEncoder();
      let at = 0;
      for (const { buffer, copyOffset, copyBytes } of batch) {
        encoder.copyBufferToBuffer(buffer, copyOffset, staging, at, copyBytes);
        at += copyBytes;
      }
      device.queue.submit([encoder.finish()]);
    });
    const mapped = staging.mapAsync(GPU_MAP_READ, 0, batchBytes);
    const [outcome] = await this.#pool.orLost(Promise.all([copied, mapped]));
    // What lies in the staging buffer is then what was there before.
    if (outcome === "no-space") throw new TierError("io", "gpu", "no memory for a readback");
  }

  #tryCreate(): GpuBuffer | null {
    if (this.#all.length === STAGING_COUNT) return null;
    const usage = GPU_USAGE.mapRead | GPU_USAGE.copyTarget;
    const size = STAGING_BYTES;
    const staging = this.#pool.device.createBuffer({ size, usage, label: "tierheap staging" });
    this.#all.push(staging);
    return staging;
  }
}
