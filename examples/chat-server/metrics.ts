/** The figures of a server as a page that Prometheus reads. */
import type { MemoryStats } from "tierheap";
import { family, familyBy, formatPrometheus, memoryFamilies } from "tierheap/metrics";
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
  /** What found no room beside other turns, and was done alone. */
  readonly aloneCount: number;
  readonly originCounts: Readonly<Record<KvOrigin, number>>;
  readonly queue: {
    readonly runningCount: number;
    readonly waitingCount: number;
    readonly rejectedCount: number;
  };
}

/** The server's families, then the memory's. */
export function formatMetrics(server: ServerStats, stats: MemoryStats): string {
  const { begun, ...ends } = server.turns;
  const { runningCount, waitingCount, rejectedCount } = server.queue;
  const origins = server.originCounts;
  return formatPrometheus([
    family("counter", "chat_turns_begun_total", "Turns asked for.", begun),
    familyBy("counter", "chat_turns_total", "Turns by how they ended.", "end", ends),
    family("counter", "chat_tokens_total", "Tokens computed for answers.", server.tokenCount),
    family("counter", "chat_alone_total", "Steps that needed all room.", server.aloneCount),
    familyBy("counter", "chat_kv_total", "Turns by where their KV came from.", "origin", origins),
    family("gauge", "chat_queue_running", "Turns that compute.", runningCount),
    family("gauge", "chat_queue_waiting", "Turns that wait.", waitingCount),
    family(
      "counter",
      "chat_queue_rejected_total",
      "Turns for which the queue was full.",
      rejectedCount,
    ),
    ...memoryFamilies(stats),
  ]);
}
