// A decode step with delta rows beside the runtime's own KV fed straight back, on both CPU runtimes;
// what caches in pages find of a trace of chats, and never find; what layouts keep and lose.
//
//   node bench/kv/run.mjs [--json FILE] [--quick]
//                         [--only prefixes|names|restore|step|growing|layouts|webgpu]…
//                         [--trace FILE] [--runtime node|wasm] [--threads N] [--cpu]
//
// Never fails on a target. Ratios are of medians from one run; the machine's noise is in both.
import { parseArgs } from "node:util";
import { createTensorMemory } from "../../dist/src/node.js";
import { printFeatures } from "../features.mjs";
import { median, printFigures, writeFigures } from "../support.mjs";
import { BareModel, fillTo, openDelta, RUNTIMES, TOKEN_BYTES } from "./chats.mjs";
import { runLayouts } from "./layouts.mjs";
import { runNames, runPrefixes } from "./prefixes.mjs";
import { runRestore } from "./restore.mjs";

const { values: options } = parseArgs({
  options: {
    json: { type: "string" },
    quick: { type: "boolean" },
    only: { type: "string", multiple: true },
    runtime: { type: "string" },
    // Chats to replay, in the format of docs/traces.md.
    trace: { type: "string" },
    // Of the runtime; its own choice by default. On a machine that is busy, 1 says more.
    threads: { type: "string" },
    // Processor time of the whole process in place of the clock's, for the same reason: with --threads 1.
    cpu: { type: "boolean" },
  },
});
const isQuick = options.quick === true;
const KV_BYTES = (isQuick ? 12 : 48) * 2 ** 20;
/** Of the whole cache; steps are timed just below it. */
const CAPACITY = KV_BYTES / TOKEN_BYTES;
const SAMPLES = isQuick ? 9 : 21;
const WARM_UP = 3;
/** Timed steps of one chat must not run over the capacity. */
const USED = CAPACITY - 2 * (SAMPLES + WARM_UP) - 2;
const POSITIONS = CAPACITY + 64;
const TARGETS = { step: 2, neverSlower: 1, created: 0 };

const figures = [];
const figure = (id, value, unit, target, isMet, beside) =>
  figures.push({
    id,
    value,
    unit,
    ...(target === undefined ? {} : { target, met: isMet }),
    beside,
  });

async function timed(work) {
  if (options.cpu === true) {
    const start = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  }
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Steps of every contestant, in turns and then each alone: [interleaved, alone] by name, in ms. */
async function race(contestants) {
  const interleaved = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
  const alone = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
  for (let count = -WARM_UP; count < SAMPLES; count++) {
    // In both orders, so that nobody always follows the same other.
    const order = Object.keys(contestants);
    if (count % 2 !== 0) order.reverse();
    for (const name of order) {
      const ms = await timed(() => contestants[name].step([count & 127]));
      if (count >= 0) interleaved[name].push(ms);
    }
  }
  for (const name of Object.keys(contestants)) {
    for (let count = -WARM_UP; count < SAMPLES; count++) {
      const ms = await timed(() => contestants[name].step([count & 127]));
      if (count >= 0) alone[name].push(ms);
    }
  }
  const medians = (samples) =>
    Object.fromEntries(Object.entries(samples).map(([name, each]) => [name, median(each)]));
  return { interleaved: medians(interleaved), alone: medians(alone) };
}

async function withModels({ runtime, style, pageTokens }, work) {
  const { load, sessionOptions: own } = RUNTIMES[runtime];
  const ort = await load();
  const threads =
    options.threads === undefined ? {} : { intraOpNumThreads: Number(options.threads) };
  const sessionOptions = { ...own, ...threads };
  if (options.threads !== undefined) ort.env.wasm.numThreads = Number(options.threads);
  const memory = await createTensorMemory({ budgets: { ram: 4 * KV_BYTES + 64 * 2 ** 20 } });
  const shared = { ort, sessionOptions, style, positions: POSITIONS };
  const bare = await BareModel.open({ ...shared, capacityTokens: CAPACITY });
  const delta = await openDelta({ ...shared, memory, pageTokens });
  try {
    return await work({ bare, delta, memory });
  } finally {
    await delta.decoder.close();
    await bare.release();
    printFeatures(memory.stats());
    await memory.close();
  }
}

async function runStep(runtime) {
  const rows = [];
  for (const style of ["concat", "gqa"]) {
    await withModels({ runtime, style }, async ({ bare, delta, memory }) => {
      const chat = delta.chat();
      const plain = bare.plainChat();
      await fillTo(chat, USED);
      await fillTo(plain, USED);
      const floor = bare.floor(style === "gqa" ? CAPACITY : USED, USED);
      // What is about to be timed must be the same computation.
      const [one, other] = [await chat.step([7]), (await plain.step([7])).data];
      const gap = Math.max(...one.map((value, index) => Math.abs(value - other[index])));
      if (!(gap < 1e-2)) throw new Error(`the contestants' logits differ by ${gap}`);
      const before = { made: delta.decoder.stats().madeCount, grown: chat.cache.growCount };
      const arenasBefore = memory.stats().arenas;
      const results = await race({ plain, delta: chat, floor });
      const grown = chat.cache.growCount - before.grown;
      const made = delta.decoder.stats().madeCount - before.made;
      for (const [order, ms] of Object.entries(results)) {
        const speedup = ms.plain / ms.delta;
        const id = `kv/step-${style}-${runtime}-${order}`;
        const beside = `plain ${ms.plain.toFixed(1)}, delta ${ms.delta.toFixed(1)}, logits only ${ms.floor.toFixed(1)} ms`;
        figure(id, speedup, "ratio", TARGETS.step, speedup >= TARGETS.step, beside);
        rows.push({ style, runtime, order, ...ms, speedup, overFloor: ms.delta / ms.floor });
      }
      const arenas = JSON.stringify(memory.stats().arenas) === JSON.stringify(arenasBefore);
      const created = (grown === 0 ? made : 0) + (arenas ? 0 : 1);
      const note =
        grown === 0 ? "runtime tensors, views and arenas" : `the cache grew ${grown} times`;
      const id = `kv/created-per-step-${style}-${runtime}`;
      figure(id, created, "objects", TARGETS.created, created === 0, note);
      chat.cache.free();
    });
  }
  console.log(
    `\nstep: one token at ${USED} of ${CAPACITY} tokens, ${KV_BYTES >> 20} MiB of KV, ms`,
  );
  console.table(rows);
}

/** A chat that gets longer: what a step costs by the tokens used, against a cache of full capacity. */
async function runGrowing(runtime) {
  const rows = [];
  for (const style of ["concat", "gqa"]) {
    const lengths = [16, 64, 256, 768, 1536, 3000].filter((length) => length < USED);
    const full = await withModels({ runtime, style, pageTokens: CAPACITY }, async ({ delta }) => {
      const chat = delta.chat();
      const found = [];
      for (const length of lengths) {
        await fillTo(chat, length);
        found.push((await race({ full: chat })).interleaved.full);
      }
      chat.cache.free();
      return found;
    });
    await withModels({ runtime, style }, async ({ bare, delta }) => {
      const chat = delta.chat();
      const plain = bare.plainChat();
      for (const [index, length] of lengths.entries()) {
        await fillTo(chat, length);
        await fillTo(plain, length);
        const { interleaved } = await race({ plain, delta: chat });
        const speedup = interleaved.plain / interleaved.delta;
        const capacity = chat.cache.capacityTokens;
        rows.push({ style, runtime, length, capacity, ...interleaved, full: full[index], speedup });
      }
      chat.cache.free();
    });
    const own = rows.filter((row) => row.style === style);
    const lowest = own.reduce((one, other) => (one.speedup < other.speedup ? one : other));
    const isMet = lowest.speedup >= TARGETS.neverSlower;
    const at = `at ${lowest.length} tokens`;
    const id = `kv/lowest-speedup-${style}-${runtime}`;
    figure(id, lowest.speedup, "ratio", TARGETS.neverSlower, isMet, at);
    const [first, last] = [own[0], own[own.length - 1]];
    const growth = last.delta / first.delta;
    const byCapacity = `${(last.full / first.full).toFixed(1)} when the capacity is full from the start`;
    figure(
      `kv/growth-${style}-${runtime}`,
      growth,
      "ratio",
      undefined,
      undefined,
      `step at ${last.length} over step at ${first.length} tokens; ${byCapacity}`,
    );
  }
  console.log(
    `\ngrowing: one token by the tokens used, pages of 64; full: ${CAPACITY} at once, ms`,
  );
  console.table(rows);
}

/** What is made on a GPU, where there is a browser with one. */
async function runWebGpu() {
  const { countBuffers } = await import("./webgpu.mjs");
  const rows = await countBuffers();
  if (typeof rows === "string") return console.log(`\nwebgpu: skipped, ${rows}`);
  for (const { style, steps, byTierheap, byRuntime, byRuntimeAlone } of rows) {
    const beside = `in ${steps} steps; the runtime makes ${byRuntime}, and ${byRuntimeAlone} with KV of its own`;
    const id = `kv/created-per-step-${style}-webgpu`;
    figure(id, byTierheap, "GPU buffers", TARGETS.created, byTierheap === 0, beside);
  }
  console.log("\nwebgpu: buffers that are made in decode steps, in Chromium");
  console.table(rows);
}

const PLAIN_SECTIONS = {
  prefixes: () => runPrefixes({ figure, isQuick, trace: options.trace }),
  layouts: () => runLayouts({ isQuick, figure }),
  names: () => runNames({ figure, pairs: isQuick ? 20_000 : 1_000_000, seed: 1 }),
  restore: () =>
    runRestore({
      ...{ figure, isQuick, timed },
      threads: options.threads === undefined ? undefined : Number(options.threads),
    }),
};
const isAsked = (name) => options.only === undefined || options.only.includes(name);
for (const [name, run] of Object.entries(PLAIN_SECTIONS)) {
  if (isAsked(name) && options.runtime === undefined) await run();
}
const SECTIONS = { step: runStep, growing: runGrowing };
for (const [name, run] of Object.entries(SECTIONS)) {
  if (!isAsked(name)) continue;
  for (const runtime of Object.keys(RUNTIMES)) {
    if (options.runtime === undefined || options.runtime === runtime) await run(runtime);
  }
}
if (isAsked("webgpu") && options.runtime === undefined) await runWebGpu();
printFigures(figures);
if (options.json !== undefined) writeFigures(options.json, figures);
