// Kills workers at any instant while they and others work on one shared allocator, takes their lanes
// back, and verifies. Prints figures; fails on a hang, on damage, or below a floor.
//
//   node scripts/worker-deaths.mjs [--deaths N] [--seed N] [--json FILE]
//
// Needs the build: node scripts/build.mjs
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { printFigures, writeFigures } from "../bench/support.mjs";
import * as abi from "../dist/assembly/abi.js";
import { BuddyAllocator, TierError } from "../dist/src/node.js";

const { values } = parseArgs({
  options: {
    deaths: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const deathCount = Number(values.deaths);
const seed = Number(values.seed);
const TOTAL_BYTES = 16 * 2 ** 20;
/** Nothing may stand still for longer. */
const HANG_MS = 10_000;
const HELD_SHARE_MIN = 0.3;
const VICTIM_COUNT = 2;
/** Victims walk every invariant now and then: that is when most die with the guard. */
const VERIFY_SHARE = 0.15;

const script = new URL("../tests/workers/buddy-worker.mjs", import.meta.url);
const buddy = await BuddyAllocator.create({ totalBytes: TOTAL_BYTES, shared: true });
const stamps = new SharedArrayBuffer(4 * (TOTAL_BYTES / 64));
const owners = new Int32Array(stamps);

/** This thread never waits for the guard, so it asks again. */
async function share() {
  let token = null;
  const isShared = () => {
    try {
      token = buddy.share();
    } catch (error) {
      if (!(error instanceof TierError)) throw error;
    }
    return token !== null;
  };
  if ((await until(isShared)) === null) throw new Error("no lane is to be had");
  return token;
}

async function start(workerSeed, progress, verifyShare = VERIFY_SHARE) {
  const token = await share();
  const data = {
    token,
    seed: workerSeed,
    bytesMax: 60_000,
    stamps,
    progress,
    isEndless: true,
    verifyShare,
  };
  const worker = new Worker(script, { workerData: data });
  const ready = new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  return { worker, token, ready };
}

/** Waits at most HANG_MS for what `isDone` tells. @returns Milliseconds, or null: it hangs. */
async function until(isDone) {
  const startMs = performance.now();
  while (!isDone()) {
    if (performance.now() - startMs > HANG_MS) return null;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return performance.now() - startMs;
}

const guard = (token) =>
  Atomics.load(new Int32Array(token.memory.buffer), (token.base + abi.CONTROL_OFF_GUARD) / 4) &
  abi.GUARD_POISONED;

/** Damage that was found, or null; asked again while another worker holds the guard. */
async function verify() {
  let broken = null;
  const isAsked = () => {
    try {
      broken = buddy.verify();
      return true;
    } catch (error) {
      if (error instanceof TierError) return false;
      throw error;
    }
  };
  return (await until(isAsked)) === null ? "no answer" : broken;
}

const progress = new SharedArrayBuffer(4);
const meter = new Int32Array(progress);
const survivor = await start(seed, progress, 0);
let failure = null;
survivor.worker.once("error", (error) => {
  failure ??= `the survivor: ${error.message}`;
});
await survivor.ready;

const figures = { deaths: 0, held: 0, hangs: 0, broken: 0 };
const recoveryMs = [];
const victims = [];
while (victims.length < VICTIM_COUNT) victims.push(await start(seed + 1 + victims.length));
for (let death = 0; death < deathCount && failure === null; death++) {
  // The next ones start while this one is being killed.
  const { worker, token, ready } = victims.shift();
  victims.push(await start(seed + 100 + death));
  await ready;
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
  await worker.terminate();
  figures.deaths += 1;
  if (guard(token) === token.lane) figures.held += 1;
  // Its blocks are still its own, so nobody else stamps them.
  for (let unit = 0; unit < owners.length; unit++) {
    Atomics.compareExchange(owners, unit, token.lane, 0);
  }
  const ms = await until(() => buddy.releaseLane(token.lane));
  if (ms === null) figures.hangs += 1;
  else recoveryMs.push(ms);
  const before = Atomics.load(meter, 0);
  if ((await until(() => Atomics.load(meter, 0) !== before)) === null) figures.hangs += 1;
  if (death % 20 === 0 && (await verify()) !== null) figures.broken += 1;
}
await survivor.worker.terminate();
for (const { worker, token } of [survivor, ...victims]) {
  await worker.terminate();
  if ((await until(() => buddy.releaseLane(token.lane))) === null) figures.hangs += 1;
}
if ((await verify()) !== null || buddy.stats().liveCount !== 0) figures.broken += 1;

recoveryMs.sort((left, right) => left - right);
const p99 = recoveryMs[Math.floor(recoveryMs.length * 0.99)] ?? 0;
const heldMin = Math.floor(deathCount * HELD_SHARE_MIN);
const isHeld = figures.held >= heldMin;
const report = [
  {
    id: "deaths/count",
    value: figures.deaths,
    unit: "deaths",
    target: deathCount,
    met: figures.deaths === deathCount,
  },
  {
    id: "deaths/holding-guard",
    value: figures.held,
    unit: "deaths",
    target: heldMin,
    met: isHeld,
  },
  {
    id: "deaths/hangs",
    value: figures.hangs,
    unit: "hangs",
    target: 0,
    met: figures.hangs === 0,
  },
  {
    id: "deaths/damage",
    value: figures.broken,
    unit: "planes",
    target: 0,
    met: figures.broken === 0,
  },
  {
    id: "deaths/release-p99",
    value: p99,
    unit: "ms",
    target: 100,
    met: p99 <= 100,
    beside: `${recoveryMs.length} lanes`,
  },
];
printFigures(report);
if (failure !== null) console.error(failure);
if (values.json !== undefined) writeFigures(values.json, report, seed);
const isTime = ({ id }) => id === "deaths/release-p99";
process.exit(failure === null && report.every((figure) => figure.met || isTime(figure)) ? 0 : 1);
