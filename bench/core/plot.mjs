// The plot of docs/performance.md, from figures that run.mjs wrote.
//
//   node bench/core/plot.mjs FILE.svg FIGURES.json...
//
// Contestants of a panel must come from one run; panels may come from several.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { barPlot } from "./svg.mjs";

/** Panels, by the ids of their figures up to the contestant. */
const PANELS = {
  "core/llm-trace-start": "LLM trace, first 40,000 operations, ns each",
  "core/churn-allocate": "20,000 live blocks: allocate, ns",
  "core/churn-free": "20,000 live blocks: free, ns",
  "core/pools-view-576": "Tensor of 576 floats with a view: take, write, give back, ns",
  "core/pools-view-12288": "Tensor of 12,288 floats with a view: take, write, give back, ns",
};

/** SVG text of the panels that the figures are of; fastest first, the empty call on top. */
export function plotOf(figures) {
  const panels = Object.entries(PANELS).map(([prefix, title]) => {
    const bars = figures
      .filter(({ id }) => id.startsWith(`${prefix}/`))
      .map(({ id, title: label, value }) => {
        const name = id.slice(prefix.length + 1);
        return { label: label ?? name, value, isOurs: name.startsWith("tierheap") };
      });
    return { title, bars: bars.sort((left, right) => left.value - right.value) };
  });
  return barPlot(panels.filter(({ bars }) => bars.length > 0));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [svgFile, ...files] = process.argv.slice(2);
  const figures = files.flatMap((file) => JSON.parse(readFileSync(file, "utf8")).figures);
  writeFileSync(svgFile, plotOf(figures));
}
