// One snapshot of everything a memory counts. The counters are kept by their owners.
import type { CodecStats } from "../cache/codec-meter.js";
import type { GuardStats } from "../cache/guards.js";
import type { LookupStats } from "../cache/hierarchical-cache.js";
import type { SwapperStats } from "../cache/memory-swapper.js";
import type { ArenaShelfStats } from "../memory/arena-shelf.js";
import type { BudgetStats } from "../memory/budget.js";
import type { LeakStats } from "../memory/leak-watch.js";
import type { PoolStats } from "../memory/memory-pool.js";
import type { TierStats } from "../tier/tier.js";

export interface MemoryStats {
  readonly profile: string;
  readonly budget: BudgetStats;
  readonly arenas: ArenaShelfStats;
  /** Kinds that have ever had an arena. */
  readonly pools: readonly PoolStats[];
  readonly tensors: {
    readonly count: number;
    readonly hotCount: number;
    readonly hotBytes: number;
  };
  readonly lookups: LookupStats;
  readonly transfers: SwapperStats;
  readonly tier: TierStats & { readonly name: string };
  /** What was written in which codec, most bytes first; nothing without codecs. */
  readonly codecs: readonly CodecStats[];
  readonly policy: string;
  readonly leaks: LeakStats;
  /** null without debug mode. */
  readonly guards: GuardStats | null;
  readonly droppedEventCount: number;
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
  readonly tier: { readonly name: string; stats(): TierStats };
  readonly engine: { codecStats(): CodecStats[] };
  readonly policy: { readonly name: string };
  readonly leaks: { stats(): LeakStats };
  readonly guards: { stats(): GuardStats } | null;
  readonly events: { readonly droppedCount: number };
}

export function collectStats(sources: StatsSources): MemoryStats {
  const transfers = sources.swapper.stats();
  const { hotCount, hotBytes } = transfers;
  return {
    profile: sources.profile.name,
    budget: sources.budget.stats(),
    arenas: sources.shelf.stats(),
    pools: [...sources.pools.values()]
      .map((pool) => pool.stats())
      .filter(({ capacityBytesPeak }) => capacityBytesPeak > 0),
    tensors: { count: sources.directory.size, hotCount, hotBytes },
    lookups: sources.cache.lookupStats(),
    transfers,
    tier: { name: sources.tier.name, ...sources.tier.stats() },
    codecs: sources.engine.codecStats(),
    policy: sources.policy.name,
    leaks: sources.leaks.stats(),
    guards: sources.guards?.stats() ?? null,
    droppedEventCount: sources.events.droppedCount,
  };
}
