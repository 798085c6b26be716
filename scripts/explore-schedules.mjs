// Explores schedules of the shared core's lock and lanes: random ones, and systematically every way to
// leave short programs once or twice. Prints figures; fails on a violation, and when a planted bad
// lock is not found.
//
//   node scripts/explore-schedules.mjs [--schedules N] [--threads N] [--seed N] [--json FILE]
//
// Needs the build: node scripts/build.mjs
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { printFigures, writeFigures } from "../bench/support.mjs";

const { values } = parseArgs({
  options: {
    schedules: { type: "string", default: "10e6" },
    threads: { type: "string", default: String(Math.min(4, availableParallelism())) },
    seed: { type: "string" },
    json: { type: "string" },
  },
});
const scheduleCount = Number(values.schedules);
const threadCount = Number(values.threads);
const seed = Number(values.seed ?? process.env.TIERHEAP_SEED ?? 20240229);
/** Schedules after which a bad lock must have shown itself. */
const CANARY_SCHEDULES_MAX = 1000;

function exploreInThread(workerData) {
  return new Promise((resolve, reject) => {
    const script = new URL("../tests/schedules/thread.mjs", import.meta.url);
    const worker = new Worker(script, { workerData });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

const canary = await exploreInThread({
  isBroken: true,
  scheduleCount: CANARY_SCHEDULES_MAX,
  seed,
});
const share = Math.ceil(scheduleCount / threadCount);
const startMs = performance.now();
const parts = await Promise.all(
  Array.from({ length: threadCount }, (_, index) =>
    exploreInThread({ isBroken: false, scheduleCount: share, seed: seed + 1000 * index }),
  ),
);
const seconds = (performance.now() - startMs) / 1000;
const sum = (name) => parts.reduce((total, part) => total + part[name], 0);
const violations = parts.map(({ violation }) => violation).filter((each) => each !== null);
const explored = sum("schedules");
const isFound = canary.violation !== null;
/** A floor: without these the rest says little. */
const atLeast = (name, target) => ({
  id: `schedules/${name}`,
  value: sum(name),
  unit: name === "busy" ? "calls that found the guard taken" : "schedules",
  target,
  met: sum(name) >= target,
});
const figures = [
  {
    id: "schedules/explored",
    value: explored,
    unit: "schedules",
    target: scheduleCount,
    met: explored >= scheduleCount,
    beside: `${Math.round(explored / seconds)} per second`,
  },
  atLeast("systematic", 1000),
  atLeast("busy", scheduleCount / 100),
  {
    id: "schedules/violations",
    value: violations.length,
    unit: "violations",
    target: 0,
    met: violations.length === 0,
    beside: `${sum("calls")} calls`,
  },
  {
    id: "schedules/bad-lock-found-after",
    value: canary.schedules,
    unit: "schedules",
    target: CANARY_SCHEDULES_MAX,
    met: isFound,
    beside: canary.violation ?? "not found",
  },
];
console.log(`seed ${seed}`);
printFigures(figures);
for (const violation of violations) console.log(`FAIL ${violation}`);
for (const { id, met } of figures) console.log(`${met ? "ok  " : "FAIL"} ${id}`);
if (values.json !== undefined) writeFigures(values.json, figures, seed);
if (figures.some(({ met }) => !met)) process.exitCode = 1;
