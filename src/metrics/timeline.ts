// Transfers on the timeline of a browser's or Node's developer tools. Layer: metrics.
import type { StatsSink } from "../stats/stats-sink.js";

/** What is used of the platform's `performance`. */
export interface Timeline {
  now(): number;
  measure(name: string, options: { readonly start: number; readonly end: number }): unknown;
  clearMeasures(name?: string): void;
}

/** So many marks are kept by the platform, which keeps them until they are cleared. */
const MARK_COUNT_MAX = 4096;

/**
 * A sink that draws each store and each load of a tensor as a measure: `tierheap swap.store`, `tierheap
 * swap.load`. Pass it as `seams.statsSink` of `createTensorMemory`.
 *
 * @param timeline Default: the platform's `performance`.
 * @param next Told the same. Default: nobody.
 * @remarks A mark for each transfer. After 4,096 of a name those before it are cleared.
 */
export function timelineSink(
  timeline: Timeline = globalThis.performance,
  next?: StatsSink,
): StatsSink {
  const counts = new Map<string, number>();
  return {
    count: (name, amount) => next?.count(name, amount),
    time: (name, durationMs) => {
      const mark = `tierheap ${name}`;
      const count = (counts.get(mark) ?? 0) + 1;
      if (count > MARK_COUNT_MAX) timeline.clearMeasures(mark);
      counts.set(mark, count > MARK_COUNT_MAX ? 1 : count);
      const end = timeline.now();
      timeline.measure(mark, { start: Math.max(0, end - durationMs), end });
      next?.time(name, durationMs);
    },
  };
}
