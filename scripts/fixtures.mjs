// Counts what the tests hold of a kind that a figure is about: files that somebody else put into a store,
// single faults of the file system, records of earlier versions. Every one of them must pass.
//
//   node scripts/fixtures.mjs [--json FILE]
//
// Run it after `npm run build`. Fails when one fails, and when there are fewer than the target.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeFigures } from "../bench/support.mjs";
import { binary, runNode } from "./steps.mjs";

const { values } = parseArgs({ options: { json: { type: "string" } } });

/** Figures: id, unit, target, and the tests that count, by file and name. */
const ROWS = [
  [
    "fixtures/hostile-store",
    "fixtures",
    60,
    "store",
    /directory that others have written to (?!counts)/,
  ],
  ["fixtures/hostile-store-by-command", "fixtures", 60, "cli", /stops no command/],
  ["fixtures/single-faults", "kinds at every operation", 24, "fs-faults", /once|for-ever/],
  ["fixtures/record-damage", "tests", 10, "records", /corrupt|damage|length|incompatible|bit/],
  ["fixtures/golden-formats", "formats", 3, "(records|store)", /, for ever$/],
  ["fixtures/other-versions", "tests", 3, "(records|store|cli)", /version/],
];

const directory = mkdtempSync(join(tmpdir(), "tierheap-fixtures-"));
const file = join(directory, "report.json");
const files = ["store", "cli", "fs-faults", "records"].map((name) => `tests/node/${name}.test.ts`);
let tests;
try {
  const reporter = ["--reporter=json", `--outputFile=${file}`];
  const args = ["run", "--project", "node", ...files, ...reporter];
  await runNode(binary("vitest", "vitest.mjs"), args, { isQuiet: true });
  tests = JSON.parse(readFileSync(file, "utf8")).testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ fullName, status }) => ({ name, fullName, status })),
  );
} finally {
  rmSync(directory, { recursive: true, force: true });
}
const figures = [];
for (const [id, unit, target, suite, pattern] of ROWS) {
  const path = new RegExp(`/${suite}\\.test\\.ts$`);
  const found = tests.filter(({ name, fullName }) => path.test(name) && pattern.test(fullName));
  const failed = found.filter(({ status }) => status !== "passed");
  const met = failed.length === 0 && found.length >= target;
  figures.push({ id, value: found.length, unit, target, met, beside: `${failed.length} failed` });
  console.log(
    `${met ? "ok  " : "FAIL"}  ${id}  ${found.length} ${unit} (target ${target}), ${failed.length} failed`,
  );
  for (const { fullName } of failed.slice(0, 5)) console.log(`      failed: ${fullName}`);
}
if (values.json !== undefined) writeFigures(values.json, figures);
process.exitCode = figures.every(({ met }) => met) ? 0 : 1;
