// Statistics for others to read: `tierheap/metrics`.
import { memoryFamilies } from "./metrics/families.js";
import { formatPrometheus } from "./metrics/prometheus.js";
import type { MemoryStats } from "./stats/memory-stats.js";

export { type ArenaGaps, arenaGaps, formatArenas } from "./metrics/arena-table.js";
export {
  family,
  familyBy,
  type MetricFamily,
  memoryFamilies,
  type Sample,
} from "./metrics/families.js";
export { type LeakSite, LeakSites } from "./metrics/leak-sites.js";
export { mapSvg } from "./metrics/map-svg.js";
export { formatPrometheus, PROMETHEUS_TYPE } from "./metrics/prometheus.js";
export { type Timeline, timelineSink } from "./metrics/timeline.js";

/** A snapshot as a page that Prometheus reads; for pages with more on them see {@link formatPrometheus}. */
export function prometheusText(stats: MemoryStats): string {
  return formatPrometheus(memoryFamilies(stats));
}
