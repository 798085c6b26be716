// Keeps the figures that the documents show: takes them from the JSON that benches and harnesses write with
// --json, and fills the tables between `<!-- figures: PATTERN… -->` and `<!-- /figures -->`. So ids, units and
// targets are never typed by hand. Of each figure the last runs are kept, in docs/figures.
//
//   node scripts/figures.mjs --take FILE…   adds the figures of files, and fills
//   node scripts/figures.mjs                fills
//   node scripts/figures.mjs --check        fails when a table is not what would be filled in
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { root } from "./steps.mjs";

const FOLDER = join(root, "docs", "figures");
const DOCUMENTS = ["docs/performance.md", "docs/reliability.md"].map((path) => join(root, path));
/** Runs of a figure that are kept. */
const RUN_COUNT_MAX = 5;
const TABLE = /(<!-- figures: ([^\n]*?) -->\n)[\s\S]*?(<!-- \/figures -->)/g;
const BINARY_UNITS = ["B", "KiB", "MiB", "GiB"];

function formatNumber(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const text = Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
  return Number(text).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < BINARY_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${formatNumber(Number(value.toFixed(1)))} ${BINARY_UNITS[unit]}`;
}

function formatValue(value, unit) {
  if (unit === "bytes") return formatBytes(value);
  return unit === undefined || unit === "" ? formatNumber(value) : `${formatNumber(value)} ${unit}`;
}

/** The middle of the runs, and how far they lie apart. */
function seenText({ unit, runs }) {
  const values = runs.map(({ value }) => value).sort((left, right) => left - right);
  const middle = values[Math.floor((values.length - 1) / 2)];
  const text = formatValue(middle, unit);
  if (values[0] === values.at(-1)) return text;
  return `${text} (${formatValue(values[0], unit)} to ${formatValue(values.at(-1), unit)})`;
}

/** A figure says whether it meets its target, and so on which side of it the target lies. */
function targetText({ unit, target, runs }) {
  if (target === undefined || target === null) return "";
  const judged = runs.filter(({ met }) => met !== undefined);
  const isAtLeast = judged.some(({ value, met }) => (met ? value > target : value < target));
  const isAtMost = judged.some(({ value, met }) => (met ? value < target : value > target));
  const sign = isAtLeast === isAtMost ? "" : isAtLeast ? "≥ " : "≤ ";
  const missedCount = runs.filter(({ met }) => met === false).length;
  const missed = missedCount === 0 ? "" : `, missed in ${missedCount} of ${runs.length}`;
  return `${sign}${formatValue(target, unit)}${missed}`;
}

const cell = (text) => String(text).replaceAll("|", "\\|").replaceAll("\n", " ");

function tableOf(patterns, figures) {
  const tests = patterns.map((pattern) => {
    const parts = pattern.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(`^${parts.join(".*")}$`);
  });
  const rows = tests.flatMap((test) => figures.filter(({ id }) => test.test(id)));
  if (rows.length === 0) throw new Error(`no figure is called ${patterns.join(" ")}`);
  const lines = rows.map((figure) => {
    const { id, beside, runs } = figure;
    const note = typeof beside === "string" ? beside : "";
    return `| \`${cell(id)}\` | ${seenText(figure)} | ${targetText(figure)} | ${runs.length} | ${cell(note)} |`;
  });
  return ["| Figure | Seen | Target | Runs | |", "|---|---:|---:|---:|---|", ...lines, ""].join(
    "\n",
  );
}

/** The document with its tables filled in. @throws When a table names no figure that there is. */
export function fill(document, figures) {
  return document.replaceAll(
    TABLE,
    (_, head, patterns, tail) => `${head}${tableOf(patterns.split(/[ ,]+/), figures)}${tail}`,
  );
}

/** Adds a run to what is kept of each figure. */
export function take(kept, { environment, figures }) {
  const byId = new Map(kept.map((figure) => [figure.id, figure]));
  for (const { id, value, unit, target, met, beside } of figures) {
    if (typeof value !== "number" || !Number.isFinite(value)) continue;
    const runs = byId.get(id)?.runs ?? [];
    const run = { value, ...(met !== undefined && { met }) };
    byId.set(id, {
      ...{ id, unit, target, beside: typeof beside === "string" ? beside : undefined },
      node: environment?.node,
      runs: [...runs, run].slice(-RUN_COUNT_MAX),
    });
  }
  return [...byId.values()];
}

/** Everything that is kept, in the order in which it came. */
export function readFigures() {
  if (!existsSync(FOLDER)) return [];
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .flatMap((name) => JSON.parse(readFileSync(join(FOLDER, name), "utf8")));
}

/** One file for what comes from one bench or harness: the first part of the ids. */
function writeFigures(figures) {
  mkdirSync(FOLDER, { recursive: true });
  for (const [group, members] of groupsOf(figures)) {
    writeFileSync(join(FOLDER, `${group}.json`), `${JSON.stringify(members, null, 2)}\n`);
  }
}

function groupsOf(figures) {
  const groups = new Map();
  for (const figure of figures) {
    const [group] = figure.id.split("/");
    groups.set(group, [...(groups.get(group) ?? []), figure]);
  }
  return groups;
}

/** Paths of the documents that were not as they should be. */
function fillDocuments({ isCheck }) {
  const figures = readFigures();
  const stale = [];
  for (const path of DOCUMENTS) {
    const document = readFileSync(path, "utf8");
    const filled = fill(document, figures);
    if (filled === document) continue;
    stale.push(relative(root, path));
    if (!isCheck) writeFileSync(path, filled);
  }
  return stale;
}

function main() {
  const { values, positionals } = parseArgs({
    options: {
      take: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  if (values.take) {
    let figures = readFigures();
    for (const file of positionals) figures = take(figures, JSON.parse(readFileSync(file, "utf8")));
    writeFigures(figures);
  }
  const stale = fillDocuments({ isCheck: values.check });
  for (const path of stale) console.log(values.check ? `FAIL ${path} is stale` : `filled ${path}`);
  if (values.check && stale.length > 0) process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) main();
