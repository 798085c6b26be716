// Whole buffers of one device, by size class, inside a budget of bytes. Cuts nothing: runtimes bind buffers
// from their beginning.
//
// Every byte is charged before a buffer is asked for, because devices over-commit in silence: what
// the budget does not refuse may end the whole process of the GPU.
import { OutOfMemoryError, TierError } from "../errors.js";
import { type ByteSize, checkBytes, parseByteSize } from "../types.js";
import { GPU_USAGE, type GpuBuffer, type GpuDevice } from "./gpu-device.js";

export interface GpuBufferPoolOptions {
  /** Shared with the runtime. Not destroyed by the pool. */
  readonly device: GpuDevice;
  /** Bytes of all buffers together, free ones included; or `"512MiB"`. */
  readonly budget: ByteSize;
}

/** What a pool holds, and what it did. */
export interface GpuBufferPoolStats {
  readonly budgetBytes: number;
  /** In buffers that are lent out. */
  readonly usedBytes: number;
  /** In buffers that wait for the next request of their class. */
  readonly freeBytes: number;
  readonly peakBytes: number;
  readonly bufferCount: number;
  /** Buffers asked of the device so far. */
  readonly createdCount: number;
  /** Requests that a free buffer served. */
  readonly reusedCount: number;
  readonly destroyedCount: number;
  readonly isLost: boolean;
}

/** Work of one turn, under the same scopes. @internal */
interface SharedWork {
  readonly parts: (() => void)[];
  readonly given: Promise<void>;
  /** As of `scoped`. */
  readonly answered: Promise<"done" | "no-space">;
}

/** Classes per doubling: a buffer is at most an eighth longer than what was asked for. */
const CLASSES_PER_DOUBLING = 8;
const CLASS_BYTES_MIN = 256;
const USAGE = GPU_USAGE.storage | GPU_USAGE.copySource | GPU_USAGE.copyTarget;

/** The size class of a request: bytes of the buffer that serves it, a multiple of 32. */
export function gpuClassBytes(byteLength: number): number {
  if (byteLength <= CLASS_BYTES_MIN) return CLASS_BYTES_MIN;
  const doubling = 2 ** Math.floor(Math.log2(byteLength - 1));
  const step = doubling / CLASSES_PER_DOUBLING;
  return Math.ceil(byteLength / step) * step;
}

/** Buffers of one device. */
export class GpuBufferPool {
  readonly device: GpuDevice;
  readonly budgetBytes: number;
  /** In the order in which they became free. */
  readonly #free = new Set<GpuBuffer>();
  readonly #used = new Set<GpuBuffer>();
  #freeBytes = 0;
  #usedBytes = 0;
  #peakBytes = 0;
  #createdCount = 0;
  #reusedCount = 0;
  #destroyedCount = 0;
  #lostMessage: string | null = null;
  /** Whoever waits for the device. */
  readonly #waiting = new Set<(error: TierError) => void>();
  /** What goes to the device at the end of this turn. */
  #shared: SharedWork | null = null;
  /** Settles when the last work that was asked for has. */
  #turn: Promise<unknown> = Promise.resolve();

  /** @throws {MisuseError} `bad-size`. */
  constructor({ device, budget }: GpuBufferPoolOptions) {
    this.device = device;
    this.budgetBytes = parseByteSize(budget, "budget");
    device.lost
      .then(({ message }) => {
        this.#lostMessage = message;
        this.#forgetAll();
        for (const refuse of [...this.#waiting]) refuse(this.#lostError());
      })
      .catch(() => undefined);
  }

  get isLost(): boolean {
    return this.#lostMessage !== null;
  }

  /** @throws {TierError} `device-lost`. */
  checkAlive(): void {
    if (this.isLost) throw this.#lostError();
  }

  /**
   * A buffer of at least so many bytes, for storage and copies. Its content is anything.
   *
   * @throws {OutOfMemoryError} The budget, the device's longest buffer, or the device itself has no room;
   *   free buffers were destroyed before that was said.
   * @throws {TierError} `device-lost`.
   * @remarks Makes none while a free one of the same size class is there.
   */
  async acquire(byteLength: number): Promise<GpuBuffer> {
    this.checkAlive();
    const size = gpuClassBytes(checkBytes(byteLength, "byteLength"));
    for (const buffer of [...this.#free].reverse()) {
      if (buffer.size !== size) continue;
      this.#free.delete(buffer);
      this.#freeBytes -= size;
      this.#reusedCount += 1;
      this.#lend(buffer);
      return buffer;
    }
    const { maxBufferSize, maxStorageBufferBindingSize } = this.device.limits;
    const longestBytes = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (size > longestBytes) {
      throw this.#outOfMemory(size, [], `This device binds no more than ${longestBytes} bytes.`);
    }
    const remediesTried = this.#makeRoom(size) ? ["destroy free buffers"] : [];
    if (this.#usedBytes + this.#freeBytes + size > this.budgetBytes) {
      throw this.#outOfMemory(size, remediesTried, "Suspend a cache, or give the pool more.");
    }
    let buffer = await this.#tryCreate(size);
    if (buffer === null && this.#freeBytes > 0) {
      this.trim();
      remediesTried.push("destroy all free buffers");
      buffer = await this.#tryCreate(size);
    }
    if (buffer !== null) return buffer;
    throw this.#outOfMemory(
      size,
      remediesTried,
      "The device itself has no room: lower the budget.",
    );
  }

  /** Takes a buffer back; the next request of its class gets it. Does nothing after the loss of the device. */
  release(buffer: GpuBuffer): void {
    if (!this.#used.delete(buffer)) return;
    this.#usedBytes -= buffer.size;
    this.#free.add(buffer);
    this.#freeBytes += buffer.size;
  }

  /** Destroys free buffers, those that are free the longest first. @returns Bytes given back. */
  trim(keepBytes = 0): number {
    const before = this.#freeBytes;
    for (const buffer of this.#free) {
      if (this.#freeBytes <= keepBytes) break;
      this.#destroy(buffer);
    }
    // Memory of destroyed buffers comes back with the work of a later submission.
    if (before > this.#freeBytes) this.device.queue.submit([]);
    return before - this.#freeBytes;
  }

  /**
   * Does work on the device under the scopes of its errors, one after the other: scopes are a stack, and
   * runs that overlap would get each other's errors.
   *
   * @throws {OutOfMemoryError} The device ran out of memory for it.
   * @throws {TierError} `device-lost`; `io` — the device refused a part of it.
   * @internal
   */
  guard<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(() => this.#guarded(work));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /**
   * Does work that waits for nothing under scopes of its errors, so that others may do so meanwhile.
   *
   * @returns `"no-space"` when the device ran out of memory for it; once the device has answered.
   * @throws {TierError} `device-lost`; `io` — the device refused a part of it.
   * @internal
   */
  async scoped(work: () => void): Promise<"done" | "no-space"> {
    this.checkAlive();
    const { device } = this;
    device.pushErrorScope("validation");
    device.pushErrorScope("out-of-memory");
    let answers: Promise<({ readonly message: string } | null)[]> = Promise.resolve([]);
    try {
      work();
    } finally {
      answers = Promise.all([device.popErrorScope(), device.popErrorScope()]);
      // Nobody need be waiting, where the work has thrown.
      answers.catch(() => undefined);
    }
    const [shortage, refusal] = await this.orLost(answers);
    if (shortage != null) return "no-space";
    if (refusal != null) throw new TierError("io", "gpu", refusal.message);
    return "done";
  }

  /**
   * As {@link scoped}, but under the same scopes as what others ask for in this turn: each pair of them costs messages
   * and an answer. A shortage or a refusal is then that of all of them.
   *
   * @returns Settles when the work was given to the device, and when the device has answered.
   * @internal
   */
  together(work: () => void): Omit<SharedWork, "parts"> {
    this.#shared ??= this.#openShared();
    this.#shared.parts.push(work);
    return this.#shared;
  }

  /** What the device answers. @throws {TierError} `device-lost` — it rejects, or is lost first. @internal */
  async orLost<T>(answer: Promise<T>): Promise<T> {
    try {
      const value = await this.#unlessLost(answer);
      this.checkAlive();
      return value;
    } catch (error) {
      if (error instanceof TierError) throw error;
      throw new TierError("device-lost", "gpu", "the device answers no more", { cause: error });
    }
  }

  stats(): GpuBufferPoolStats {
    return {
      budgetBytes: this.budgetBytes,
      usedBytes: this.#usedBytes,
      freeBytes: this.#freeBytes,
      peakBytes: this.#peakBytes,
      bufferCount: this.#used.size + this.#free.size,
      createdCount: this.#createdCount,
      reusedCount: this.#reusedCount,
      destroyedCount: this.#destroyedCount,
      isLost: this.isLost,
    };
  }

  // --- Inside --------------------------------------------------------------------------------------

  #openShared(): SharedWork {
    const parts: (() => void)[] = [];
    let answer: Promise<"done" | "no-space"> = Promise.resolve("done");
    const given = Promise.resolve().then(() => {
      this.#shared = null;
      answer = this.scoped(() => {
        for (const part of parts) part();
      });
      answer.catch(() => undefined);
    });
    return { parts, given, answered: given.then(() => answer) };
  }

  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    this.checkAlive();
    const { device } = this;
    device.pushErrorScope("validation");
    device.pushErrorScope("out-of-memory");
    let outcome: { value: T } | { error: unknown };
    try {
      outcome = { value: await this.#unlessLost(work()) };
    } catch (error) {
      outcome = { error };
    }
    this.checkAlive();
    const shortage = device.popErrorScope();
    const refusal = device.popErrorScope();
    const [short, refused] = await this.orLost(Promise.all([shortage, refusal]));
    if (short !== null) throw this.#outOfMemory(0, [], short.message);
    if (refused !== null) throw new TierError("io", "gpu", refused.message);
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  /** Settles with the work, or rejects once the device is lost. Leaves nothing behind. */
  #unlessLost<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.isLost) reject(this.#lostError());
      this.#waiting.add(reject);
      const end = () => this.#waiting.delete(reject);
      work.finally(end).then(resolve, reject);
    });
  }

  #lend(buffer: GpuBuffer): void {
    this.#used.add(buffer);
    this.#usedBytes += buffer.size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes + this.#freeBytes);
  }

  /** Destroys free buffers until `size` more bytes fit. @returns Whether it destroyed any. */
  #makeRoom(size: number): boolean {
    const excessBytes = this.#usedBytes + this.#freeBytes + size - this.budgetBytes;
    return excessBytes > 0 && this.trim(Math.max(this.#freeBytes - excessBytes, 0)) > 0;
  }

  /** @returns null when the device has no memory. */
  async #tryCreate(size: number): Promise<GpuBuffer | null> {
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    const buffer = device.createBuffer({ size, usage: USAGE, label: "tierheap" });
    const answer = device.popErrorScope();
    this.#createdCount += 1;
    // Charged before anybody waits.
    this.#lend(buffer);
    if ((await this.orLost(answer)) === null) return buffer;
    this.release(buffer);
    this.#destroy(buffer);
    return null;
  }

  #destroy(buffer: GpuBuffer): void {
    this.#free.delete(buffer);
    this.#freeBytes -= buffer.size;
    this.#destroyedCount += 1;
    buffer.destroy();
  }

  /** Nothing of a device that is lost can be used, or need be freed. */
  #forgetAll(): void {
    this.#free.clear();
    this.#used.clear();
    this.#freeBytes = 0;
    this.#usedBytes = 0;
  }

  #lostError(): TierError {
    return new TierError("device-lost", "gpu", `the device is lost: ${this.#lostMessage}`);
  }

  #outOfMemory(
    requestedBytes: number,
    remediesTried: readonly string[],
    advice: string,
  ): OutOfMemoryError {
    const largestFreeBlockBytes = Math.max(0, ...[...this.#free].map(({ size }) => size));
    return new OutOfMemoryError({
      requestedBytes,
      freeBytes: this.#freeBytes,
      largestFreeBlockBytes,
      pinnedBytes: this.#usedBytes,
      budgetBytes: this.budgetBytes,
      remediesTried,
      advice,
    });
  }
}
