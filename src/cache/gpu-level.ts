// The GPU as the level above RAM: which tensors have a copy in a buffer there, who may use it, and who leaves when
// the budget is full. Where bytes are valid is in the one residency record; this keeps the order of use.
//
// INV-GPU-1  A copy that a record names, and whose version is the record's, holds the record's bytes.
// INV-GPU-2  While a lease for writing is open, its tensor has no block, and no other lease.
// INV-GPU-3  A leased buffer belongs to its lease, also after the record has another copy or is gone.
import type { Clock } from "../clock.js";
import { TierError, throwIfAborted } from "../errors.js";
import type { GpuDevice } from "../gpu/gpu-device.js";
import { checkId, checkIds, checkObject, checkSignal } from "../memory/checks.js";
import type { EventHub } from "../memory/events.js";
import type { Pin, PinAccess } from "../memory/pin.js";
import type { DeviceTier } from "../tier/device-tier.js";
import { checkBytes, type Dtype, describe } from "../types.js";
import { lentBytes, type PrivateBytes, privateCopy } from "../util/private-bytes.js";
import type { Directory } from "./directory.js";
import { GpuArena } from "./gpu-arena.js";
import { GpuBuffers } from "./gpu-buffers.js";
import {
  checkLeaseOptions,
  type GpuAccess,
  GpuCopy,
  type GpuCopyParts,
  GpuLease,
  type GpuLevelStats,
} from "./gpu-lease.js";
import { GpuPrefetcher } from "./gpu-prefetcher.js";
import { GpuRoom } from "./gpu-room.js";
import type { HierarchicalCache } from "./hierarchical-cache.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { TensorRecord } from "./tensor-record.js";
import type { LevelStats } from "./tier-level.js";

export interface GpuLevelOptions {
  /** Open. */
  readonly tier: DeviceTier;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  readonly cache: HierarchicalCache;
  readonly events: EventHub;
  /** @throws {MisuseError} `closed`. */
  readonly checkOpen: () => void;
  /** A block cannot be given to a queue as it lies, because other threads see it. */
  readonly isShared: boolean;
  readonly clock: Clock;
}

/** Bytes given to a queue at once. */
const CHUNK_BYTES = 4 * 2 ** 20;
/** No tensor has this version: a copy of it is stale. */
const NO_VERSION = 0;

/** What `memory.gpu` is. */
export class GpuLevel {
  readonly #tier: DeviceTier;
  readonly #directory: Directory;
  readonly #swapper: MemorySwapper;
  readonly #cache: HierarchicalCache;
  readonly #events: EventHub;
  readonly #checkOpen: () => void;
  readonly #isShared: boolean;
  readonly #room: GpuRoom;
  readonly #uploads = new Map<TensorRecord, Promise<unknown>>();
  readonly #prefetcher: GpuPrefetcher;
  readonly #arenas = new Set<GpuArena>();
  #buffers: GpuBuffers | null = null;
  readonly #counters = {
    hitCount: 0,
    uploadCount: 0,
    readbackCount: 0,
    evictedCount: 0,
    demotedCount: 0,
    lostCount: 0,
  };

  /** @internal */
  constructor(options: GpuLevelOptions) {
    this.#tier = options.tier;
    this.#directory = options.directory;
    this.#swapper = options.swapper;
    this.#cache = options.cache;
    this.#events = options.events;
    this.#checkOpen = options.checkOpen;
    this.#isShared = options.isShared;
    this.#prefetcher = new GpuPrefetcher(options.clock);
    this.#room = new GpuRoom({
      tier: options.tier,
      events: options.events,
      watch: (work) => this.#swapper.transfers.watch(work),
      leave: (copy) => this.#leave(copy),
    });
    this.#tier.onLost = (reason) => this.#lose(reason);
  }

  /** The device of now, or null between a loss and the next use. Changes with every loss. */
  get device(): GpuDevice | null {
    return this.#tier.device;
  }

  /**
   * Brings a tensor's bytes into a buffer of the GPU, from wherever they are, and keeps them there.
   *
   * @param options.access Default: `"read"`. `"write"`: the buffer becomes the only valid copy. Its bytes are
   *   the tensor's until they are written. `"overwrite"`: they may be anything until all are written, so
   *   nothing is uploaded: for results.
   * @returns A lease, or null when no tier knows the id.
   * @throws {OutOfMemoryError} The budget has no room beside what is leased, or the device binds no buffer so long.
   * @throws {TierError} `device-lost` — there is no device, or the tensor was lost with one; `busy` — it is being
   *   written, on the GPU or in RAM; and as `acquire`.
   * @throws {MisuseError} `pinned` — for writing, while others use it; `bad-id`, `bad-option`, `closed`.
   * @remarks Uploads nothing when the copy on the device is valid. A shared tensor gets bytes of its own before it
   *   is written.
   */
  async acquire<D extends Dtype = Dtype>(
    id: string,
    options: { readonly access?: GpuAccess; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<GpuLease<D> | null> {
    const { mode, access, signal } = checkLeaseOptions(options);
    checkId(id);
    this.#checkOpen();
    this.#prefetcher.want(id, this.#isThere(id));
    let arrived: GpuCopy | null = null;
    const keep = (copy: GpuCopy | null) => {
      arrived?.arrive();
      arrived = copy;
    };
    try {
      for (let isHit = true; ; isHit = false) {
        this.#checkOpen();
        throwIfAborted(signal, this.#tier.name);
        const record = this.#directory.get(id);
        const copy = record?.device instanceof GpuCopy ? record.device : null;
        if (access === "write" && this.#directory.named(id)?.shared != null) {
          // A pin for writing gives it bytes of its own.
          const pin = await this.leaseInRam(id, access, signal);
          if (pin === null) return null;
          pin[Symbol.dispose]();
        } else if (copy?.isCurrent || (copy?.isReusable && mode === "overwrite")) {
          copy.checkUnwritten();
          // A block that is being moved cannot be given up.
          if (access === "read" || copy.record.transfer === null) {
            return this.#lend(copy, { id, access, isHit });
          }
          await copy.record.transfer.settled;
        } else if (mode === "overwrite" && record !== undefined && !record.isLost) {
          keep(await this.#reserveFor(record));
        } else {
          const upload = record && this.#uploads.get(record);
          if (upload === undefined) {
            const promoted = await this.#promote(id, signal);
            if (promoted === "unknown") return null;
            keep(promoted);
          } else await upload.catch(() => undefined);
        }
      }
    } finally {
      keep(null);
    }
  }

  /**
   * Brings tensors into buffers of the GPU that will be wanted there, from wherever they are, and leases none of them:
   * the way to hide the time of a transfer behind the work before. Makes room as {@link acquire} does. Failures show
   * when they are acquired.
   *
   * @param ids Those that are wanted first come first. Unknown ones are looked for in the tier.
   * @param options.signal Ends the waiting; what has begun to move arrives all the same.
   * @returns When all have arrived or failed.
   * @throws {MisuseError} `bad-id`, `bad-option`, `closed`.
   * @remarks `stats().prefetch` counts what became of them.
   */
  async prefetch(
    ids: readonly string[],
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    this.#checkOpen();
    checkIds(ids);
    const { signal } = checkObject(options, "prefetch", ["signal"]);
    const given = checkSignal(signal);
    await this.#prefetcher.declare(
      ids,
      (id) => {
        const record = this.#directory.get(id);
        // A content leaves under its own name: it cannot be told whose copy that was.
        const isNamed = record === undefined || record.id === id;
        return isNamed && !this.#isThere(id) && given?.aborted !== true;
      },
      (id) => this.#bring(id, given),
    );
  }

  /**
   * Gives a tensor's buffer back; bytes that are only there are read back into RAM first.
   *
   * @returns Whether it had one.
   * @throws {MisuseError} `pinned` — it is leased; `bad-id`, `closed`.
   * @throws {OutOfMemoryError} No room can be made for it in RAM. @throws {TierError} As `acquire`.
   */
  async demote(id: string): Promise<boolean> {
    this.#checkOpen();
    const copy = this.#directory.get(checkId(id))?.device;
    if (!(copy instanceof GpuCopy)) return false;
    copy.checkUnused();
    if (!(await this.#leave(copy))) {
      throw new TierError("busy", this.#tier.name, "the tensor was used while it was moved");
    }
    return true;
  }

  /**
   * One long buffer, of which the caller gets parts at offsets: for what kernels of its own need.
   *
   * @param options.bytes Of the whole, out of `budgets.gpu`; tensors leave for it.
   * @throws {OutOfMemoryError} The budget has no room beside what is leased, or the device binds no buffer so long.
   * @throws {TierError} `device-lost`. @throws {MisuseError} `bad-size`, `bad-option`, `closed`.
   */
  async arena(options: { readonly bytes: number }): Promise<GpuArena> {
    this.#checkOpen();
    const { bytes } = checkObject(options, "arena", ["bytes"]);
    const byteLength = checkBytes(bytes, "bytes", 2 ** 32);
    const { key, buffer } = await this.#room.hold(byteLength);
    const { device } = this;
    if (device === null) throw this.#room.lostMeanwhile();
    const arena = await GpuArena.create({ buffer, byteLength, device }, () => {
      if (this.#arenas.delete(arena)) this.#room.giveBack(key);
    });
    this.#arenas.add(arena);
    // Lost while the arena's books were opened.
    if (this.#tier.bufferOf(key) !== buffer) arena.lose();
    return arena;
  }

  /**
   * Whole buffers of the device of now, out of `budgets.gpu`, for what a runtime keeps there by itself. The same one
   * until the device is lost.
   *
   * @throws {TierError} `device-lost` — there is no device. @throws {MisuseError} `closed`.
   */
  async buffers(): Promise<GpuBuffers> {
    this.#checkOpen();
    if (this.device === null) await this.#tier.open();
    const { device } = this;
    if (device === null) throw this.#room.lostMeanwhile();
    if (this.#buffers?.isLost !== false) this.#buffers = new GpuBuffers(this.#room, device);
    return this.#buffers;
  }

  stats(): GpuLevelStats {
    const { capacityBytes, physicalBytes } = this.#tier.stats();
    const { createdCount, lossCount } = this.#tier.deviceStats();
    const { heldBytes } = this.#room;
    const { leaseCount, size: copyCount } = this.#room.copies;
    const counts = { leaseCount, copyCount, createdCount, lossCount, capacityBytes, physicalBytes };
    return { ...this.#counters, ...counts, heldBytes, prefetch: this.#prefetcher.counters() };
  }

  /** The row of `memory.stats().tiers`. @internal */
  level(): LevelStats {
    const { hitCount, uploadCount, readbackCount, evictedCount, demotedCount } = this.#counters;
    return {
      ...this.#tier.stats(),
      name: this.#tier.name,
      priority: 0,
      hits: hitCount,
      misses: uploadCount,
      skips: 0,
      loads: readbackCount,
      promotions: uploadCount,
      demotions: demotedCount,
      cleanEvictions: evictedCount,
      latencyMs: null,
      bytesPerSecond: null,
      breaker: "closed",
      failureCount: this.#tier.deviceStats().lossCount,
    };
  }

  /** Gives every buffer back. @internal */
  async close(): Promise<void> {
    for (const arena of this.#arenas) arena.lose();
    this.#buffers?.end(new TierError("closed", this.#tier.name, "the memory is closed"));
    await this.#tier.close();
  }

  /** @internal */
  async readInto(copy: GpuCopy, target: Uint8Array): Promise<void> {
    const reader = await this.#tier.openRead(copy.key);
    const count = (await reader?.read(0, lentBytes(target))) ?? 0;
    await reader?.close();
    if (count !== copy.byteLength) {
      throw new TierError("io", this.#tier.name, "the buffer is gone");
    }
    this.#counters.readbackCount += 1;
  }

  /** The record has no use for the copy any more. @internal */
  drop(copy: GpuCopy): void {
    if (copy.record.device === copy) copy.record.device = null;
    if (copy.leaseCount > 0 || !this.#room.copies.remove(copy)) return;
    if (!copy.isGone) this.#room.delete(copy.key);
    this.#prefetcher.left(copy.record.id);
  }

  // --- Up ------------------------------------------------------------------------------------------

  #lend<D extends Dtype>(
    copy: GpuCopy,
    use: { readonly id: string; readonly access: PinAccess; readonly isHit: boolean },
  ): GpuLease<D> {
    const { record } = copy;
    const { access } = use;
    if (access === "write") {
      copy.checkUnused();
      // Refuses while the block is pinned, before anything changes.
      if (record.isResident) this.#swapper.detach(record);
      copy.isWriting = true;
      record.writePinCount += 1;
      record.version += 1;
      copy.version = record.version;
    }
    copy.leaseCount += 1;
    this.#room.copies.touch(copy);
    if (use.isHit) this.#counters.hitCount += 1;
    const device = this.#tier.device as GpuDevice;
    const onEnd = (ended: GpuCopy) => this.#endLease(ended, access);
    return new GpuLease<D>(copy, { id: use.id, access, device, onEnd });
  }

  #endLease(copy: GpuCopy, access: PinAccess): void {
    const { record } = copy;
    copy.leaseCount -= 1;
    if (access === "write") {
      copy.isWriting = false;
      record.writePinCount -= 1;
      record.version += 1;
      if (!copy.isGone) copy.version = record.version;
    }
    if (record.device !== copy && copy.leaseCount === 0) this.drop(copy);
  }

  /** How RAM is asked, by the memory that this belongs to. @internal */
  leaseInRam: (
    id: string,
    access: PinAccess,
    signal: AbortSignal | undefined,
  ) => Promise<Pin | null> = () => Promise.resolve(null);

  /** The newest bytes are in a buffer. */
  #isThere(id: string): boolean {
    const copy = this.#directory.get(id)?.device;
    return copy instanceof GpuCopy && copy.isCurrent;
  }

  /** @returns Whether it is on the device now. */
  async #bring(id: string, signal: AbortSignal | undefined): Promise<boolean> {
    throwIfAborted(signal, this.#tier.name);
    if (this.#isThere(id)) return true;
    const record = this.#directory.get(id);
    const upload = record && this.#uploads.get(record);
    if (upload !== undefined) await upload;
    else {
      const copy = await this.#promote(id, signal);
      // Nobody waits for it: it may leave.
      if (copy instanceof GpuCopy) copy.arrive();
    }
    return this.#isThere(id);
  }

  /** Uploads a tensor. @returns The copy, which does not leave yet; null when it is to be looked for again. */
  async #promote(id: string, signal: AbortSignal | undefined): Promise<GpuCopy | null | "unknown"> {
    const pin = await this.leaseInRam(id, "read", signal);
    if (pin === null) return "unknown";
    try {
      const record = this.#directory.get(id);
      if (record === undefined || this.#uploads.has(record)) return null;
      if (record.device?.version === record.version) return null;
      if (record.writePinCount > 0) {
        throw new TierError("busy", this.#tier.name, "the tensor is being written in RAM");
      }
      const upload = this.#upload(record, pin.bytes);
      this.#uploads.set(record, upload);
      this.#swapper.transfers.watch(upload.then(noop, noop));
      try {
        return await upload;
      } finally {
        this.#uploads.delete(record);
      }
    } finally {
      pin[Symbol.dispose]();
    }
  }

  /** A copy of anything, in place of the one that the record has. @returns As {@link #promote}. */
  async #reserveFor(record: TensorRecord): Promise<GpuCopy | null> {
    record.device?.drop();
    const { byteLength } = record;
    const { key, buffer } = await this.#room.reserve(byteLength);
    if (record.isFreed || record.device !== null || record.byteLength !== byteLength) {
      this.#room.delete(key);
      return null;
    }
    const onArrival = this.#room.noteArrival();
    return this.#adopt({ key, record, buffer, version: NO_VERSION, onArrival });
  }

  #adopt(parts: GpuCopyParts): GpuCopy {
    const copy = new GpuCopy(this, parts);
    copy.record.device = copy;
    this.#room.copies.touch(copy);
    return copy;
  }

  /** @param bytes Pinned. */
  async #upload(record: TensorRecord, bytes: Uint8Array): Promise<GpuCopy | null> {
    const { version } = record;
    record.device?.drop();
    const key = this.#room.nextKey();
    const { byteLength } = bytes;
    const writer = await this.#room.make(byteLength, async () => {
      const begun = await this.#tier.begin(key, byteLength);
      return begun === "no-space" ? null : begun;
    });
    const onArrival = this.#room.noteArrival();
    let copy: GpuCopy | null = null;
    try {
      let outcome: "written" | "no-space" = "written";
      for (let at = 0; at < byteLength && outcome === "written"; at += CHUNK_BYTES) {
        outcome = await writer.write(this.#privatePart(bytes, at));
      }
      if (outcome === "no-space" || (await writer.commit({ durable: false })) === "no-space") {
        throw this.#room.outOfMemory(
          byteLength,
          "The device itself has no room: lower the budget.",
        );
      }
      const buffer = this.#tier.bufferOf(key);
      if (buffer === null) throw this.#room.lostMeanwhile();
      this.#counters.uploadCount += 1;
      if (record.isFreed || record.version !== version || record.writePinCount > 0) {
        this.#room.delete(key);
        if (record.isFreed) return null;
        const message = "the tensor was written while it was uploaded";
        throw new TierError("busy", this.#tier.name, message);
      }
      copy = this.#adopt({ key, record, buffer, version, onArrival });
      return copy;
    } finally {
      await writer.abort();
      if (copy === null) onArrival();
    }
  }

  /** Queues copy at once what they are given; several refuse shared memory. */
  #privatePart(bytes: Uint8Array, start: number): PrivateBytes {
    const part = bytes.subarray(start, start + CHUNK_BYTES);
    return this.#isShared ? privateCopy(part) : lentBytes(part);
  }

  // --- Down ----------------------------------------------------------------------------------------

  /** Gives a buffer up, after a readback if need be. @returns false when it was used meanwhile. */
  async #leave(copy: GpuCopy): Promise<boolean> {
    const { record } = copy;
    const isOnlyCopy = () => record.isOnlyOnDevice && record.device === copy;
    const wasOnlyCopy = isOnlyCopy();
    if (wasOnlyCopy) {
      const id = record.id as string;
      await this.#cache.promote(id, undefined, () => null, { isLookup: false });
    }
    if (copy.leaseCount > 0 || isOnlyCopy()) return false;
    if (!this.#room.copies.has(copy)) return true;
    if (wasOnlyCopy) this.#counters.demotedCount += 1;
    else this.#counters.evictedCount += 1;
    this.drop(copy);
    return true;
  }

  // --- Loss ----------------------------------------------------------------------------------------

  #lose(reason: string): void {
    let lostCount = 0;
    for (const copy of this.#room.copies) {
      const { record } = copy;
      copy.isGone = true;
      this.#room.delete(copy.key);
      const isLost = record.isOnlyOnDevice && record.device === copy;
      if (record.device === copy) record.device = null;
      this.#prefetcher.left(record.id);
      if (!isLost) continue;
      record.isLost = true;
      record.lossCause = new TierError(
        "device-lost",
        this.#tier.name,
        `the only copy of ${describe(record.id)} was lost with the device`,
      );
      lostCount += 1;
    }
    const keptCount = this.#room.copies.size - lostCount;
    this.#room.copies.clear();
    for (const arena of this.#arenas) arena.lose();
    this.#arenas.clear();
    this.#room.forgetHeld();
    this.#buffers?.end(
      new TierError("device-lost", this.#tier.name, `the device is lost: ${reason}`),
    );
    this.#counters.lostCount += lostCount;
    this.#events.emit({ type: "device-lost", tier: this.#tier.name, reason, lostCount, keptCount });
  }
}

function noop(): void {}
