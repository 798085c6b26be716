// One snapshot of everything a memory counts. The counters are kept by their owners.

import type { CodecStats } from "../cache/codec-meter.js";
import type { DisposableStats } from "../cache/disposables.js";
import type { GuardStats } from "../cache/guards.js";
import type { LookupStats } from "../cache/hierarchical-cache.js";
import type { LifetimeStats } from "../cache/lifetime-collector.js";
import type { PrefetchStats } from "../cache/prefetcher.js";
import type { PressureWatchStats } from "../cache/pressure-watch.js";
import type { SharingStats } from "../cache/shared-tensors.js";
import type { SwapperStats } from "../cache/swapper-stats.js";
import type { LevelStats } from "../cache/tier-level.js";
import type { CodecWorkersStats } from "../codec/codec.js";
import type { LockCounters } from "../core/lanes.js";
import type { ArenaShelfStats } from "../memory/arena-shelf.js";
import type { BudgetStats } from "../memory/budget.js";
import type { LeakStats } from "../memory/leak-watch.js";
import type { PoolStats } from "../memory/memory-pool.js";
import type { LearntStats } from "../policy/learnt-stats.js";
import type { TierStats } from "../tier/tier.js";
import type { FeatureStats } from "./feature.js";
import type { LatencyStats, SeriesStats } from "./recording.js";

/** What is seen from outside: balances, latencies, the course of things. */
export interface ObservedStats {
  /**
   * Cost and gain of each optimisation. `"coding"` has the sum of all codecs, which follow it. What the speed
   * of the tiers has to tell is 0 ns until it was measured.
   */
  readonly features: readonly FeatureStats[];
  /** How long operations took; only those that there were. Empty with `statistics: "counters"`. */
  readonly latencies: readonly LatencyStats[];
  /** The memory over time; null with `statistics: "counters"`. */
  readonly series: SeriesStats | null;
  /** What the default order of leaving has done; null when another one was chosen. */
  readonly learnt: LearntStats | null;
}

/**
 * Everything that a memory counts, at one moment. Bytes, milliseconds unless a name says otherwise; counts are
 * sums since the memory was created. `statsProblems` of `tierheap/testing` says what has to add up.
 */
export interface MemoryStats extends ObservedStats {
  /** Name of the hardware profile. */
  readonly profile: string;
  /** The RAM budget, and what it is used for. */
  readonly budget: BudgetStats;
  /** Arenas of all kinds, spares included. */
  readonly arenas: ArenaShelfStats;
  /** Kinds that have ever had an arena. */
  readonly pools: readonly PoolStats[];
  readonly tensors: {
    /** Of this memory, wherever they are. */
    readonly count: number;
    /** Resident ones; shared ones once for each content. */
    readonly hotCount: number;
    readonly hotBytes: number;
  };
  readonly lookups: LookupStats;
  /** Between RAM and the tiers below it. */
  readonly transfers: SwapperStats;
  readonly prefetch: PrefetchStats;
  /** What admission decided about disposable tensors. */
  readonly disposables: DisposableStats;
  readonly sharing: SharingStats;
  /** What was done above the high watermark. */
  readonly background: PressureWatchStats;
  /** Registered tensors and what was collected of them; null with `lifetimes: false`. */
  readonly lifetimes: LifetimeStats | null;
  /** All tiers below the arenas together. */
  readonly tier: TierStats & { readonly name: string };
  /** The GPU first, if there is one, then RAM and each tier below it. */
  readonly tiers: readonly LevelStats[];
  /** What was written in which codec, most bytes first; nothing without codecs. */
  readonly codecs: readonly CodecStats[];
  /** What was coded anew on its way to a colder tier, by the codec that it has there. */
  readonly transcoded: readonly CodecStats[];
  /** null: no workers code; or none has been needed yet. */
  readonly codecWorkers: CodecWorkersStats | null;
  /** Name of the order in which tensors leave. */
  readonly policy: string;
  readonly leaks: LeakStats;
  /** null without debug mode. */
  readonly guards: GuardStats | null;
  /** Events that a slow listener never got. */
  readonly droppedEventCount: number;
  /** How often the guard of the core was taken, by all threads. null unless the memory is shared. */
  readonly lock: LockCounters | null;
}

/** The owners of the counters, as far as they are asked here. */
export interface StatsSources {
  readonly profile: { readonly name: string };
  readonly budget: { stats(): BudgetStats };
  readonly shelf: { stats(): ArenaShelfStats };
  readonly pools: ReadonlyMap<unknown, { stats(): PoolStats }>;
  readonly directory: { readonly size: number };
  readonly cache: { lookupStats(): LookupStats };
  readonly swapper: { stats(): SwapperStats };
  readonly prefetcher: { stats(): PrefetchStats };
  readonly disposables: { stats(): DisposableStats };
  readonly sharing: { stats(): SharingStats };
  readonly watch: { stats(): PressureWatchStats };
  readonly collector: { stats(): LifetimeStats } | null;
  readonly tier: { readonly name: string; stats(): TierStats };
  readonly engine: {
    codecStats(): CodecStats[];
    codecWorkersStats(): CodecWorkersStats | null;
  };
  readonly stack: { levels(): LevelStats[]; transcoded(): CodecStats[] } | null;
  readonly gpu: { level(): LevelStats } | null;
  readonly policy: { readonly name: string };
  readonly leaks: readonly { stats(): LeakStats }[];
  readonly guards: { stats(): GuardStats } | null;
  readonly events: { readonly droppedCount: number };
  readonly observer: { stats(): ObservedStats };
  readonly core: { readonly lanes: { readonly lockCounters: LockCounters } | null };
}

export function collectStats(sources: StatsSources): MemoryStats {
  const transfers = sources.swapper.stats();
  const { hotCount, hotBytes } = transfers;
  const sharing = sources.sharing.stats();
  return {
    ...sources.observer.stats(),
    profile: sources.profile.name,
    budget: sources.budget.stats(),
    arenas: sources.shelf.stats(),
    pools: [...sources.pools.values()]
      .map((pool) => pool.stats())
      .filter(({ capacityBytesPeak }) => capacityBytesPeak > 0),
    tensors: { count: sources.directory.size - sharing.contentCount, hotCount, hotBytes },
    lookups: sources.cache.lookupStats(),
    transfers,
    prefetch: sources.prefetcher.stats(),
    disposables: sources.disposables.stats(),
    sharing,
    background: sources.watch.stats(),
    lifetimes: sources.collector?.stats() ?? null,
    tier: { name: sources.tier.name, ...sources.tier.stats() },
    codecs: sources.engine.codecStats(),
    transcoded: sources.stack?.transcoded() ?? [],
    codecWorkers: sources.engine.codecWorkersStats(),
    tiers: [...levelsAbove(sources), ramLevel(sources), ...levelsBelow(sources)].map(
      (level, priority) => ({ ...level, priority }),
    ),
    policy: sources.policy.name,
    leaks: sources.leaks
      .map((watch) => watch.stats())
      .reduce((sum, each) => ({
        leakedCount: sum.leakedCount + each.leakedCount,
        leakedBytes: sum.leakedBytes + each.leakedBytes,
      })),
    guards: sources.guards?.stats() ?? null,
    droppedEventCount: sources.events.droppedCount,
    lock: sources.core.lanes?.lockCounters ?? null,
  };
}

const NOTHING = {
  skips: 0,
  promotions: 0,
  demotions: 0,
  cleanEvictions: 0,
  breaker: "closed",
  failureCount: 0,
} as const;

function ramLevel({ budget, swapper, cache }: StatsSources): LevelStats {
  const { limitBytes, usedBytes } = budget.stats();
  const transfers = swapper.stats();
  const { hits, joins, misses } = cache.lookupStats();
  return {
    ...NOTHING,
    name: "ram",
    priority: 0,
    capacityBytes: limitBytes,
    storedBytes: transfers.hotBytes,
    physicalBytes: usedBytes,
    objectCount: transfers.hotCount,
    hits: hits + joins,
    misses,
    loads: hits + joins,
    promotions: transfers.swapInCount,
    demotions: transfers.swapOutCount,
    cleanEvictions: transfers.cleanEvictionCount,
    bytesWritten: transfers.rawBytesIn,
    bytesRead: transfers.rawBytesOut,
    latencyMs: null,
    bytesPerSecond: null,
  };
}

function levelsAbove({ gpu }: StatsSources): LevelStats[] {
  return gpu === null ? [] : [gpu.level()];
}

function levelsBelow(sources: StatsSources): LevelStats[] {
  return sources.stack?.levels() ?? [loneLevel(sources)];
}

/** A tier that is no stack knows nothing of lookups: the cache has asked it. */
function loneLevel({ tier, swapper, cache }: StatsSources): LevelStats {
  const { swapInCount, latencyMs, bytesPerSecond } = swapper.stats();
  const { cold, absent } = cache.lookupStats();
  return {
    ...NOTHING,
    ...tier.stats(),
    name: tier.name,
    priority: 1,
    hits: cold,
    misses: absent,
    loads: swapInCount,
    latencyMs,
    bytesPerSecond,
  };
}
