// Mixed chats for a long time, with the statistics on: after each session everything that was taken must be
// given back exactly: bytes, handles, files, descriptors, timers.
//
//   node scripts/soak.mjs [--minutes 60] [--seed N] [--json FILE]
//
// A session opens a memory with tiers in directories of its own, works, gives everything up, and closes. The
// first session is the measure of what a quiet process has; it is not counted.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createTensorMemory, formatBytes, formatTable } from "tierheap";
import { seededRandom, statsProblems } from "tierheap/testing";
import { printFigures, writeFigures } from "../bench/support.mjs";
import { nodeFileSystem } from "../dist/src/tier/file-system-node.js";
import { FsTier } from "../dist/src/tier/fs.js";
import { SoakSession } from "./soak-session.mjs";

const { values } = parseArgs({
  options: { minutes: { type: "string" }, seed: { type: "string" }, json: { type: "string" } },
});
const minutes = Number(values.minutes ?? 60);
if (!(minutes > 0)) throw new Error("--minutes is above 0");
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
console.log(`${minutes} minutes, seed ${seed}`);
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");
const random = seededRandom(seed);
const durationMs = minutes * 60_000;
/** Sessions that a run should have, at most so long each. */
const SESSION_COUNT = 6;
const SESSION_MS_MAX = 60_000;
const sessionMs = Math.min(SESSION_MS_MAX, durationMs / SESSION_COUNT);

const BUDGETS = [
  { ram: "24MiB", warm: "4MiB", ssd: "64MiB", hdd: "256MiB" },
  { ram: "16MiB", ssd: "256MiB" },
];

/** What the system knows of this process. */
function footprint() {
  const open = process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0;
  const resources = process.getActiveResourcesInfo();
  const timers = resources.filter((name) => ["Timeout", "Immediate"].includes(name)).length;
  const others = resources.length - timers;
  return { descriptors: open, timers, resources: others };
}

const filesIn = (directory) =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((each) => each.isFile())
    // A lock is numbered by its openings.
    .map(({ name }) => name.replace(/^lock\.\d+$/, "lock"))
    .sort();

async function clean(directory) {
  const tier = new FsTier({ directory, fileSystem: nodeFileSystem });
  await tier.open();
  await tier.clean();
  await tier.close();
}

async function quiet() {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 5));
  collect();
  await new Promise((resolve) => setTimeout(resolve, 20));
}

/** @returns What was left that should not be, one line each. */
async function session(number, lengthMs) {
  const root = mkdtempSync(join(tmpdir(), "tierheap-soak-"));
  const left = [];
  const compare = (name, actual, expected) => {
    if (actual !== expected) left.push(`session ${number}: ${name} ${actual}, not ${expected}`);
  };
  try {
    const memory = await createTensorMemory({
      budgets: BUDGETS[number % BUDGETS.length],
      ssd: { directory: join(root, "ssd") },
      hdd: { directory: join(root, "hdd") },
      codecs: { colder: "smaller" },
      statistics: "full",
    });
    const before = memory.stats();
    const filesBefore = filesIn(root).join(" ");
    const work = new SoakSession(memory, random);
    const endMs = performance.now() + lengthMs;
    while (performance.now() < endMs) await work.step();
    await work.end();
    memory.trim();
    await quiet();
    for (let round = 0; round < 50 && memory.stats().budget.byCategory.retired > 0; round++) {
      await quiet();
    }
    memory.trim();
    await quiet();
    const after = memory.stats();
    for (const category of Object.keys(before.budget.byCategory)) {
      const [was, is] = [before, after].map(({ budget }) => budget.byCategory[category]);
      compare(`bytes of ${category}`, is, was);
    }
    compare("tensors", after.tensors.count, 0);
    compare("hot bytes", after.tensors.hotBytes, 0);
    for (const { kind, liveCount, pinnedCount } of after.pools) {
      compare(`blocks of ${kind}`, liveCount, 0);
      compare(`pins of ${kind}`, pinnedCount, 0);
    }
    for (const { name, storedBytes, objectCount } of after.tiers.slice(1)) {
      compare(`bytes in ${name}`, storedBytes, 0);
      compare(`objects in ${name}`, objectCount, 0);
    }
    left.push(...statsProblems(after), ...memory.verify().problems);
    await memory.close();
    // What a store keeps of deleted objects until it needs their room.
    for (const name of readdirSync(root)) await clean(join(root, name));
    // As of stores that nothing was ever written to.
    compare("files of the stores", filesIn(root).join(" "), filesBefore);
    return { left, counts: work.counts, stats: after };
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

await session(0, Math.min(5_000, sessionMs));
await session(1, Math.min(5_000, sessionMs));
await quiet();
const baseline = footprint();
const temporaryBefore = readdirSync(tmpdir()).filter((name) => name.startsWith("tierheap-soak-"));
const startMs = performance.now();
const left = [];
const sum = {};
const peaks = { rss: 0, heapUsed: 0 };
let sessionCount = 0;
let last = null;
while (performance.now() - startMs < durationMs) {
  const result = await session(sessionCount, sessionMs);
  last = result;
  sessionCount += 1;
  left.push(...result.left);
  for (const [name, count] of Object.entries(result.counts)) sum[name] = (sum[name] ?? 0) + count;
  await quiet();
  for (const [name, count] of Object.entries(footprint())) {
    if (count !== baseline[name])
      left.push(`after session: ${name} ${count}, not ${baseline[name]}`);
  }
  const { rss, heapUsed } = process.memoryUsage();
  peaks.rss = Math.max(peaks.rss, rss);
  peaks.heapUsed = Math.max(peaks.heapUsed, heapUsed);
  const minute = ((performance.now() - startMs) / 60_000).toFixed(1);
  console.log(
    `${minute} min: ${sum.steps} steps, ${sum.visits} turns of chats, heap ${formatBytes(heapUsed)}, resident ${formatBytes(rss)}, ${left.length} left`,
  );
}
const temporaryAfter = readdirSync(tmpdir()).filter((name) => name.startsWith("tierheap-soak-"));
if (temporaryAfter.length > temporaryBefore.length) left.push("temporary directories are left");

if (last !== null) {
  const { latencies } = last.stats;
  console.log(
    formatTable([
      ["latency", "count", "median", "p99", "longest"],
      ...latencies.map(({ name, count, p50Ms, p99Ms, mostMs }) => [
        name,
        `${count}`,
        ...[p50Ms, p99Ms, mostMs].map((each) => `${each.toFixed(3)} ms`),
      ]),
    ]),
  );
}
const figures = [
  { id: "soak/sessions", value: sessionCount, unit: "sessions", target: 2, met: sessionCount >= 2 },
  { id: "soak/steps", value: sum.steps, unit: "steps", target: 100, met: sum.steps >= 100 },
  { id: "soak/chat-turns", value: sum.visits, unit: "turns", target: 20, met: sum.visits >= 20 },
  { id: "soak/wrong-bytes", value: sum.wrong, unit: "reads", target: 0, met: sum.wrong === 0 },
  { id: "soak/lost", value: sum.lost, unit: "tensors", target: 0, met: sum.lost === 0 },
  { id: "soak/left-behind", value: left.length, unit: "things", target: 0, met: left.length === 0 },
  { id: "soak/refused", value: sum.refused, unit: "steps" },
  { id: "soak/resident-peak", value: peaks.rss, unit: "bytes" },
];
printFigures(figures);
for (const line of left.slice(0, 20)) console.log(`left behind: ${line}`);
if (values.json !== undefined) writeFigures(values.json, figures, seed);
process.exitCode = figures.every(({ met }) => met !== false) ? 0 : 1;
