// Takes an allocation trace through a real memory: every tensor has a block, is stamped when it is made, and
// is looked at whenever the trace uses it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../dist/src/clock.js";
import { createTensorMemory } from "../../dist/src/node.js";
import { ALLOCATE, FREE, TURN } from "./traces.mjs";

const GIB = 2 ** 30;
/** Operations after which the event loop gets a millisecond, as it does while a runtime computes. */
const YIELD_STRIDE = 32;

/** Bytes that become live between two looks at how many are: to look at all counters takes long. */
const LOOK_BYTES = 2 ** 19;

/** Short arenas, so that what is taken from the machine follows what is in use. */
const PROFILE = {
  name: "short-arenas",
  granuleBytes: 64,
  arenaBytesMax: 2 ** 21,
  chunkBytes: 2 ** 18,
  queueDepth: 4,
  ramBudgetBytes: GIB,
  codecWorkerCount: 0,
};

const fixedBytesOf = ({ byCategory }) => byCategory.control + byCategory.staging;

/** The budget of which tensors get so many bytes: its own bookkeeping grows with it. */
export async function ramFor(arenaBytes) {
  const directory = mkdtempSync(join(tmpdir(), "tierheap-lifetimes-"));
  let ram = Math.ceil(arenaBytes);
  for (let round = 0; round < 4; round++) {
    const memory = await createTensorMemory({
      profile: PROFILE,
      budgets: { ram, ssd: 8 * GIB },
      ssd: { directory },
      codecs: { default: "raw" },
    });
    ram = Math.ceil(arenaBytes) + fixedBytesOf(memory.stats().budget);
    await memory.close();
  }
  rmSync(directory, { recursive: true, force: true });
  return ram;
}

/**
 * @param options.ram Bytes of the budget.
 * @param options.lifetimes As the memory's option.
 * @returns Peaks in bytes, and what it cost: tensors that were not there when they were used, times that an
 *   allocation had to wait, tensors that were gone or had other bytes.
 */
export async function replay(trace, options) {
  const directory = mkdtempSync(join(tmpdir(), "tierheap-lifetimes-"));
  let traceMs = 0;
  const clock = { ...systemClock, monotonicMs: () => traceMs };
  const memory = await createTensorMemory({
    profile: PROFILE,
    budgets: { ram: options.ram, ssd: 8 * GIB },
    ssd: { directory },
    codecs: { default: "raw" },
    lifetimes: options.lifetimes,
    ...(options.watermarks && { watermarks: options.watermarks }),
    seams: { clock },
  });
  const counts = { lookups: 0, misses: 0, lost: 0, waits: 0, liveBytesPeak: 0 };
  let freshBytes = 0;
  const noteLive = (bytes) => {
    freshBytes += bytes;
    if (freshBytes < LOOK_BYTES) return;
    freshBytes = 0;
    const { hotBytes } = memory.stats().transfers;
    counts.liveBytesPeak = Math.max(counts.liveBytesPeak, hotBytes);
  };
  const allocate = async (number) => {
    const { kind, site, bytes: byteLength } = trace.tensors[number];
    const request = { kind, site, byteLength, id: `t${number}` };
    let tensor = memory.tryAllocate(request);
    if (tensor === null) {
      counts.waits += 1;
      await memory.reserve({ kind, bytes: byteLength });
      tensor = memory.allocate(request);
    }
    const pin = tensor.pin();
    stampOf(pin)[0] = number;
    pin[Symbol.dispose]();
    noteLive(byteLength);
  };
  const use = async (number) => {
    const id = `t${number}`;
    counts.lookups += 1;
    let pin = memory.tryAcquire(id, { access: "read" });
    if (pin === null) {
      counts.misses += 1;
      pin = await memory.acquire(id, { access: "read" });
      noteLive(trace.tensors[number].bytes);
    }
    if (pin === null || stampOf(pin)[0] !== number) counts.lost += 1;
    pin?.[Symbol.dispose]();
  };
  try {
    for (const [index, code] of trace.codes.entries()) {
      traceMs = trace.times[index];
      const number = trace.numbers[index];
      if (code === ALLOCATE) await allocate(number);
      else if (code === FREE) memory.free(`t${number}`);
      else if (code !== TURN) await use(number);
      if (code === TURN || index % YIELD_STRIDE === 0) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
    const stats = memory.stats();
    const { isSound } = memory.verify();
    // What was forgotten is still there, wherever.
    for (const [number] of trace.tensors.entries()) {
      const lease = await memory.acquire(`t${number}`, { access: "read" });
      if (lease === null) continue;
      if (stampOf(lease)[0] !== number) counts.lost += 1;
      lease[Symbol.dispose]();
      memory.free(`t${number}`);
    }
    return {
      ...counts,
      isSound,
      arenaBytesPeak: stats.budget.usedBytesPeak - fixedBytesOf(stats.budget),
      lifetimes: stats.lifetimes,
      bytesWritten: stats.tier.bytesWritten,
    };
  } finally {
    await memory.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The first bytes of a tensor, which say whose they are; the shortest has 24. */
function stampOf({ view }) {
  return new Uint32Array(view.buffer, view.byteOffset, 1);
}
