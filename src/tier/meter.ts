// Counters that every tier keeps in the same way.
import type { TierKey, TierStats } from "./tier.js";

/** How often what was done. */
export class TierCounters {
  bytesWritten = 0;
  bytesRead = 0;
  commitCount = 0;
  openReadCount = 0;
  deleteCount = 0;
  noSpaceCount = 0;
  quarantinedCount = 0;

  counts(): Pick<TierStats, keyof TierCounters & keyof TierStats> {
    const { bytesWritten, bytesRead, commitCount, openReadCount } = this;
    const { deleteCount, noSpaceCount, quarantinedCount } = this;
    return {
      bytesWritten,
      bytesRead,
      commitCount,
      openReadCount,
      deleteCount,
      noSpaceCount,
      quarantinedCount,
    };
  }
}

/** Sizes of the committed objects, and how often what was done. */
export class TierMeter extends TierCounters {
  readonly #sizes = new Map<TierKey, number>();
  readonly #capacityBytes: number;
  #storedBytes = 0;
  /** Bytes promised to writers that have begun and not yet ended. */
  #pendingBytes = 0;

  constructor(capacityBytes: number) {
    super();
    this.#capacityBytes = capacityBytes;
  }

  /** Reserves room for a new object, which may replace one. @returns false when it does not fit. */
  tryBegin(byteLength: number): boolean {
    if (this.#storedBytes + this.#pendingBytes + byteLength > this.#capacityBytes) {
      this.noSpaceCount += 1;
      return false;
    }
    this.#pendingBytes += byteLength;
    return true;
  }

  /** The writer of `byteLength` bytes has ended, by commit or abort. */
  end(byteLength: number): void {
    this.#pendingBytes -= byteLength;
  }

  put(key: TierKey, byteLength: number): void {
    this.forget(key);
    this.#sizes.set(key, byteLength);
    this.#storedBytes += byteLength;
  }

  forget(key: TierKey): void {
    this.#storedBytes -= this.#sizes.get(key) ?? 0;
    this.#sizes.delete(key);
  }

  has(key: TierKey): boolean {
    return this.#sizes.has(key);
  }

  keys(): TierKey[] {
    return [...this.#sizes.keys()];
  }

  stats(): TierStats {
    return {
      ...this.counts(),
      objectCount: this.#sizes.size,
      storedBytes: this.#storedBytes,
      physicalBytes: this.#storedBytes,
      capacityBytes: this.#capacityBytes,
    };
  }
}
