// How long the caller's thread is held up while 64 MiB are demoted and come back, with coding workers and without.
// Contestants take turns round by round.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createTensorMemory } from "../../../dist/src/node.js";
import { printFeatures } from "../../features.mjs";
import { makeHead } from "../data/heads.mjs";
import { atLeast, median, plain } from "../timing.mjs";

const TENSOR_BYTES = 2 ** 24;
const TENSOR_COUNT = 4;
const CONTESTANTS = {
  raw: { default: "raw", workers: 0 },
  "in thread": { default: "lossless", workers: 0 },
  workers: { default: "lossless", workers: Math.min(4, Math.max(1, availableParallelism() - 1)) },
};
const NAMES = Object.keys(CONTESTANTS);
/** By how much workers shorten the longest block, at least. */
const SHORTER = 2;

/** Keys of a head, repeated, as f32 of 16 significant bits. */
function content() {
  const { keys } = makeHead("mid", 100, { queryCount: 64 });
  const words = new Uint32Array(keys.slice().buffer).map((word) => word & 0xffff0000);
  const bytes = new Uint8Array(words.buffer);
  return Uint8Array.from({ length: TENSOR_BYTES }, (_, index) => bytes[index % bytes.byteLength]);
}

/**
 * Runs work beside a timer that is due every millisecond: how late it comes at most is how long the thread was held up.
 *
 * @returns Milliseconds in all, of the longest block, and that the thread has computed.
 */
async function watched(work) {
  const delays = monitorEventLoopDelay({ resolution: 1 });
  const before = performance.eventLoopUtilization();
  const startMs = performance.now();
  delays.enable();
  await work();
  delays.disable();
  const allMs = performance.now() - startMs;
  const { active } = performance.eventLoopUtilization(before);
  return { allMs, blockMs: delays.max / 1e6, activeMs: active };
}

async function open(folder, name, bytes) {
  const memory = await createTensorMemory({
    profile: "generic",
    budgets: { ram: "192MiB", ssd: "1GiB" },
    ssd: { directory: join(folder, name.replace(" ", "-")) },
    codecs: CONTESTANTS[name],
  });
  const ids = Array.from({ length: TENSOR_COUNT }, (_, index) => `tensor ${index}`);
  const shape = [TENSOR_BYTES / 512, 128];
  for (const id of ids) {
    const pin = memory.allocate({ kind: "KV_CACHE", id, shape, dtype: "f32" }).pin();
    pin.bytes.set(bytes);
    pin[Symbol.dispose]();
  }
  const round = async () => {
    const out = await watched(async () => {
      for (const id of ids) await memory.swapOut(id);
    });
    const back = await watched(async () => {
      for (const id of ids) {
        const lease = await memory.acquire(id);
        lease.bytes[0] += 1;
        lease[Symbol.dispose]();
      }
    });
    return { out, back };
  };
  const isIntact = async () => {
    const lease = await memory.acquire(ids[0], { access: "read" });
    const isSame = Buffer.compare(lease.bytes.subarray(1), bytes.subarray(1)) === 0;
    lease[Symbol.dispose]();
    return isSame;
  };
  return { memory, round, isIntact };
}

export async function run({ isQuick }) {
  await mkdir("build", { recursive: true });
  const folder = await mkdtemp(join("build", "bench-workers-"));
  const bytes = content();
  const samples = Object.fromEntries(NAMES.map((name) => [name, []]));
  const table = {};
  const figures = [];
  try {
    const all = {};
    for (const name of NAMES) all[name] = await open(folder, name, bytes);
    const rounds = isQuick ? 5 : 15;
    for (let round = -1; round < rounds; round++) {
      for (const name of NAMES) {
        const sample = await all[name].round();
        if (round >= 0) samples[name].push(sample);
      }
    }
    for (const name of NAMES) {
      if (!(await all[name].isIntact())) throw new Error(`${name}: the tensor has changed`);
      const { codecWorkers } = all[name].memory.stats();
      if (name === "workers" && !(codecWorkers?.jobCount > 0)) throw new Error("no worker worked");
      const of = (part) => median(samples[name].map(part)).toFixed(1);
      table[name] = {
        "out ms": of(({ out }) => out.allMs),
        "longest block, out": of(({ out }) => out.blockMs),
        "thread active, out": of(({ out }) => out.activeMs),
        "back ms": of(({ back }) => back.allMs),
        "longest block, back": of(({ back }) => back.blockMs),
        "thread active, back": of(({ back }) => back.activeMs),
        "jobs of workers": codecWorkers?.jobCount ?? 0,
      };
      printFeatures(all[name].memory.stats(), name);
      await all[name].memory.close();
    }
    for (const part of ["out", "back"]) {
      const blocks = (name) => samples[name].map((each) => each[part].blockMs);
      const ratio = median(blocks("in thread").map((ms, round) => ms / blocks("workers")[round]));
      const beside = "64 MiB, lossless; in the caller's thread against workers";
      const active = (name) => samples[name].map((each) => each[part].activeMs);
      const id = `workers-shorten-longest-block/${part}`;
      figures.push(
        part === "out" ? atLeast(id, ratio, SHORTER, beside) : plain(id, ratio, "ratio", beside),
        plain(
          `workers-relieve-thread/${part}`,
          median(active("in thread").map((ms, round) => ms / active("workers")[round])),
          "ratio",
          "time that the caller's thread is busy",
        ),
        plain(`workers-longest-block-ms/${part}`, median(blocks("workers")), "ms"),
        plain(`in-thread-longest-block-ms/${part}`, median(blocks("in thread")), "ms"),
        plain(
          `workers-time-over-in-thread/${part}`,
          median(
            samples.workers.map(
              (each, round) => each[part].allMs / samples["in thread"][round][part].allMs,
            ),
          ),
          "ratio",
        ),
      );
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { figures, tables: [table] };
}
