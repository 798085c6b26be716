// Proofs by number: random operations on every build of the core against a model, and bad uses of
// handles; on request, whether the model notices one changed instruction. Prints figures; fails on a
// divergence, or when a figure is below its floor.
//
//   node scripts/proof.mjs [--only model|misuse|mutants] [--seed N] [--json FILE]
//     [--operations N] [--bad-uses N] [--mutants N]
//
// Needs the debug builds: node scripts/build.mjs --debug
import { parseArgs } from "node:util";
import { printFigures, writeFigures } from "../bench/support.mjs";
import { mutantsOf } from "../tests/proof/mutants.mjs";
import { attemptJobs, runJobs, sumOf } from "../tests/proof/workers.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    operations: { type: "string", default: "50e6" },
    "bad-uses": { type: "string", default: "10e6" },
    mutants: { type: "string", default: "100" },
    seed: { type: "string" },
    json: { type: "string" },
  },
});
const seed = Number(values.seed ?? process.env.TIERHEAP_SEED ?? 20240229);

/** Share of the operations that each build gets. */
const BUILD_SHARES = { core: 0.6, "core.shared": 0.2, "core.debug": 0.1, "core.debug.shared": 0.1 };
/** Share of the bad uses, by build and by what they go through. */
const MISUSE_SHARES = [
  ["core", "core", 0.5],
  ["core.shared", "core", 0.1],
  ["core.debug", "core", 0.05],
  ["core.debug.shared", "core", 0.05],
  ["core", "plane", 0.15],
  ["core", "buddy", 0.15],
];
const JOB_OPERATION_COUNT = 1_000_000;
const MUTANT_OPERATION_COUNT = 400_000;
const MUTANT_LIMIT_MS = 60_000;

/** Splits work into jobs with seeds of their own. */
function split(count, jobCountMax, options) {
  const jobCount = Math.max(1, Math.min(jobCountMax, Math.ceil(count / JOB_OPERATION_COUNT)));
  return Array.from({ length: jobCount }, (_, index) => ({
    ...options,
    count: Math.ceil(count / jobCount),
    index,
  }));
}

const atLeast = (id, value, target, unit, beside) => ({
  id: `proof/${id}`,
  value,
  unit,
  target,
  met: value >= target,
  beside,
});

async function proveModel(operationCount) {
  const jobs = Object.entries(BUILD_SHARES)
    .flatMap(([build, share]) => split(operationCount * share, Number.POSITIVE_INFINITY, { build }))
    .map(({ build, count }, index) => ({
      kind: "model",
      build,
      operationCount: count,
      seed: seed + index,
    }));
  const sums = sumOf(await runJobs(jobs));
  const exhausted = ((sums.noRoom + sums.noSlot) / sums.operations) * 100;
  const builds = `${jobs.length} jobs on ${Object.keys(BUILD_SHARES).length} builds`;
  const perMillion = operationCount / 1e6;
  return [
    atLeast("model-operations", sums.operations, operationCount, "operations", builds),
    atLeast("model-at-exhaustion", exhausted, 1, "%", `${sums.noSlot} for want of a slot`),
    atLeast("model-compactions", sums.plans, 20 * perMillion, "plans"),
    atLeast("model-moves", sums.moves, 200 * perMillion, "moves", `${sums.vetoes} more vetoed`),
    atLeast("model-moves-across", sums.crossed, 20 * perMillion, "moves into another arena"),
    atLeast("model-bad-uses", sums.bad, 10_000 * perMillion, "refusals"),
    atLeast("model-slots-retired", sums.retired, 20 * perMillion, "slots"),
    atLeast("model-resized", sums.resized, 5000 * perMillion, "blocks in place"),
    atLeast("model-recoveries", sums.recoveries, 10 * perMillion, "recoveries"),
    atLeast("model-allocations", sums.allocations, 100_000 * perMillion, "blocks"),
  ];
}

async function proveMisuse(badCount) {
  const jobs = MISUSE_SHARES.flatMap(([build, through, share], index) =>
    split(badCount * share, 4, { build, through, order: index }),
  ).map(({ build, through, order, count, index }) => ({
    kind: "misuse",
    build,
    through,
    badCount: count,
    seed: seed + 100 * order + index,
  }));
  const results = await runJobs(jobs);
  const total = (counts) => Object.values(counts).reduce((left, right) => left + right, 0);
  const through = (name) =>
    total(sumOf(results.filter((_, index) => jobs[index].through === name)));
  const kinds = sumOf(results);
  const [rarest] = Object.entries(kinds).sort(([, left], [, right]) => left - right);
  return [
    atLeast("bad-uses-refused", total(kinds), badCount, "bad uses", "all of them; nothing changed"),
    atLeast("bad-uses-core", through("core"), badCount * 0.6, "bad uses"),
    atLeast("bad-uses-control-plane", through("plane"), badCount * 0.1, "bad uses"),
    atLeast("bad-uses-buddy-allocator", through("buddy"), badCount * 0.1, "bad uses"),
    atLeast("bad-uses-rarest-kind", rarest[1], badCount / 200, "bad uses", rarest[0]),
  ];
}

async function proveMutants(count) {
  const mutants = await mutantsOf(seed, count);
  const jobs = mutants.map(({ bytes }) => ({
    kind: "mutant",
    build: "core",
    bytes,
    seed,
    operationCount: MUTANT_OPERATION_COUNT,
    episodeStepCountMax: MUTANT_OPERATION_COUNT / 25,
    shrinkTrialCount: 0,
  }));
  const answers = await attemptJobs(jobs, { limitMs: MUTANT_LIMIT_MS });
  const unnoticed = mutants.filter((_, index) => answers[index].failure === undefined);
  for (const { title } of unnoticed) console.log(`unnoticed: ${title}`);
  const noticed = ((mutants.length - unnoticed.length) / mutants.length) * 100;
  return [atLeast("mutants-noticed", noticed, 50, "%", `of ${mutants.length}`)];
}

/** A proof ends with its first divergence. */
const divergences = (name, value) => ({
  id: `proof/${name}-divergences`,
  value,
  unit: "divergences",
  target: 0,
  met: value === 0,
});

const PROOFS = {
  model: () => proveModel(Number(values.operations)),
  misuse: () => proveMisuse(Number(values["bad-uses"])),
  mutants: () => proveMutants(Number(values.mutants)),
};
const names = values.only === undefined ? ["model", "misuse"] : [values.only];
const figures = [];
console.log(`seed ${seed}`);
for (const name of names) {
  const startMs = performance.now();
  try {
    if (PROOFS[name] === undefined) throw new Error(`there is no proof ${name}`);
    const found = await PROOFS[name]();
    figures.push(divergences(name, 0), ...found);
  } catch (error) {
    console.log(`FAIL ${name}: ${error.message}`);
    figures.push(divergences(name, 1));
  }
  console.log(`${name}: ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}
printFigures(figures);
for (const { id, met } of figures) console.log(`${met ? "ok  " : "FAIL"} ${id}`);
if (figures.some(({ met }) => !met)) process.exitCode = 1;
if (values.json !== undefined) writeFigures(values.json, figures, seed);
