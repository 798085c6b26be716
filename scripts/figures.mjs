// Keeps the figures that the documents show: takes them from the JSON that benches and harnesses write with
// --json, and fills the tables between `<!-- figures: PATTERN… -->` and `<!-- /figures -->`. So ids, units and
// targets are never typed by hand. Of each figure that a table shows the last runs are kept, in docs/figures.
//
//   node scripts/figures.mjs                            fills
//   node scripts/figures.mjs --check                    fails when a table is not what would be filled in
//   node scripts/figures.mjs --list                     names what can be run
//   node scripts/figures.mjs --run timing|counts|proofs [--only NAME,NAME] [--trace FILE]… [--fresh]
//                                                       runs one after the other, takes and fills after each
//   node scripts/figures.mjs --take FILE… [--fresh]     adds the figures of files, and fills
//
// --fresh forgets earlier runs of what is taken. Needs the package built, with --debug for some proofs.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { commandOf, RUNS, runFigures } from "./figure-runs.mjs";
import { fill, shownIds, take } from "./figure-tables.mjs";
import { root } from "./steps.mjs";

const FOLDER = join(root, "docs", "figures");
const DOCUMENTS = ["docs/performance.md", "docs/reliability.md"].map((path) => join(root, path));

/** Everything that is kept, in the order in which it came. */
export function readFigures() {
  if (!existsSync(FOLDER)) return [];
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .flatMap((name) => JSON.parse(readFileSync(join(FOLDER, name), "utf8")));
}

/** One file for each first part of the ids. */
function writeKept(figures) {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  const groups = new Map();
  for (const figure of figures) {
    const [group] = figure.id.split("/");
    groups.set(group, [...(groups.get(group) ?? []), figure]);
  }
  for (const [group, members] of groups) {
    writeFileSync(join(FOLDER, `${group}.json`), `${JSON.stringify(members, null, 2)}\n`);
  }
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

/** Adds a file's figures to what is kept, as far as a table shows them. @returns How many it added. */
function takeFile(file, isFresh) {
  const report = JSON.parse(readFileSync(file, "utf8"));
  const isShown = shownIds(DOCUMENTS.map((path) => readFileSync(path, "utf8")));
  const figures = report.figures.filter(({ id }) => isShown(id));
  const run = RUNS.find(({ name }) => name === basename(file, ".json"));
  const command = report.command ?? (run && commandOf(run));
  const kept = take(readFigures(), { ...report, command, figures }, { isFresh });
  // What no table shows any more is forgotten.
  writeKept(kept.filter(({ id }) => isShown(id)));
  return figures.length;
}

async function runGroup({ run: group, only, trace = [], fresh: isFresh }) {
  const names = only?.split(",");
  const chosen = RUNS.filter(
    (each) => each.group === group && (names?.includes(each.name) ?? true),
  );
  if (chosen.length === 0) throw new Error(`there is nothing to run as ${group} ${only ?? ""}`);
  const lines = [];
  for (const run of chosen) {
    console.log(`\n--- ${run.name}`);
    const { code, seconds, file } = await runFigures(run, trace);
    let text = "wrote no figures";
    try {
      if (file !== null) text = `${takeFile(file, isFresh)} figures`;
      fillDocuments({ isCheck: false });
    } catch (error) {
      text = error.message;
    }
    lines.push(`${code === 0 ? "ok  " : "FAIL"} ${run.name}  ${seconds.toFixed(0)} s, ${text}`);
    if (code !== 0) process.exitCode = 1;
  }
  console.log(`\n${lines.join("\n")}`);
}

async function main() {
  const { values, positionals } = parseArgs({
    options: {
      ...{ take: { type: "boolean" }, check: { type: "boolean" }, list: { type: "boolean" } },
      ...{ run: { type: "string" }, only: { type: "string" }, fresh: { type: "boolean" } },
      trace: { type: "string", multiple: true },
    },
    allowPositionals: true,
  });
  if (values.list) {
    for (const { group, name, program, args } of RUNS) {
      console.log(`${group.padEnd(7)} ${name.padEnd(13)} ${program} ${args.join(" ")}`);
    }
    return;
  }
  if (values.run !== undefined) await runGroup(values);
  if (values.take) for (const file of positionals) takeFile(file, values.fresh);
  const stale = fillDocuments({ isCheck: values.check });
  for (const path of stale) console.log(values.check ? `FAIL ${path} is stale` : `filled ${path}`);
  if (values.check && stale.length > 0) process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
