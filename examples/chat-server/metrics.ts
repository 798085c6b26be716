/**
 * The figures of a server as a page that Prometheus reads.
 *
 * Source: Prometheus documentation, "Exposition formats" — the text format, version 0.0.4.
 */
import type { MemoryStats } from "tierheap";
import type { KvOrigin } from "./chat-kv.js";

/** What the server itself counts. */
export interface ServerStats {
  readonly turns: {
    readonly begun: number;
    readonly done: number;
    readonly aborted: number;
    readonly refused: number;
    readonly failed: number;
  };
  readonly tokenCount: number;
  readonly originCounts: Readonly<Record<KvOrigin, number>>;
  readonly queue: {
    readonly runningCount: number;
    readonly waitingCount: number;
    readonly rejectedCount: number;
  };
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function formatFamily(
  name: string,
  type: "counter" | "gauge",
  help: string,
  samples: readonly Sample[],
): string {
  const lines = samples.map(([labels, value]) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    const number = value === Number.POSITIVE_INFINITY ? "+Inf" : String(value);
    return `${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${number}`;
  });
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines, ""].join("\n");
}

/** One sample for each member, labelled by its name. */
function byName(label: string, values: Readonly<Record<string, number>>): Sample[] {
  return Object.entries(values).map(([name, value]) => [{ [label]: name }, value]);
}

export function formatMetrics(server: ServerStats, stats: MemoryStats): string {
  const { begun, ...ends } = server.turns;
  const { runningCount, waitingCount, rejectedCount } = server.queue;
  const { budget, tensors, lookups, transfers, pools, tiers } = stats;
  const { hits, joins, misses } = lookups;
  const { swapOutCount, swapInCount, cleanEvictionCount, saveCount } = transfers;
  const one = (value: number): Sample[] => [[{}, value]];
  const ofPools = (pick: (pool: (typeof pools)[number]) => number): Sample[] =>
    pools.map((pool) => [{ kind: pool.kind }, pick(pool)]);
  const ofTiers = (pick: (tier: (typeof tiers)[number]) => number): Sample[] =>
    tiers.map((tier) => [{ tier: tier.name }, pick(tier)]);
  const moves = {
    "swap-out": swapOutCount,
    "swap-in": swapInCount,
    "clean-eviction": cleanEvictionCount,
    save: saveCount,
  };
  const families: [string, "counter" | "gauge", string, Sample[]][] = [
    ["chat_turns_begun_total", "counter", "Turns asked for.", one(begun)],
    ["chat_turns_total", "counter", "Turns by how they ended.", byName("end", ends)],
    ["chat_tokens_total", "counter", "Tokens computed for answers.", one(server.tokenCount)],
    [
      "chat_kv_total",
      "counter",
      "Turns done by where their KV came from.",
      byName("origin", server.originCounts),
    ],
    ["chat_queue_running", "gauge", "Turns that compute.", one(runningCount)],
    ["chat_queue_waiting", "gauge", "Turns that wait.", one(waitingCount)],
    [
      "chat_queue_rejected_total",
      "counter",
      "Turns for which the queue was full.",
      one(rejectedCount),
    ],
    ["tierheap_budget_limit_bytes", "gauge", "RAM that may be used.", one(budget.limitBytes)],
    ["tierheap_budget_used_bytes", "gauge", "RAM in use.", byName("for", budget.byCategory)],
    ["tierheap_budget_peak_bytes", "gauge", "Most RAM ever in use.", one(budget.usedBytesPeak)],
    ["tierheap_tensors", "gauge", "Tensors, wherever they are.", one(tensors.count)],
    ["tierheap_tensors_hot", "gauge", "Tensors in RAM.", one(tensors.hotCount)],
    ["tierheap_tensors_hot_bytes", "gauge", "Bytes of tensors in RAM.", one(tensors.hotBytes)],
    [
      "tierheap_pool_capacity_bytes",
      "gauge",
      "Bytes of arenas.",
      ofPools((pool) => pool.capacityBytes),
    ],
    [
      "tierheap_pool_granted_bytes",
      "gauge",
      "Bytes of blocks.",
      ofPools((pool) => pool.grantedBytes),
    ],
    [
      "tierheap_pool_requested_bytes",
      "gauge",
      "Bytes asked for.",
      ofPools((pool) => pool.requestedBytes),
    ],
    ["tierheap_pool_pinned", "gauge", "Pinned tensors.", ofPools((pool) => pool.pinnedCount)],
    [
      "tierheap_lookups_total",
      "counter",
      "Lookups by result.",
      byName("result", { hits, joins, misses }),
    ],
    ["tierheap_transfers_total", "counter", "Moves of tensors.", byName("move", moves)],
    [
      "tierheap_tier_stored_bytes",
      "gauge",
      "Bytes that tiers hold.",
      ofTiers((tier) => tier.storedBytes),
    ],
    [
      "tierheap_tier_capacity_bytes",
      "gauge",
      "Bytes that tiers may hold.",
      ofTiers((tier) => tier.capacityBytes),
    ],
    [
      "tierheap_tier_objects",
      "gauge",
      "Objects that tiers hold.",
      ofTiers((tier) => tier.objectCount),
    ],
    ["tierheap_tier_read_bytes_total", "counter", "Bytes read.", ofTiers((tier) => tier.bytesRead)],
    [
      "tierheap_tier_written_bytes_total",
      "counter",
      "Bytes written.",
      ofTiers((tier) => tier.bytesWritten),
    ],
    ["tierheap_leaked_bytes", "gauge", "Bytes that nobody can free.", one(stats.leaks.leakedBytes)],
  ];
  return families.map((family) => formatFamily(...family)).join("");
}
