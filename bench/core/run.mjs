// What the core costs beside what else a program could use, and what fits.
//
//   node --expose-gc bench/core/run.mjs [--json FILE] [--svg FILE] [--quick] [--only SECTION,SECTION]
//
// Each section has a process of its own: the contestants of a table share it and take turns. Times are
// the median of short chunks, the least in parentheses, in nanoseconds: less is better. Our own rows
// have a star. Trust ratios within a table.
// Never fails on time; exits with 1 when a section or one of our own rows breaks, or
// an overlap is found.
import { fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { printFigures, writeFigures } from "../support.mjs";
import { headline } from "./headline.mjs";
import { mustShow } from "./must-show.mjs";
import { plotOf } from "./plot.mjs";
import { printTimes, tidy } from "./tables.mjs";

const SECTIONS = [
  { name: "overlap", title: "Overlap check" },
  { name: "trace", group: "heaps", title: "(b) LLM trace, ns per operation" },
  { name: "trace", group: "pools", title: "(b) LLM trace, beside the collector" },
  { name: "churn", group: "heaps", title: "(a) churn over 20,000 live blocks, ns" },
  { name: "churn", group: "pools", title: "(a) churn, beside the collector" },
  { name: "pairs", group: "heaps", title: "(c) allocate and free at once, ns per pair" },
  { name: "pairs", group: "pools", title: "(c) pairs, beside the collector" },
  { name: "view", group: "heaps", title: "Tensor with a view, ns per tensor" },
  { name: "view", group: "pools", title: "Tensor with a view, beside the collector" },
  { name: "repeat", title: "Scopes and repeated steps" },
  { name: "smallest", title: "Smallest arena for the LLM trace" },
  { name: "fill", title: "(d) fill and churn, reuse, metadata" },
  { name: "compaction", title: "Compaction" },
  { name: "growth", title: "Growth" },
  { name: "statistics", title: "Statistics, beside counters alone" },
  { name: "workers", title: "Two threads on one plane" },
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
function runSection({ name, group = "" }) {
  return new Promise((resolve) => {
    const script = fileURLToPath(new URL("section.mjs", import.meta.url));
    const child = fork(script, [name, group, options.quick ? "quick" : ""], {
      execArgv: ["--expose-gc", "--max-old-space-size=4096"],
    });
    let result = null;
    child.on("message", (message) => {
      result = message;
    });
    child.on("error", (error) => console.error(error));
    child.on("close", (code) => resolve(code === 0 ? result : null));
  });
}

function figuresOfTimes(rows, group) {
  const floors = new Map(rows.filter(({ id }) => id === "floor").map((row) => [row.metric, row]));
  return rows.map(({ metric, id, title, median, least, mean }) => ({
    title,
    id: `core/${group === "pools" ? "pools-" : ""}${metric}/${id}`,
    value: median,
    unit: "ns",
    beside: `least ${tidy(least)}, mean ${tidy(mean)}; floor ${tidy(floors.get(metric).median)}`,
  }));
}

const wanted = options.only?.split(",");
const unknown = wanted?.find((name) => !SECTIONS.some((section) => section.name === name));
if (unknown !== undefined) throw new Error(`there is no section ${unknown}`);
const figures = [];
for (const section of SECTIONS) {
  if (wanted !== undefined && !wanted.includes(section.name)) continue;
  const startMs = performance.now();
  const result = await runSection(section);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  console.log(`\n${section.title}  [${seconds} s]`);
  if (result === null) {
    console.log("broke: see above");
    process.exitCode = 1;
    continue;
  }
  for (const { title, reason, isOurs } of result.absent) {
    console.log(`not run: ${title}: ${reason}`);
    if (isOurs) process.exitCode = 1;
  }
  if (result.rows.length > 0) printTimes(result.rows, section.group === "pools");
  for (const table of result.tables) console.table(table);
  if (result.figures.length > 0) printFigures(result.figures);
  const times = figuresOfTimes(result.rows, section.group);
  figures.push(...times, ...result.tabledFigures, ...result.figures);
}

const byId = new Map(figures.map((figure) => [figure.id, figure]));
const derived = headline((id) => byId.get(id)?.value);
if (derived.length > 0) {
  console.log("\nHeadline");
  printFigures(derived);
}
figures.unshift(...derived);
for (const figure of derived) byId.set(figure.id, figure);
const promises = mustShow((id) => byId.get(id));
if (promises.judgedCount > 0) {
  console.log("\nWhat must be shown");
  console.table(promises.rows);
  console.log(`${promises.metCount} of ${promises.judgedCount} targets met`);
}
if (figures.some(({ id, met }) => id === "core/overlaps" && met === false)) process.exitCode = 1;

if (options.json !== undefined) writeFigures(options.json, figures);
if (options.svg !== undefined) writeFileSync(options.svg, plotOf(figures));
