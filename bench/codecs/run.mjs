// What the codecs cost and keep: speed beside copies, plain JavaScript and other packages; errors beside
// the budget.
//
//   node --expose-gc bench/codecs/run.mjs [--json FILE] [--svg FILE] [--quick] [--only SECTION,SECTION]
//
// Each section has a process of its own. Contestants take turns; ratios are medians over rounds of short
// runs. Never fails on time; exits with 1 when a section breaks.
import { fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { printFigures, writeFigures } from "../support.mjs";
import { ratePlot } from "./rate-plot.mjs";

const SECTIONS = [
  "exact",
  "layout",
  "kernels",
  "attend",
  "svd",
  "plane",
  "quality",
  "rate",
  "adaptive",
  "spill",
  "workers",
];

const { values: options } = parseArgs({
  options: {
    json: { type: "string" },
    svg: { type: "string" },
    quick: { type: "boolean" },
    only: { type: "string" },
  },
});

/** Runs a section in a process of its own. @returns What it found, or null when it broke. */
function runSection(name) {
  return new Promise((resolve) => {
    const script = fileURLToPath(new URL("section.mjs", import.meta.url));
    const child = fork(script, [name, options.quick ? "quick" : ""], { execArgv: ["--expose-gc"] });
    let result = null;
    child.on("message", (message) => {
      result = message;
    });
    child.on("error", (error) => console.error(error));
    child.on("close", (code) => resolve(code === 0 ? result : null));
  });
}

const wanted = options.only?.split(",");
const unknown = wanted?.find((name) => !SECTIONS.includes(name));
if (unknown !== undefined) throw new Error(`there is no section ${unknown}`);
const figures = [];
for (const name of SECTIONS) {
  if (wanted !== undefined && !wanted.includes(name)) continue;
  const startMs = performance.now();
  const result = await runSection(name);
  console.log(`\n${name}  [${((performance.now() - startMs) / 1000).toFixed(0)} s]`);
  if (result === null) {
    console.log("broke: see above");
    process.exitCode = 1;
    continue;
  }
  for (const table of result.tables ?? []) console.table(table);
  printFigures(result.figures);
  figures.push(...result.figures);
  if (result.panels !== undefined && options.svg !== undefined) {
    writeFileSync(options.svg, ratePlot(result.panels));
  }
}
if (options.json !== undefined) writeFigures(options.json, figures);
