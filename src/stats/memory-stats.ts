// One snapshot of everything a memory counts. The counters are kept by their owners.
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
  readonly arenas: ArenaShelfStats & { readonly arenaBytes: number };
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
  readonly policy: string;
  readonly leaks: LeakStats;
  readonly droppedEventCount: number;
}
