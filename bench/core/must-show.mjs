// The table that a reader wants first: what the core promises, in one order, each promise with the
// figures that show it. What needs hours, threads or a test is shown by the command that is named.

/** Promises in their order; `figures` by the ids under which they are printed, with their bounds. */
const PROMISES = [
  {
    promise: "LLM trace, an operation beside an empty call; one of the two",
    figures: { "core/llm-trace-over-empty-call": "≤", "core/llm-trace-above-empty-call": "≤" },
  },
  {
    promise: "LLM trace beside other allocators",
    figures: { "core/llm-trace-tlsf-over-tierheap": "≥", "core/llm-trace-npm-over-tierheap": "≥" },
  },
  { promise: "20,000 live blocks, random", figures: { "core/churn-tlsf-over-tierheap": "≥" } },
  {
    promise: "tensor, view and free beside new Float32Array",
    figures: {
      "core/view-576-typed-array-over-tierheap": "≥",
      "core/view-12288-typed-array-over-tierheap": "≥",
    },
  },
  {
    promise: "smallest arena over peak, worst of five seeds and three passes",
    figures: {
      "core/smallest-arena-worst-over-peak/tierheap": "≤",
      "core/smallest-arena-worst-over-peak/tierheap-compacting": "≤",
    },
  },
  { promise: "speed in that arena", figures: { "core/llm-trace-in-smallest-arena": "≤" } },
  {
    promise: "capacity used at first failure, after churn, compacting",
    figures: { "core/capacity-used-compacting-tensor-sizes/tierheap": "≥" },
  },
  {
    promise: "compaction, nothing pinned",
    figures: {
      "core/compaction-one-piece": "≥",
      "core/compaction-moved-over-lower-bound": "",
      "core/compaction-moved-over-sliding": "≤",
      "core/compaction-speed-over-copy": "≥",
    },
  },
  {
    promise: "pause of a 4 MiB step",
    figures: { "core/pause-p50-over-copy": "≤", "core/pause-p99-over-copy": "" },
  },
  { promise: "metadata", figures: { "core/metadata": "≤" } },
  { promise: "model and misuse", command: "node scripts/proof.mjs" },
  {
    promise: "two workers on one control plane beside two that share nothing",
    figures: { "core/workers-2-shared-over-own": "≥" },
  },
  { promise: "arenas of 1 MiB to 4 GiB", command: "vitest run tests/node/arena-lengths.test.ts" },
  { promise: "verify() with 200,000 live blocks", figures: { "core/verify-200k-live": "" } },
  {
    promise: "cost growth from 1,000 to 200,000 live",
    figures: { "core/growth-live-200k-over-1k": "≤" },
  },
  {
    promise: "statistics beside counters alone, and what they leave to the collector",
    figures: {
      "core/statistics-overhead-pass": "≤",
      "core/statistics-overhead-pairs": "≤",
      "core/statistics-overhead-lookups": "≤",
      "core/statistics-allocations": "≤",
    },
  },
];

/**
 * Rows for `console.table`, and how many targets are met.
 *
 * @param figureOf Gives a figure by its id, or undefined when that did not run.
 */
export function mustShow(figureOf) {
  const rows = [];
  let metCount = 0;
  let judgedCount = 0;
  for (const { promise, figures = {}, command } of PROMISES) {
    const found = Object.keys(figures)
      .map(figureOf)
      .filter((figure) => figure !== undefined);
    if (found.length === 0) rows.push({ promise, figure: command ?? "not run" });
    found.forEach(({ id, value, unit, target, met }, index) => {
      if (target !== undefined) judgedCount += 1;
      if (target !== undefined && met) metCount += 1;
      rows.push({
        promise: index === 0 ? promise : "",
        figure: id,
        value: `${Number(value.toPrecision(4))} ${unit}`,
        target: target === undefined ? "" : `${figures[id]} ${target}`,
        met: met === undefined ? "" : met ? "yes" : "NO",
      });
    });
  }
  return { rows, metCount, judgedCount };
}
