// Opens every disk that a power cut may leave behind random work on a store, a million of them by
// default, cuts during the opening included; then proves that it would have noticed: every planted bug
// must be found.
//
//   node scripts/store-crashes.mjs [--states 1000000] [--seed N] [--json FILE]
//
// Fails on a violation, on fewer states than asked for, and on a planted bug that is not found.
import { parseArgs } from "node:util";
import { exploreCrashes, PLANTED_BUGS, runStoreWorkload } from "tierheap/testing";
import { writeFigures } from "../bench/support.mjs";

const { values } = parseArgs({
  options: { states: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const stateCountTarget = Number(values.states ?? 1_000_000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const NESTED_EVERY = 8;
const PLANTED_SEED_COUNT_MAX = 20;

console.log(`seed ${seed}`);
const startMs = performance.now();
let stateCount = 0;
let workloadCount = 0;
const violations = [];
while (stateCount < stateCountTarget && violations.length === 0) {
  const isDurable = workloadCount % 2 === 0;
  const workload = await runStoreWorkload({ seed: seed + workloadCount, stepCount: 48, isDurable });
  const stateCountMax = Math.min(20_000, stateCountTarget - stateCount);
  const report = await exploreCrashes(workload, { stateCountMax, nestedEvery: NESTED_EVERY });
  stateCount += report.stateCount;
  workloadCount += 1;
  for (const text of report.violations) {
    violations.push(`seed ${seed + workloadCount - 1}, durable ${isDurable}: ${text}`);
  }
  if (workloadCount % 20 === 0) console.log(`${stateCount} states, ${workloadCount} workloads`);
}
const seconds = (performance.now() - startMs) / 1000;
for (const text of violations.slice(0, 20)) console.log(`VIOLATION  ${text}`);

let foundCount = 0;
for (const [bug, decorate] of PLANTED_BUGS) {
  let violationCount = 0;
  let plantedStateCount = 0;
  for (let round = 0; round < PLANTED_SEED_COUNT_MAX && violationCount === 0; round++) {
    const options = { seed: seed + round, stepCount: 48, isDurable: true, decorate };
    const workload = await runStoreWorkload(options);
    const report = await exploreCrashes(workload, { stateCountMax: 5000, nestedEvery: 0 });
    violationCount += report.violations.length;
    plantedStateCount += report.stateCount;
  }
  if (violationCount > 0) foundCount += 1;
  console.log(`planted: ${bug}: ${violationCount} violations in ${plantedStateCount} states`);
}
console.log(
  `${stateCount} states of ${workloadCount} workloads in ${seconds.toFixed(0)} s, ` +
    `${violations.length} violations, ${foundCount} of ${PLANTED_BUGS.size} planted bugs found`,
);
if (values.json !== undefined) {
  const figures = [
    { id: "store/crash-states", value: stateCount, unit: "states", target: 1e6 },
    { id: "store/crash-violations", value: violations.length, unit: "violations", target: 0 },
    { id: "store/planted-bugs", value: foundCount, unit: "bugs", target: PLANTED_BUGS.size },
  ];
  for (const figure of figures) {
    figure.met = figure.target === 0 ? figure.value === 0 : figure.value >= figure.target;
  }
  writeFigures(values.json, figures, seed);
}
const isComplete = stateCount >= stateCountTarget && foundCount === PLANTED_BUGS.size;
process.exitCode = violations.length === 0 && isComplete ? 0 : 1;
