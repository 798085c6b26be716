// What a snapshot of statistics says, as families of samples: the one list that every exporter goes through.
// Layer: metrics.
import type { MemoryStats } from "../stats/memory-stats.js";

/** Values by label; the same labels in all samples of a family. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** One figure. */
export interface MetricFamily {
  /** Letters, digits and `_`; a counter's ends in `_total`. */
  readonly name: string;
  /** A counter only grows while the process lives. */
  readonly type: "counter" | "gauge";
  /** One sentence. */
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** A family of one value. */
export function family(
  type: MetricFamily["type"],
  name: string,
  help: string,
  value: number,
): MetricFamily {
  return { type, name, help, samples: [{ labels: {}, value }] };
}

/** A family with one sample for each member, labelled by its name. */
export function familyBy(
  type: MetricFamily["type"],
  name: string,
  help: string,
  label: string,
  values: Readonly<Record<string, number>>,
): MetricFamily {
  const samples = Object.entries(values).map(([key, value]) => ({
    labels: { [label]: key },
    value,
  }));
  return { type, name, help, samples };
}

/** Everything of a memory that is worth watching, in families whose names begin with `tierheap_`. */
export function memoryFamilies(stats: MemoryStats): MetricFamily[] {
  const { budget, tensors, lookups, transfers, prefetch, disposables, sharing } = stats;
  const { hits, joins, misses } = lookups;
  const { usedCount: used, lateCount: late, wastedCount: wasted } = prefetch;
  const moves = {
    "swap-out": transfers.swapOutCount,
    "swap-in": transfers.swapInCount,
    "clean-eviction": transfers.cleanEvictionCount,
    "early-copy": transfers.earlyCopyCount,
    save: transfers.saveCount,
  };
  const pool = (name: string, help: string, pick: (each: (typeof stats.pools)[number]) => number) =>
    familyBy("gauge", `tierheap_pool_${name}`, help, "kind", byKind(stats, pick));
  const poolCounter = (
    name: string,
    help: string,
    pick: (each: (typeof stats.pools)[number]) => number,
  ) => familyBy("counter", `tierheap_pool_${name}_total`, help, "kind", byKind(stats, pick));
  const tier = (name: string, help: string, pick: (each: (typeof stats.tiers)[number]) => number) =>
    familyBy("gauge", `tierheap_tier_${name}`, help, "tier", byTier(stats, pick));
  const tierCounter = (
    name: string,
    help: string,
    pick: (each: (typeof stats.tiers)[number]) => number,
  ) => familyBy("counter", `tierheap_tier_${name}_total`, help, "tier", byTier(stats, pick));
  return [
    family("gauge", "tierheap_budget_limit_bytes", "RAM that may be used.", budget.limitBytes),
    familyBy("gauge", "tierheap_budget_used_bytes", "RAM in use.", "for", budget.byCategory),
    family("gauge", "tierheap_budget_peak_bytes", "Most RAM ever in use.", budget.usedBytesPeak),
    family("gauge", "tierheap_tensors", "Tensors, wherever they are.", tensors.count),
    family("gauge", "tierheap_tensors_hot", "Tensors in RAM.", tensors.hotCount),
    family("gauge", "tierheap_tensors_hot_bytes", "Bytes of tensors in RAM.", tensors.hotBytes),
    pool("capacity_bytes", "Bytes of arenas.", (each) => each.capacityBytes),
    pool("granted_bytes", "Bytes of blocks.", (each) => each.grantedBytes),
    pool("requested_bytes", "Bytes asked for.", (each) => each.requestedBytes),
    pool("requested_peak_bytes", "Most bytes ever asked for.", (each) => each.requestedBytesPeak),
    pool("pinned", "Pinned tensors.", (each) => each.pinnedCount),
    pool("fragmentation", "External, 0 to 1.", (each) => each.externalFragmentation),
    poolCounter("allocations", "Blocks allocated.", (each) => each.allocationCount),
    poolCounter("frees", "Blocks freed.", (each) => each.freeCount),
    poolCounter("compacted_bytes", "Bytes moved together.", (each) => each.compaction.movedBytes),
    familyBy("counter", "tierheap_lookups_total", "Lookups by result.", "result", {
      ...{ hits, joins, misses },
    }),
    familyBy("counter", "tierheap_transfers_total", "Moves of tensors.", "move", moves),
    familyBy("counter", "tierheap_prefetches_total", "Prefetches by what came of them.", "end", {
      ...{ used, late, wasted },
    }),
    family(
      "counter",
      "tierheap_dropped_total",
      "Disposable tensors given up.",
      disposables.droppedCount,
    ),
    family("gauge", "tierheap_shared_saved_bytes", "Bytes that sharing saves.", sharing.savedBytes),
    tier("stored_bytes", "Bytes that tiers hold.", (each) => each.storedBytes),
    tier("capacity_bytes", "Bytes that tiers may hold.", (each) => each.capacityBytes),
    tier("objects", "Objects that tiers hold.", (each) => each.objectCount),
    tier("broken", "1 while a tier failed lately.", (each) => (each.breaker === "closed" ? 0 : 1)),
    tierCounter("read_bytes", "Bytes read.", (each) => each.bytesRead),
    tierCounter("written_bytes", "Bytes written.", (each) => each.bytesWritten),
    tierCounter("failures", "Failures of tiers.", (each) => each.failureCount),
    family("gauge", "tierheap_leaked", "Tensors that nobody could free.", stats.leaks.leakedCount),
    family(
      "gauge",
      "tierheap_leaked_bytes",
      "Bytes that nobody could free.",
      stats.leaks.leakedBytes,
    ),
  ];
}

function byKind(stats: MemoryStats, pick: (each: MemoryStats["pools"][number]) => number) {
  return Object.fromEntries(stats.pools.map((each) => [each.kind, pick(each)]));
}

function byTier(stats: MemoryStats, pick: (each: MemoryStats["tiers"][number]) => number) {
  return Object.fromEntries(stats.tiers.map((each) => [each.name, pick(each)]));
}
