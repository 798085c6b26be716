// What calibration is worth: the profile that was the default before there was any, frozen here, against
// `profile: "auto"` with a calibration of this machine, and against itself, which shows the noise. Run by
// `npm run bench:profiles`, or alone:
//
//   node --expose-gc bench/profiles.mjs [--only chats|spill|churn]... [--quick] [--rounds N] [--json FILE]
//
// Contestants take turns step by step, in an order drawn anew, so that a busy moment hits all alike; a round is the sum
// over all steps, a ratio the median over rounds of the frozen one's time by the other's. There is a block of
// rounds for every order of opening them, with memories of its own. By the clock, and by processor time, which
// counts all threads. Never fails on time.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createTensorMemory } from "tierheap";
import { xorshift } from "./core/random.mjs";
import { churn } from "./core/workloads.mjs";
import { median, report } from "./support.mjs";

const { values } = parseArgs({
  options: {
    json: { type: "string" },
    quick: { type: "boolean" },
    rounds: { type: "string" },
    only: { type: "string", multiple: true },
  },
});
const isQuick = values.quick === true;
const roundCount = Number(values.rounds ?? (isQuick ? 5 : 15));
const TARGET = 0.98;
const KIB = 1024;

/** As it was detected before there was calibration; a budget is given in any case. */
const FROZEN = {
  name: "frozen",
  granuleBytes: 64,
  arenaBytesMax: 2 ** 26,
  chunkBytes: 2 ** 20,
  queueDepth: 2,
  ramBudgetBytes: 2 ** 29,
  codecWorkerCount: Math.min(4, availableParallelism() - 1),
};
const CONTESTANTS = {
  frozen: { profile: FROZEN },
  again: { profile: FROZEN },
  auto: { profile: "auto", calibrate: true },
};
const NAMES = Object.keys(CONTESTANTS);

mkdirSync("build", { recursive: true });
const root = mkdtempSync(join("build", "bench-profiles-"));
const draw = xorshift(1);

/** bf16 values about as a KV cache has them. */
function kvBytes(byteLength) {
  const halves = new Uint16Array(byteLength / 2);
  const value = new Float32Array(1);
  const word = new Uint32Array(value.buffer);
  for (let index = 0; index < halves.length; index++) {
    value[0] = draw() + draw() + draw() - 1.5;
    halves[index] = word[0] / 65_536;
  }
  return new Uint8Array(halves.buffer);
}

const CONTENT = kvBytes(1024 * KIB);

function fill(memory, kind, id, byteLength) {
  const shape = [byteLength / 256, 128];
  const pin = memory.allocate({ kind, id, shape, dtype: "bf16" }).pin();
  pin.bytes.set(CONTENT.subarray(0, byteLength));
  pin[Symbol.dispose]();
}

/**
 * Turns of many chats on a heap that holds a fifth of them: a chat's KV is brought back, each step appends rows and
 * has activations of its own, and the KV of whoever speaks next is prefetched. What `npm start` asks of the heap,
 * without the model.
 */
async function openChats(memory) {
  const [chatCount, layerCount, stepCount] = [20, 8, 24];
  const kvBytesEach = 512 * KIB;
  const idsOf = (chat) =>
    Array.from({ length: layerCount }, (_, layer) => `chat ${chat} layer ${layer}`);
  for (let chat = 0; chat < chatCount; chat++) {
    for (const id of idsOf(chat)) {
      await memory.reserve({ kind: "KV_CACHE", bytes: kvBytesEach });
      fill(memory, "KV_CACHE", id, kvBytesEach);
    }
  }
  const visits = Array.from({ length: isQuick ? 10 : 20 }, () => Math.floor(chatCount * draw()));
  return visits.map((chat, at) => async () => {
    const leases = [];
    for (const id of idsOf(chat)) leases.push(await memory.acquire(id, { stream: "turn" }));
    const next = memory.prefetch(idsOf(visits[(at + 1) % visits.length]), { stream: "turn" });
    await memory.reserve({ kind: "ACTIVATIONS", bytes: layerCount * 24 * KIB });
    for (let step = 0; step < stepCount; step++) {
      const scope = memory.scope("step");
      for (let layer = 0; layer < layerCount; layer++) {
        scope
          .allocate({ kind: "ACTIVATIONS", byteLength: 24 * KIB })
          .pin()
          [Symbol.dispose]();
        leases[layer].bytes.fill(step, 256 * step, 256 * (step + 1));
      }
      scope[Symbol.dispose]();
    }
    for (const lease of leases) lease[Symbol.dispose]();
    await next;
  });
}

/** Four tensors at a time are swapped out, brought back and written to. */
async function openSpill(memory) {
  const byteLength = 1024 * KIB;
  const ids = Array.from({ length: 16 }, (_, index) => `tensor ${index}`);
  for (const id of ids) fill(memory, "KV_CACHE", id, byteLength);
  return [0, 4, 8, 12].map((first) => async () => {
    const four = ids.slice(first, first + 4);
    await Promise.all(four.map((id) => memory.swapOut(id)));
    const leases = await Promise.all(four.map((id) => memory.acquire(id)));
    for (const lease of leases) {
      lease.bytes[0] += 1;
      lease[Symbol.dispose]();
    }
  });
}

/** Bursts of frees and allocations of many sizes, all of which fit. */
async function openChurn(memory) {
  const { fillSizes, places, sizes } = churn({ liveCount: 2000, burstCount: 16 });
  const kind = "ACTIVATIONS";
  const live = Array.from(fillSizes, (byteLength) => memory.allocate({ kind, byteLength }));
  return Array.from({ length: 16 }, (_, burst) => async () => {
    for (let index = 512 * burst; index < 512 * (burst + 1); index++) {
      const place = places[index];
      live[place].free();
      live[place] = memory.allocate({ kind, byteLength: sizes[index] });
    }
  });
}

const WORKLOADS = {
  chats: { open: openChats, ram: "24MiB" },
  spill: { open: openSpill, ram: "32MiB" },
  churn: { open: openChurn, ram: "192MiB" },
};

function shuffled(names) {
  return names
    .map((name) => ({ name, rank: draw() }))
    .sort((left, right) => left.rank - right.rank)
    .map(({ name }) => name);
}

/** Every order: who is opened first is compiled, and placed in memory, otherwise than who follows. */
const ORDERS = NAMES.flatMap((first) =>
  NAMES.filter((name) => name !== first).map((second) => [
    first,
    second,
    ...NAMES.filter((name) => name !== first && name !== second),
  ]),
);

/** @returns What each round of a block took, by contestant; with memories of its own. */
async function runBlock({ open, ram }, order, directory, isMoving) {
  const memories = {};
  const steps = {};
  for (const name of order) {
    memories[name] = await createTensorMemory({
      ...{ ...CONTESTANTS[name], budgets: { ram, ssd: "1GiB" } },
      ssd: { directory: join(directory, name) },
    });
    steps[name] = await open(memories[name]);
  }
  const rounds = [];
  // The first rounds are not counted: code is compiled in them, and gates learn.
  for (let round = -2; round < roundCount; round++) {
    const times = Object.fromEntries(NAMES.map((name) => [name, { clock: 0, processor: 0 }]));
    for (const index of steps.frozen.keys()) {
      for (const name of shuffled(NAMES)) {
        const before = process.cpuUsage();
        const startMs = performance.now();
        await steps[name][index]();
        times[name].clock += performance.now() - startMs;
        const { user, system } = process.cpuUsage(before);
        times[name].processor += (user + system) / 1000;
      }
    }
    if (round >= 0) rounds.push(times);
    globalThis.gc?.();
  }
  const { profile, transfers } = memories.auto.stats();
  if (!profile.includes("calibrated")) throw new Error(`${profile} was not calibrated`);
  if (isMoving && transfers.swapInCount === 0) throw new Error("nothing was moved");
  for (const name of NAMES) await memories[name].close();
  rmSync(directory, { recursive: true, force: true });
  return rounds;
}

const figures = [];
try {
  for (const [workload, parts] of Object.entries(WORKLOADS)) {
    if (values.only !== undefined && !values.only.includes(workload)) continue;
    const rounds = [];
    for (const [block, order] of ORDERS.entries()) {
      const directory = join(root, `${workload}-${block}`);
      mkdirSync(directory);
      rounds.push(...(await runBlock(parts, order, directory, workload !== "churn")));
    }
    const over = (name, time) =>
      median(rounds.map((times) => times.frozen[time] / times[name][time]));
    const add = (id, value, unit, target, beside) =>
      figures.push({
        ...{ id: `profiles/${workload}/${id}`, value, unit },
        ...(target === undefined ? {} : { target, met: value >= target }),
        beside,
      });
    add("frozen", median(rounds.map(({ frozen }) => frozen.clock)), "ms");
    for (const [time, suffix] of [
      ["clock", ""],
      ["processor", "-by-processor-time"],
    ]) {
      add(`again-over-frozen${suffix}`, over("again", time), "ratio", undefined, "noise");
      const target = time === "clock" ? TARGET : undefined;
      add(`auto-over-frozen${suffix}`, over("auto", time), "ratio", target, "more than 1: faster");
    }
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}
report("profiles", figures);
