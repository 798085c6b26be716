// Figures of the heap over time: what is where, what moves, how often it was found. Reads `stats()` four
// times a second and takes differences.
import type { LevelStats, MemoryStats } from "tierheap";

export interface TierSample {
  readonly name: string;
  readonly capacityBytes: number;
  readonly storedBytes: number;
  readonly physicalBytes: number;
  readonly objectCount: number;
  /** Into this tier, and out of it, since the sample before. */
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

export class Sampler {
  #previous: { readonly atMs: number; readonly stats: MemoryStats } | null = null;

  sample(stats: MemoryStats, atMs: number): Sample {
    const previous = this.#previous;
    const seconds = previous === null ? 1 : Math.max(0.001, (atMs - previous.atMs) / 1000);
    this.#previous = { atMs, stats };
    const earlier = previous?.stats ?? stats;
    const tiers = stats.tiers.map((tier, index) => {
      const before = earlier.tiers[index] ?? tier;
      return tierSample(tier, before, seconds);
    });
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

function tierSample(tier: LevelStats, before: LevelStats, seconds: number): TierSample {
  const { name, capacityBytes, storedBytes, physicalBytes, objectCount } = tier;
  return {
    name,
    capacityBytes,
    storedBytes,
    physicalBytes,
    objectCount,
    writtenBytesPerSecond: Math.max(0, tier.bytesWritten - before.bytesWritten) / seconds,
    readBytesPerSecond: Math.max(0, tier.bytesRead - before.bytesRead) / seconds,
  };
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
