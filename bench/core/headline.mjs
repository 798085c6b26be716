// The figures that compare contestants, and their targets. The others are judged where they are made.

const NPM_HEAPS = ["thing-malloc", "npm-malloc", "npm-alloc"];

function atMost(id, value, unit, target, beside) {
  return { id: `core/${id}`, value, unit, target, met: value <= target, beside };
}

function atLeast(id, value, unit, target, beside) {
  return { id: `core/${id}`, value, unit, target, met: value >= target, beside };
}

/**
 * @param lookUp Gives the median of a figure by its id, or undefined when that did not run.
 * @returns The figures that can be computed from what ran.
 */
export function headline(lookUp) {
  const value = (group, metric, id) => lookUp(`core/${group}${metric}/${id}`);
  const heap = (metric, id) => value("", metric, id);
  const pool = (metric, id) => value("pools-", metric, id);
  const churnOf = (id) => heap("churn-allocate", id) + heap("churn-free", id);
  const trace = heap("llm-trace", "tierheap");
  const floor = heap("llm-trace", "floor");
  const npmTraces = NPM_HEAPS.map((id) => heap("llm-trace-start", id)).filter((ns) => ns > 0);
  const view = (elements) => pool(`view-${elements}`, "tierheap-view");
  const fixedShape = (elements) => pool(`view-${elements}`, "tierheap-fixed-shape");
  const fresh = (elements) => pool(`view-${elements}`, "new-float32array");
  const tensor = heap("view-12288", "tierheap-tensor");

  const overFloor = trace / floor;
  const figures = [
    {
      ...atMost("llm-trace-over-empty-call", overFloor, "ratio", 1.75),
      met: overFloor <= 1.75 || trace - floor <= 3.2,
      beside: `tlsf ${(heap("llm-trace", "tlsf") / floor).toFixed(1)}; met too when within 3.2 ns`,
    },
    atMost("llm-trace-above-empty-call", trace - floor, "ns", 3.2),
    atLeast("llm-trace-tlsf-over-tierheap", heap("llm-trace", "tlsf") / trace, "ratio", 4),
    atLeast(
      "llm-trace-npm-over-tierheap",
      Math.min(...npmTraces) / heap("llm-trace-start", "tierheap"),
      "ratio",
      15,
      `the fastest of ${npmTraces.length}, on the first 40,000 operations`,
    ),
    atLeast("churn-tlsf-over-tierheap", churnOf("tlsf") / churnOf("tierheap"), "ratio", 15),
    atLeast(
      "churn-thing-malloc-over-tierheap",
      churnOf("thing-malloc") / churnOf("tierheap"),
      "ratio",
      10_000,
    ),
    atMost(
      "view-576",
      fixedShape(576),
      "ns",
      10,
      `a fixed shape; any length ${view(576)?.toFixed(1)}`,
    ),
    ...[
      { elements: 576, target: 50 },
      { elements: 12_288, target: 1000 },
    ].flatMap(({ elements, target }) => {
      const id = `view-${elements}-typed-array-over`;
      const array = fresh(elements);
      return [
        atLeast(`${id}-tierheap`, array / view(elements), "ratio", target, "any length"),
        atLeast(`${id}-fixed-shape`, array / fixedShape(elements), "ratio", target),
      ];
    }),
    {
      id: "core/tensor-allocate-pin-free",
      value: tensor,
      unit: "ns",
      beside: `new Float32Array ${fresh(12_288)?.toFixed(0)} ns, in its own process`,
    },
    {
      id: "core/typed-array-over-tensor",
      value: fresh(12_288) / pool("view-12288", "tierheap-tensor"),
      unit: "ratio",
    },
  ];
  return figures.filter((figure) => Number.isFinite(figure.value));
}
