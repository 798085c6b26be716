// What eviction, admission and prefetch are worth on traces, beside the optimum.
//
//   node bench/cache/run.mjs [--trace PATH]… [--json FILE] [--svg FILE] [--quick] [--only SECTION]
//                            [--seed N]
//
// Without a trace, a generated one is replayed. Formats: docs/traces.md. Never fails on a target.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { seededRandom } from "../../dist/src/random.js";
import { printFigures, writeFigures } from "../support.mjs";
import { linePlot } from "./plot.mjs";
import { SECTIONS } from "./sections.mjs";
import { generateTrace, readTrace } from "./traces.mjs";

const { values: options } = parseArgs({
  options: {
    trace: { type: "string", multiple: true },
    json: { type: "string" },
    svg: { type: "string" },
    quick: { type: "boolean" },
    only: { type: "string" },
    seed: { type: "string" },
  },
});

const seed = Number(options.seed ?? 1);
const makeRandom = (each) => {
  const random = seededRandom(each);
  return () => random.uint32() / 2 ** 32;
};
const isQuick = options.quick === true;
const context = {
  isQuick,
  makeRandom,
  random: makeRandom(seed),
  seeds: isQuick ? [] : [seed, seed + 1, seed + 2],
};

const figures = [];
const plots = [];

async function runSection(name, trace) {
  if (options.only !== undefined && options.only !== name) return;
  const start = performance.now();
  const { rows, figures: found, plot } = await SECTIONS[name](trace, context);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`\n${name}${trace === undefined ? "" : ` on ${trace.name}`}  [${seconds} s]`);
  if (rows !== undefined) console.table(rows);
  printFigures(found);
  figures.push(...found);
  if (plot !== undefined) plots.push(linePlot(`Hits on ${trace.name}, over blocks held`, plot));
}

console.log(`seed ${seed}`);
const traces =
  options.trace === undefined
    ? [generateTrace(makeRandom(seed), isQuick ? 200 : 1500)]
    : await Promise.all(options.trace.map((path) => readTrace(path)));
for (const trace of traces) {
  const { name, requests, accessCount, uniqueCount, isChained } = trace;
  console.log(
    `\n${name}: ${requests.length} requests, ${accessCount} accesses, ${uniqueCount} blocks`,
  );
  if (requests[0]?.bytes > 1) await runSection("integers", trace);
  await runSection("policies", trace);
  if (!isChained) continue;
  for (const section of ["gaps", "tiers", "levels", "prefetch"]) await runSection(section, trace);
  if (name !== "conversation") await runSection("singles", trace);
}
await runSection("loop", undefined);
const chained = traces.find(({ isChained }) => isChained);
if (chained !== undefined) await runSection("speed", chained);

if (options.json !== undefined) writeFigures(options.json, figures, seed);
if (options.svg !== undefined && plots.length > 0) writeFileSync(options.svg, plots[0]);
