// Runs histories of put, get, evict, promote and delete by several clients on one memory, half of them on
// files that fail, and asks of each whether it could have happened one operation after the other. Then
// 1,000 clients get one cold tensor at once, and every planted bug must be found.
//
//   node scripts/histories.mjs [--histories 100000] [--seed N] [--json FILE]
//
// Fails on a history that cannot have happened, when too little overlapped, failed or was evicted, on more
// than one load, and on a planted bug that is not found.
import { parseArgs } from "node:util";
import { createTensorMemory } from "tierheap";
import { PLANTED_HISTORY_BUGS, runHistories, runJoinedGets } from "tierheap/testing";
import { writeFigures } from "../bench/support.mjs";

const { values } = parseArgs({
  options: { histories: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const historyCount = Number(values.histories ?? 100_000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const PART_COUNT = 10_000;
const PLANTED_HISTORY_COUNT_MAX = 2000;
const JOIN_COUNT = 1000;

console.log(`seed ${seed}`);
const figures = [];
const add = (id, value, unit, target, met) => {
  figures.push({ id, value, unit, target, met });
  console.log(`${met ? "ok  " : "FAIL"}  ${id}  ${value} ${unit} (target ${target})`);
};
const startMs = performance.now();
const sums = { operationCount: 0, overlapCount: 0, faultCount: 0, failedCount: 0 };
Object.assign(sums, { evictionCount: 0, loadCount: 0 });
const violations = [];
for (let first = 0; first < historyCount; first += PART_COUNT) {
  const count = Math.min(PART_COUNT, historyCount - first);
  const options = { seed: seed + first, historyCount: count, createMemory: createTensorMemory };
  const report = await runHistories(options);
  for (const name of Object.keys(sums)) sums[name] += report[name];
  violations.push(...report.violations);
  console.log(`${first + count} histories, ${JSON.stringify(sums)}`);
}
const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
for (const text of violations.slice(0, 10)) console.log(`VIOLATION  ${text}`);

let foundCount = 0;
for (const [bug, plant] of PLANTED_HISTORY_BUGS) {
  const planted = plant();
  const createMemory = async (options) => planted.decorate(await createTensorMemory(options));
  let violationCount = 0;
  let plantedCount = 0;
  try {
    while (violationCount === 0 && plantedCount < PLANTED_HISTORY_COUNT_MAX) {
      const options = { seed: seed + plantedCount, historyCount: 100, createMemory };
      violationCount += (await runHistories(options)).violations.length;
      plantedCount += 100;
    }
  } finally {
    planted.remove();
  }
  if (violationCount > 0) foundCount += 1;
  console.log(`planted: ${bug}: ${violationCount} findings in ${plantedCount} histories`);
}

const joined = await runJoinedGets({
  seed,
  getCount: JOIN_COUNT,
  createMemory: createTensorMemory,
});
console.log(`${historyCount} histories in ${seconds} s`);
add("histories/count", historyCount, "histories", 100_000, historyCount >= 100_000);
add("histories/not-linearizable", violations.length, "histories", 0, violations.length === 0);
const floor = (id, value, unit, least) =>
  add(`histories/${id}`, value, unit, least, value >= least);
floor("overlaps", sums.overlapCount, "pairs", historyCount);
floor("faults", sums.faultCount, "operations", historyCount / 10);
floor("evictions", sums.evictionCount, "tensors", historyCount);
add(
  "histories/planted-bugs",
  foundCount,
  "bugs",
  PLANTED_HISTORY_BUGS.size,
  foundCount === PLANTED_HISTORY_BUGS.size,
);
add("histories/loads-of-1000-gets", joined.loadCount, "loads", 1, joined.loadCount === 1);
const { wrongCount } = joined;
add("histories/wrong-of-1000-gets", wrongCount, "gets", 0, wrongCount === 0);
if (values.json !== undefined) writeFigures(values.json, figures, seed);
// A shorter run than asked of it by the target is sound, but proves less.
process.exitCode = figures.slice(1).every(({ met }) => met) ? 0 : 1;
