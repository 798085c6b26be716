// Figures of the heap over time: what is where, what moves, how often it was found. Reads `stats()` four
// times a second and takes differences.
import type { LevelStats, MemoryStats } from "tierheap";

export interface TierSample {
  readonly name: string;
  readonly capacityBytes: number;
  readonly storedBytes: number;
  readonly physicalBytes: number;
  readonly objectCount: number;
  /** Into this tier, and out of it, over the last second or two. */
  readonly writtenBytesPerSecond: number;
  readonly readBytesPerSecond: number;
}

export interface Sample {
  readonly atMs: number;
  /** RAM first. */
  readonly tiers: readonly TierSample[];
  /** Of the lookups since the sample before; null if there were none. */
  readonly hitRatio: number | null;
  /** Over all arenas, by their free bytes. */
  readonly externalFragmentation: number;
  readonly stats: MemoryStats;
}

/** What a rate keeps of the one before: transfers come in bursts. */
const INERTIA = 0.75;
/** Slower than this is still. */
const STILL_BYTES_PER_SECOND = 1024;

export class Sampler {
  #previous: { readonly atMs: number; readonly stats: MemoryStats } | null = null;
  #tiers: readonly TierSample[] = [];

  sample(stats: MemoryStats, atMs: number): Sample {
    const previous = this.#previous;
    const seconds = previous === null ? 1 : Math.max(0.001, (atMs - previous.atMs) / 1000);
    this.#previous = { atMs, stats };
    const earlier = previous?.stats ?? stats;
    const tiers = stats.tiers.map((tier, index) => {
      const before = earlier.tiers[index] ?? tier;
      return tierSample(tier, before, this.#tiers[index], seconds);
    });
    this.#tiers = tiers;
    const lookups = stats.lookups.lookups - earlier.lookups.lookups;
    const hits =
      stats.lookups.hits + stats.lookups.joins - earlier.lookups.hits - earlier.lookups.joins;
    return {
      atMs,
      tiers,
      hitRatio: lookups > 0 ? hits / lookups : null,
      externalFragmentation: fragmentationOf(stats),
      stats,
    };
  }
}

function tierSample(
  tier: LevelStats,
  before: LevelStats,
  shown: TierSample | undefined,
  seconds: number,
): TierSample {
  const { name, capacityBytes, storedBytes, physicalBytes, objectCount } = tier;
  return {
    name,
    capacityBytes,
    storedBytes,
    physicalBytes,
    objectCount,
    writtenBytesPerSecond: smooth(
      shown?.writtenBytesPerSecond,
      (tier.bytesWritten - before.bytesWritten) / seconds,
    ),
    readBytesPerSecond: smooth(
      shown?.readBytesPerSecond,
      (tier.bytesRead - before.bytesRead) / seconds,
    ),
  };
}

function smooth(shown: number | undefined, now: number): number {
  const rate = INERTIA * (shown ?? 0) + (1 - INERTIA) * Math.max(0, now);
  return rate < STILL_BYTES_PER_SECOND ? 0 : rate;
}

/** External fragmentation over all arenas, by their free bytes. */
export function fragmentationOf({ pools }: MemoryStats): number {
  let freeBytes = 0;
  let scatteredBytes = 0;
  for (const pool of pools) {
    freeBytes += pool.freeBytes;
    scatteredBytes += pool.freeBytes * pool.externalFragmentation;
  }
  return freeBytes === 0 ? 0 : scatteredBytes / freeBytes;
}
