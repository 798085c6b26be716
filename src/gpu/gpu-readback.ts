// Brings bytes of buffers to the CPU, chunk by chunk, through a fixed number of buffers that can be mapped. One
// chunk is copied on the device while another one is read.
import { TierError } from "../errors.js";
import type { GpuBufferPool } from "./gpu-buffer-pool.js";
import { GPU_COPY_BYTES, GPU_MAP_READ, GPU_USAGE, type GpuBuffer } from "./gpu-device.js";

const STAGING_COUNT = 2;
/** Length of a staging buffer: all there is beside the pool's budget is {@link STAGING_COUNT} of these. */
export const STAGING_BYTES = 4 * 2 ** 20;

/** Readbacks from buffers of one pool's device. */
export class GpuReadback {
  readonly #pool: GpuBufferPool;
  readonly #idle: GpuBuffer[] = [];
  readonly #all: GpuBuffer[] = [];
  readonly #waiting: ((staging: GpuBuffer) => void)[] = [];

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
   * @param visit Gets each part with its offset from `offset`, in any order; the part is gone when it
   *   returns. Not called any more once the promise has settled.
   * @throws {TierError} `device-lost`; `io` — the device refused the copy, or had no memory for it.
   */
  async read(
    buffer: GpuBuffer,
    offset: number,
    byteLength: number,
    visit: (at: number, part: Uint8Array<ArrayBuffer>) => void,
  ): Promise<void> {
    let next = 0;
    let hasFailed = false;
    const readChunks = async () => {
      while (next < byteLength && !hasFailed) {
        const at = next;
        const count = Math.min(STAGING_BYTES - GPU_COPY_BYTES, byteLength - at);
        next += count;
        const staging = await this.#take();
        try {
          await this.#readChunk(buffer, staging, offset + at, count, (part) => visit(at, part));
        } catch (error) {
          hasFailed = true;
          throw error;
        } finally {
          this.#give(staging);
        }
      }
    };
    const runs = Array.from({ length: STAGING_COUNT }, readChunks);
    for (const run of await Promise.allSettled(runs)) {
      if (run.status === "rejected") throw run.reason;
    }
  }

  destroy(): void {
    for (const staging of this.#all) staging.destroy();
  }

  async #readChunk(
    buffer: GpuBuffer,
    staging: GpuBuffer,
    offset: number,
    byteLength: number,
    visit: (part: Uint8Array<ArrayBuffer>) => void,
  ): Promise<void> {
    const { device } = this.#pool;
    const skipBytes = offset % GPU_COPY_BYTES;
    const copyBytes = Math.ceil((skipBytes + byteLength) / GPU_COPY_BYTES) * GPU_COPY_BYTES;
    const copied = this.#pool.scoped(() => {
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, offset - skipBytes, staging, 0, copyBytes);
      device.queue.submit([encoder.finish()]);
    });
    try {
      const mapped = staging.mapAsync(GPU_MAP_READ, 0, copyBytes);
      const [copy] = await this.#pool.orLost(Promise.all([copied, mapped]));
      // What lies in the staging buffer is then what was there before.
      if (copy === "no-space") throw new TierError("io", "gpu", "no memory for a readback");
      visit(new Uint8Array(staging.getMappedRange(0, copyBytes), skipBytes, byteLength));
    } finally {
      staging.unmap();
    }
  }

  async #take(): Promise<GpuBuffer> {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    if (this.#all.length < STAGING_COUNT) return this.#create();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #give(staging: GpuBuffer): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#idle.push(staging);
    else next(staging);
  }

  #create(): GpuBuffer {
    const usage = GPU_USAGE.mapRead | GPU_USAGE.copyTarget;
    const staging = this.#pool.device.createBuffer({
      ...{ size: STAGING_BYTES, usage, label: "tierheap staging" },
    });
    this.#all.push(staging);
    return staging;
  }
}
