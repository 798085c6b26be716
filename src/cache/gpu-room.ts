// Room on the GPU, out of one budget: who leaves when it is full, and whole buffers for those that are no tensors. Says
// nothing about where bytes are valid; that is in the residency record.
import { OutOfMemoryError, TierError } from "../errors.js";
import type { GpuBuffer } from "../gpu/gpu-device.js";
import type { EventHub } from "../memory/events.js";
import type { DeviceTier } from "../tier/device-tier.js";
import type { TierKey } from "../tier/tier.js";
import type { GpuCopy } from "./gpu-lease.js";
import { GpuOrder } from "./gpu-order.js";
import { Transfers } from "./transfers.js";

/** @internal */
export interface GpuRoomOptions {
  readonly tier: DeviceTier;
  readonly events: EventHub;
  /** Keeps a close waiting for deletions. */
  readonly watch: (work: Promise<void>) => void;
  /** Makes a tensor leave. @returns false when it was used meanwhile. */
  readonly leave: (copy: GpuCopy) => Promise<boolean>;
}

/** A buffer that no tensor has. @internal */
export interface HeldBuffer {
  readonly key: TierKey;
  readonly buffer: GpuBuffer;
}

const KEY_DIGITS = 64;

/** @internal */
export class GpuRoom {
  readonly tier: DeviceTier;
  readonly copies = new GpuOrder();
  readonly #events: EventHub;
  readonly #watch: (work: Promise<void>) => void;
  readonly #leave: (copy: GpuCopy) => Promise<boolean>;
  /** What has room on the device, and is not lent yet. */
  readonly #arrivals = new Transfers();
  readonly #held = new Map<TierKey, number>();
  #keyCount = 0;

  constructor(options: GpuRoomOptions) {
    this.tier = options.tier;
    this.#events = options.events;
    this.#watch = options.watch;
    this.#leave = options.leave;
  }

  /** Bytes in buffers of those that are no tensors. */
  get heldBytes(): number {
    let bytes = 0;
    for (const each of this.#held.values()) bytes += each;
    return bytes;
  }

  /** Notes that something has come that stays until it is lent. @returns Ends that. */
  noteArrival(): () => void {
    return this.#arrivals.noteProgress();
  }

  nextKey(): TierKey {
    this.#keyCount += 1;
    return this.#keyCount.toString(16).padStart(KEY_DIGITS, "0");
  }

  /**
   * Tries until it succeeds; one tensor after the other leaves for it.
   *
   * @throws {OutOfMemoryError} All are leased, or what is asked for is too long. @throws {TierError} `device-lost`.
   */
  async make<T>(byteLength: number, tryPlace: () => Promise<T | null>): Promise<T> {
    // Ends: whoever could not leave is not asked again before something else has arrived.
    const refused = new Set<GpuCopy>();
    for (;;) {
      const placed = await tryPlace();
      if (placed !== null) return placed;
      const { objectBytesMax } = this.tier;
      if (byteLength > objectBytesMax) {
        const advice = `This device and budget have no buffer longer than ${objectBytesMax} bytes.`;
        throw this.outOfMemory(byteLength, advice);
      }
      const victim = this.copies.choose(this.tier.grantedBytes(byteLength), refused);
      if (victim === null) {
        const { progressing } = this.#arrivals;
        if (progressing === null) {
          throw this.outOfMemory(byteLength, "Dispose leases, or raise budgets.gpu.");
        }
        await progressing;
        refused.clear();
        continue;
      }
      const hasLeft = await this.#leave(victim).catch((error: unknown) => {
        // RAM has no room for it: another one may need none.
        if (error instanceof OutOfMemoryError) return false;
        throw error;
      });
      if (!hasLeft) refused.add(victim);
    }
  }

  /** A buffer whose bytes are anything; whose it is, the caller knows. @throws As {@link make}. */
  async reserve(byteLength: number): Promise<HeldBuffer> {
    const key = this.nextKey();
    await this.make(byteLength, async () => {
      const outcome = await this.tier.reserve(key, byteLength);
      return outcome === "no-space" ? null : outcome;
    });
    const buffer = this.tier.bufferOf(key);
    if (buffer === null) throw this.lostMeanwhile();
    return { key, buffer };
  }

  /** As {@link reserve}, for those that are no tensors: it stays until {@link giveBack}. */
  async hold(byteLength: number): Promise<HeldBuffer> {
    const held = await this.reserve(byteLength);
    if (this.tier.bufferOf(held.key) === null) throw this.lostMeanwhile();
    this.#held.set(held.key, held.buffer.size);
    return held;
  }

  giveBack(key: TierKey): void {
    if (this.#held.delete(key)) this.delete(key);
  }

  /** Nothing of it is there any more. */
  forgetHeld(): void {
    for (const key of this.#held.keys()) this.delete(key);
    this.#held.clear();
  }

  delete(key: TierKey): void {
    const work = this.tier.delete(key).then(noop, (error: Error) => {
      this.#events.emit({ type: "tier-error", tier: this.tier.name, error });
    });
    this.#watch(work);
  }

  lostMeanwhile(): TierError {
    return new TierError("device-lost", this.tier.name, "the device was lost meanwhile");
  }

  outOfMemory(requestedBytes: number, advice: string): OutOfMemoryError {
    const { capacityBytes, physicalBytes } = this.tier.stats();
    return new OutOfMemoryError({
      requestedBytes,
      freeBytes: Math.max(0, capacityBytes - physicalBytes),
      largestFreeBlockBytes: Math.max(0, capacityBytes - physicalBytes),
      pinnedBytes: this.copies.leasedBytes + this.heldBytes,
      budgetBytes: capacityBytes,
      remediesTried: ["evict from the GPU"],
      advice,
    });
  }
}

function noop(): void {}
