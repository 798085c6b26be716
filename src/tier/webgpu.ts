// Objects in buffers of a WebGPU device. The device is the caller's, so that a runtime and the caller's own
// kernels can share it; nothing of the platform is touched here but through it.
//
// Source: W3C, WebGPU — buffers, error scopes, device loss.
import { MisuseError, OutOfMemoryError, TierError } from "../errors.js";
import { GpuBufferPool, gpuClassBytes } from "../gpu/gpu-buffer-pool.js";
import {
  GPU_COPY_BYTES,
  type GpuAdapter,
  type GpuBuffer,
  type GpuDevice,
  requestGpuDevice,
} from "../gpu/gpu-device.js";
import { GpuReadback } from "../gpu/gpu-readback.js";
import type { PrivateBytes } from "../util/private-bytes.js";
import type { DeviceTier, DeviceTierFactory } from "./device-tier.js";
import { TierMeter } from "./meter.js";
import type { TierKey, TierReader, TierStats, TierWriter } from "./tier.js";

/** Where the device comes from: one of the three. */
export interface WebgpuTierOptions {
  /** One that is open. After its loss there is no other. */
  readonly device?: object | undefined;
  /**
   * Opens a device, at the start and after each loss: ask for a new adapter each time, since an adapter gives
   * one device. It may reject; the next use then asks again.
   */
  readonly create?: (() => Promise<object>) | undefined;
  /**
   * An adapter of the caller's choice, or what asks for one. The device is made here, with the limits and features that
   * runtimes and long buffers need, as by `requestGpuDevice`, and destroyed when the memory closes. An adapter gives
   * one device; who gives a function is asked for another adapter after each loss. null: there is none now.
   */
  readonly adapter?: GpuAdapter | (() => Promise<GpuAdapter | null>) | undefined;
  /** In errors and statistics. Default: `"gpu"`. */
  readonly name?: string | undefined;
}

/**
 * The GPU as the hottest level of a memory: give it as `gpu` to `createTensorMemory`, with `budgets.gpu`.
 *
 * @throws {MisuseError} `bad-option`.
 * @remarks Devices that the caller has opened are not destroyed when the memory closes; their buffers are. Two buffers of 4 MiB that readbacks pass
 *   through come on top of the budget.
 */
export function webgpuTier(options: WebgpuTierOptions): DeviceTierFactory {
  const { device, create, adapter, name = "gpu" } = options;
  if ([device, create, adapter].filter((each) => each !== undefined).length !== 1) {
    throw new MisuseError("bad-option", "give one of device, create and adapter");
  }
  const lost = (reason: string) => new TierError("device-lost", name, reason);
  const openAgain = async (): Promise<GpuDevice> => {
    if (typeof create === "function") return (await create()) as GpuDevice;
    const found = await (adapter as () => Promise<GpuAdapter | null>)();
    if (found === null) throw lost("there is no adapter");
    return requestGpuDevice(found);
  };
  const openFirst = async () =>
    device === undefined ? requestGpuDevice(adapter as GpuAdapter) : (device as GpuDevice);
  const isEndless = create !== undefined || typeof adapter === "function";
  return ({ capacityBytes }) => {
    let isUsed = false;
    const open = async () => {
      if (isEndless) return openAgain();
      if (isUsed) throw lost("the device is lost, and was the only one");
      isUsed = true;
      return openFirst();
    };
    return new WebgpuTier({ name, capacityBytes, open, isOwner: adapter !== undefined });
  };
}

/** Bytes on their way to the device before its answer is waited for. */
const PENDING_BYTES_MAX = 16 * 2 ** 20;

interface StoredBuffer {
  readonly buffer: GpuBuffer;
  readonly byteLength: number;
}

/** All that a device has, and what goes with it when it is lost. */
interface Generation {
  readonly pool: GpuBufferPool;
  readonly readback: GpuReadback;
  readonly objects: Map<TierKey, StoredBuffer>;
}

class WebgpuTier implements DeviceTier {
  readonly name: string;
  readonly capabilities = {
    isPersistent: false,
    hasDurableCommit: false,
    // Devices that are short of memory have been seen to answer that all is well.
    needsReadBack: true,
    readsInPlace: true,
  };
  onLost: ((reason: string) => void) | null = null;
  readonly #capacityBytes: number;
  readonly #openDevice: () => Promise<GpuDevice>;
  readonly #isOwner: boolean;
  readonly #meter: TierMeter;
  /** Keys of objects that a device was lost with. */
  readonly #lostKeys = new Set<TierKey>();
  #current: Generation | null = null;
  #opening: Promise<Generation> | null = null;
  #isOpen = false;
  #lossCount = 0;
  /** Of earlier devices. */
  readonly #past = { createdCount: 0, reusedCount: 0 };

  constructor(parts: {
    readonly name: string;
    readonly capacityBytes: number;
    readonly open: () => Promise<GpuDevice>;
    /** Its devices end with it. */
    readonly isOwner: boolean;
  }) {
    this.name = parts.name;
    this.#capacityBytes = parts.capacityBytes;
    this.#openDevice = parts.open;
    this.#isOwner = parts.isOwner;
    this.#meter = new TierMeter(parts.capacityBytes);
  }

  get device(): GpuDevice | null {
    return this.#alive?.pool.device ?? null;
  }

  get objectBytesMax(): number {
    const limits = this.device?.limits;
    if (limits === undefined) return 0;
    return Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize, this.#capacityBytes);
  }

  async open(): Promise<void> {
    this.#isOpen = true;
    await this.#generation();
  }

  grantedBytes(byteLength: number): number {
    return gpuClassBytes(byteLength);
  }

  bufferOf(key: TierKey): GpuBuffer | null {
    return this.#alive?.objects.get(key)?.buffer ?? null;
  }

  async reserve(key: TierKey, byteLength: number): Promise<"stored" | "no-space"> {
    const generation = await this.#generation();
    const buffer = await this.#tryAcquire(generation, byteLength);
    if (buffer === null) return "no-space";
    this.#publish(generation, key, { buffer, byteLength });
    return "stored";
  }

  async begin(key: TierKey, byteLength: number): Promise<TierWriter | "no-space"> {
    const generation = await this.#generation();
    const buffer = await this.#tryAcquire(generation, byteLength);
    if (buffer === null) return "no-space";
    const { pool } = generation;
    const { queue } = pool.device;
    const answers: Promise<"done" | "no-space">[] = [];
    const head = new Uint8Array(GPU_COPY_BYTES);
    let headBytes = 0;
    let writtenBytes = 0;
    let pendingBytes = 0;
    let isEnded = false;
    let given: Promise<void> = Promise.resolve();
    const upload = (offset: number, bytes: Uint8Array<ArrayBuffer>) => {
      pendingBytes += bytes.byteLength;
      const work = pool.together(() => {
        // After an abort the buffer is somebody else's.
        if (!isEnded) queue.writeBuffer(buffer, offset, bytes);
      });
      // Whoever writes or commits next is told.
      work.answered.catch(() => undefined);
      answers.push(work.answered);
      given = work.given;
    };
    const settle = async () => {
      pendingBytes = 0;
      const outcomes = await Promise.all(answers.splice(0));
      return outcomes.includes("no-space") ? "no-space" : "written";
    };
    const check = () => {
      this.#checkOpen();
      if (isEnded) throw new TierError("io", this.name, "the writer has ended");
      pool.checkAlive();
    };
    const end = () => {
      if (isEnded) return false;
      isEnded = true;
      return true;
    };
    return {
      write: async (source: PrivateBytes) => {
        check();
        if (writtenBytes + source.byteLength > byteLength) {
          throw new TierError("io", this.name, "the object is longer than announced");
        }
        let start = 0;
        if (headBytes > 0) {
          start = Math.min(GPU_COPY_BYTES - headBytes, source.byteLength);
          head.set(source.subarray(0, start), headBytes);
          headBytes += start;
          if (headBytes === GPU_COPY_BYTES) {
            upload(writtenBytes + start - GPU_COPY_BYTES, head.slice());
            headBytes = 0;
          }
        }
        // Queues take whole words; what is left over waits for the next call.
        const wholeBytes =
          Math.floor((source.byteLength - start) / GPU_COPY_BYTES) * GPU_COPY_BYTES;
        if (wholeBytes > 0) {
          upload(writtenBytes + start, source.subarray(start, start + wholeBytes));
        }
        const rest = source.subarray(start + wholeBytes);
        head.set(rest, headBytes);
        headBytes += rest.byteLength;
        writtenBytes += source.byteLength;
        this.#meter.bytesWritten += source.byteLength;
        // The source is the caller's again once the queue has copied it.
        await given;
        return pendingBytes < PENDING_BYTES_MAX ? "written" : settle();
      },
      commit: async () => {
        check();
        if (writtenBytes !== byteLength) {
          throw new TierError("io", this.name, "the object is incomplete");
        }
        if (headBytes > 0) upload(byteLength - headBytes, head.fill(0, headBytes));
        const outcome = await settle();
        check();
        if (outcome === "no-space") {
          this.#meter.noSpaceCount += 1;
          if (end()) pool.release(buffer);
          return "no-space";
        }
        if (end()) this.#publish(generation, key, { buffer, byteLength });
        return "stored";
      },
      abort: async () => {
        if (end()) pool.release(buffer);
      },
    };
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    this.#checkOpen();
    this.#meter.openReadCount += 1;
    if (this.#lostKeys.has(key)) {
      throw new TierError("device-lost", this.name, "the object was lost with its device");
    }
    const generation = this.#alive;
    const stored = generation?.objects.get(key);
    if (generation === null || stored === undefined) return null;
    const { buffer, byteLength } = stored;
    return {
      byteLength,
      read: async (offset, ...targets) => {
        this.#checkOpen();
        generation.pool.checkAlive();
        let start = offset;
        for (const target of targets) {
          const count = Math.max(0, Math.min(target.byteLength, byteLength - start));
          await generation.readback.read(buffer, start, count, (at, part) => target.set(part, at));
          start += count;
        }
        this.#meter.bytesRead += start - offset;
        return start - offset;
      },
      close: async () => {},
    };
  }

  async delete(key: TierKey): Promise<boolean> {
    this.#checkOpen();
    this.#meter.deleteCount += 1;
    return this.#forget(key);
  }

  async quarantine(key: TierKey): Promise<void> {
    this.#checkOpen();
    if (this.#forget(key)) this.#meter.quarantinedCount += 1;
  }

  async *list(): AsyncIterable<TierKey> {
    this.#checkOpen();
    yield* this.#meter.keys();
  }

  stats(): TierStats {
    const { usedBytes = 0, freeBytes = 0 } = this.#alive?.pool.stats() ?? {};
    return { ...this.#meter.stats(), physicalBytes: usedBytes + freeBytes };
  }

  async guard<T>(work: () => Promise<T>): Promise<T> {
    this.#checkOpen();
    const generation = this.#alive;
    if (generation !== null) return generation.pool.guard(work);
    throw new TierError("device-lost", this.name, "the device is lost");
  }

  deviceStats() {
    const own = this.#ownCounts();
    return {
      createdCount: this.#past.createdCount + own.createdCount,
      reusedCount: this.#past.reusedCount + own.reusedCount,
      lossCount: this.#lossCount,
    };
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const generation = this.#alive;
    if (generation === null) return;
    for (const { buffer } of generation.objects.values()) generation.pool.release(buffer);
    generation.pool.trim();
    generation.readback.destroy();
    if (this.#isOwner) generation.pool.device.destroy();
  }

  // --- Inside --------------------------------------------------------------------------------------

  get #alive(): Generation | null {
    return this.#current?.pool.isLost === false ? this.#current : null;
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tier is closed");
  }

  #ownCounts(): { readonly createdCount: number; readonly reusedCount: number } {
    const { pool, readback } = this.#current ?? {};
    const { createdCount = 0, reusedCount = 0 } = pool?.stats() ?? {};
    return { createdCount: createdCount + (readback?.createdCount ?? 0), reusedCount };
  }

  /** What there is on the device, which is opened if there is none. */
  async #generation(): Promise<Generation> {
    this.#checkOpen();
    if (this.#alive !== null) return this.#alive;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    const generation = await this.#opening;
    this.#checkOpen();
    return generation;
  }

  async #open(): Promise<Generation> {
    let device: GpuDevice;
    try {
      device = await this.#openDevice();
    } catch (error) {
      if (error instanceof TierError) throw error;
      throw new TierError("device-lost", this.name, "no device can be had", { cause: error });
    }
    if (device == null) throw new TierError("device-lost", this.name, "no device can be had");
    const pool = new GpuBufferPool({ device, budget: this.#capacityBytes });
    const readback = new GpuReadback(pool);
    const generation: Generation = { pool, readback, objects: new Map() };
    if (this.#current !== null) {
      const { createdCount, reusedCount } = this.#ownCounts();
      this.#past.createdCount += createdCount;
      this.#past.reusedCount += reusedCount;
    }
    this.#current = generation;
    device.lost.then(({ message }) => this.#lose(generation, message)).catch(() => undefined);
    return generation;
  }

  #lose({ objects }: Generation, reason: string): void {
    for (const key of objects.keys()) {
      this.#lostKeys.add(key);
      this.#meter.forget(key);
    }
    objects.clear();
    this.#lossCount += 1;
    if (this.#isOpen) this.onLost?.(reason);
  }

  /** @returns null when there is no room. */
  async #tryAcquire({ pool }: Generation, byteLength: number): Promise<GpuBuffer | null> {
    try {
      const buffer = await pool.acquire(byteLength);
      if (this.#isOpen) return buffer;
      pool.release(buffer);
      pool.trim();
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      this.#meter.noSpaceCount += 1;
      return null;
    }
    throw new TierError("closed", this.name, "the tier is closed");
  }

  #publish({ pool, objects }: Generation, key: TierKey, stored: StoredBuffer): void {
    pool.checkAlive();
    const old = objects.get(key);
    if (old !== undefined) pool.release(old.buffer);
    objects.set(key, stored);
    this.#lostKeys.delete(key);
    this.#meter.put(key, stored.byteLength);
    this.#meter.commitCount += 1;
  }

  #forget(key: TierKey): boolean {
    const wasLost = this.#lostKeys.delete(key);
    const generation = this.#alive;
    const stored = generation?.objects.get(key);
    if (generation === null || stored === undefined) return wasLost;
    generation.objects.delete(key);
    generation.pool.release(stored.buffer);
    this.#meter.forget(key);
    return true;
  }
}
