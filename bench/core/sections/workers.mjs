// Two threads on one shared control plane beside two threads with a plane each that nobody shares, and
// one thread of each kind; and how often the threads met at the guard.
import { Worker } from "node:worker_threads";
import { BuddyAllocator } from "../../../dist/src/node.js";

const TOTAL_BYTES = 256 * 2 ** 20;
/** Activations and KV pages of the LLM trace. */
const SIZES = [2304, 768, 12_288, 6144, 2304, 18_432];
const LIVE_COUNT = 400;
const THREAD_COUNT = 2;
const RATIO_MIN = 0.8;

function once(worker) {
  return new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("message", (message) => {
      worker.off("error", reject);
      resolve(message);
    });
  });
}

function median(samples) {
  return samples.sort((left, right) => left - right)[Math.floor(samples.length / 2)];
}

/** Nanoseconds per pair and thread when `workers` run together. */
async function timed(workers, name, pairCount) {
  const gate = new SharedArrayBuffer(8);
  new Int32Array(gate)[1] = workers.length;
  const answers = workers.map(once);
  for (const worker of workers) worker.postMessage({ name, pairCount, gate });
  const milliseconds = Math.max(...(await Promise.all(answers)));
  return (milliseconds * 1e6) / pairCount;
}

export async function run({ isQuick }) {
  const buddy = await BuddyAllocator.create({ totalBytes: TOTAL_BYTES, shared: true });
  const script = new URL("../workers-thread.mjs", import.meta.url);
  const workers = Array.from({ length: THREAD_COUNT }, (_, index) => {
    const data = { totalBytes: TOTAL_BYTES, seed: index + 1, sizes: SIZES, liveCount: LIVE_COUNT };
    return new Worker(script, { workerData: { ...data, token: buddy.share() } });
  });
  await Promise.all(workers.map(once));
  const roundCount = isQuick ? 12 : 60;
  const pairCount = 20_000;
  const cases = [
    { id: "own-1", name: "own", threads: 1, samples: [] },
    { id: "shared-1", name: "shared", threads: 1, samples: [] },
    { id: "own-2", name: "own", threads: 2, samples: [] },
    { id: "shared-2", name: "shared", threads: 2, samples: [] },
  ];
  let lock = null;
  for (let round = -2; round < roundCount; round++) {
    for (const { name, threads, samples } of cases) {
      const before = buddy.lockStats();
      const ns = await timed(workers.slice(0, threads), name, pairCount);
      if (round < 0) continue;
      samples.push(ns);
      if (name === "shared" && threads === 2) lock = difference(lock, before, buddy.lockStats());
    }
  }
  await Promise.all(workers.map((worker) => worker.terminate()));

  const ns = Object.fromEntries(cases.map(({ id, samples }) => [id, median(samples)]));
  const ratio = ns["own-2"] / ns["shared-2"];
  const table = Object.fromEntries(
    cases.map(({ id, threads }) => [
      id,
      {
        "ns per pair and thread": Number(ns[id].toFixed(1)),
        "million pairs per second": Number(((threads * 1000) / ns[id]).toFixed(2)),
      },
    ]),
  );
  const share = (count) => count / Math.max(1, lock.enteredCount);
  const beside = `${ns["shared-2"].toFixed(1)} and ${ns["own-2"].toFixed(1)} ns per pair`;
  const figures = [
    {
      id: "core/workers-2-shared-over-own",
      value: ratio,
      unit: "ratio",
      target: RATIO_MIN,
      met: ratio >= RATIO_MIN,
      beside,
    },
    {
      id: "core/workers-1-shared-over-own",
      value: ns["own-1"] / ns["shared-1"],
      unit: "ratio",
      beside: `${ns["shared-1"].toFixed(1)} and ${ns["own-1"].toFixed(1)} ns per pair`,
    },
    {
      id: "core/workers-guard-contended",
      value: share(lock.contendedCount),
      unit: "of entries",
      beside: `${lock.enteredCount} entries, ${lock.refusedCount} waits`,
    },
    {
      id: "core/workers-guard-entries",
      value: lock.enteredCount / (roundCount * THREAD_COUNT * pairCount),
      unit: "per pair",
    },
  ];
  return { tables: [table], figures };
}

function difference(sum, before, after) {
  const names = ["enteredCount", "contendedCount", "refusedCount"];
  return Object.fromEntries(
    names.map((name) => [name, (sum?.[name] ?? 0) + after[name] - before[name]]),
  );
}
