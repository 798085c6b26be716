// Plans beside runs. Run by `npm run bench:plan`, or alone after a build:
//
//   node bench/plan.mjs [--json FILE] [--quick] [--only chat|kv|spill]…
//
// Three workloads are planned and then run: the chats of `npm start`, KV in pages of Qwen3-VL-2B's shape in a
// budget that this machine can bear, and chats that are written at every visit, so that making room for one
// means writing another. Bytes are planned before anything is there; times with the speeds that the memory has
// measured until then. Each figure is how far the plan was off: a share for bytes, a factor for times.
// Never fails on a target.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openKvCaches } from "../dist/src/kv.js";
import { createTensorMemory } from "../dist/src/node.js";
import { MODEL_SHAPES } from "../dist/src/plan.js";
import { median, report } from "./support.mjs";

const { values: options } = parseArgs({
  options: {
    json: { type: "string" },
    quick: { type: "boolean" },
    only: { type: "string", multiple: true },
  },
});
const isQuick = options.quick === true;
const BYTES_TARGET = 0.05;
const TIME_TARGET = 1.5;
const MIB = 2 ** 20;
const chatMain = fileURLToPath(new URL("../build/examples/chat/main.js", import.meta.url));

const figures = [];

function bytesFigure(id, planned, actual) {
  if (!(planned > 0) || !(actual > 0))
    throw new Error(`${id}: nothing was planned, or nothing ran`);
  const value = Math.abs(planned - actual) / actual;
  const beside = `planned ${(planned / MIB).toFixed(1)} MiB, was ${(actual / MIB).toFixed(1)} MiB`;
  figures.push({
    id,
    value,
    unit: "share",
    target: BYTES_TARGET,
    met: value <= BYTES_TARGET,
    beside,
  });
}

/** @param pairs Planned and actual milliseconds: of single restores, or one pair of their medians. */
function timeFigure(id, pairs) {
  if (pairs.length === 0) throw new Error(`${id}: nothing was restored`);
  const ratio = median(pairs.map(({ planned, actual }) => planned / actual));
  const value = Math.max(ratio, 1 / ratio);
  const [planned, actual] = ["planned", "actual"].map((key) =>
    median(pairs.map((pair) => pair[key])),
  );
  const beside = `planned ${planned.toFixed(1)} ms, was ${actual.toFixed(1)} ms; median of ${pairs.length}`;
  figures.push({
    id,
    value,
    unit: "factor",
    target: TIME_TARGET,
    met: value <= TIME_TARGET,
    beside,
  });
}

const tierOf = (plan, name) => plan.tiers.find((tier) => tier.name === name);

/** Takes `work` in a directory that goes afterwards. */
async function inDirectory(work) {
  const directory = mkdtempSync(join(tmpdir(), "tierheap-plan-"));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The example plans itself and says what came. */
function runChat() {
  return inDirectory((directory) => {
    const size = isQuick ? ["--chats", "10", "--visits", "40", "--ram", "12MiB"] : [];
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [chatMain, "--json", "--directory", join(directory, "chat"), ...size],
      { encoding: "utf8", maxBuffer: 64 * MIB },
    );
    if (status !== 0) throw new Error(`the chat example failed: ${stderr.slice(-500)}`);
    const { kvBytes, ramBytes, coldBytes, restoreMs } = JSON.parse(stdout).run.foresight;
    bytesFigure("plan/chat-kv", kvBytes.planned, kvBytes.actual);
    bytesFigure("plan/chat-ram", ramBytes.planned, ramBytes.actual);
    bytesFigure("plan/chat-cold", coldBytes.planned, coldBytes.actual);
    timeFigure("plan/chat-restore", restoreMs === null ? [] : [restoreMs]);
  });
}

function noteBytes(name, plan, stats) {
  const ram = tierOf(plan, "ram");
  bytesFigure(`plan/${name}-ram`, ram.usedBytes, stats.budget.usedBytesPeak);
  bytesFigure(`plan/${name}-resident`, ram.tensorBytes, stats.tensors.hotBytes);
  bytesFigure(`plan/${name}-cold`, tierOf(plan, "ssd").usedBytesMax, stats.tier.storedBytes);
}

/** Visits chats in turn; the first round only measures. */
async function visit({ memory, request, chats, rounds, bringIn }) {
  const pairs = [];
  for (let round = 0; round <= rounds; round++) {
    for (let chat = 0; chat < chats; chat++) {
      const before = memory.stats().transfers.rawBytesIn;
      const plan = await memory.plan(request);
      const startMs = performance.now();
      await bringIn(chat);
      const actual = performance.now() - startMs;
      const broughtBytes = memory.stats().transfers.rawBytesIn - before;
      // Another part of it was in RAM still.
      if (broughtBytes < 0.95 * plan.chatBytes || round === 0) continue;
      pairs.push({ planned: tierOf(plan, "ssd").chatRestoreMs, actual });
    }
  }
  return pairs;
}

function runKv() {
  return inDirectory(async (directory) => {
    const [chats, tokens] = [6, 512];
    const model = MODEL_SHAPES.get("qwen3-vl-2b");
    const { layers: count, kvHeads: heads, headDim, dtype } = model;
    const memory = await createTensorMemory({
      budgets: { ram: "192MiB", ssd: "2GiB" },
      ssd: { directory },
      codecs: { default: "raw" },
    });
    const caches = openKvCaches(memory, {
      fingerprint: "plan bench",
      layers: { count, heads, headDim, dtype },
    });
    const request = { model, chats, tokens };
    const plan = await memory.plan(request);
    const rows = Array.from({ length: count }, (_, layer) => {
      const part = (salt) =>
        Uint16Array.from(
          { length: heads * tokens * headDim },
          (_, i) => 0x3f00 + ((i * salt + layer) & 0xff),
        );
      return { keys: part(7), values: part(11) };
    });
    const made = [];
    for (let chat = 0; chat < chats; chat++) {
      const cache = caches.create();
      await cache.append(
        Array.from({ length: tokens }, (_, i) => chat * tokens + i),
        rows,
      );
      made.push(cache);
    }
    bytesFigure("plan/kv-pages", plan.kinds[0].tensorBytes, caches.stats().heldBytes);
    const bringIn = (chat) => made[chat].prefetch();
    const pairs = await visit({ memory, request, chats, rounds: isQuick ? 2 : 5, bringIn });
    noteBytes("kv", plan, memory.stats());
    timeFigure("plan/kv-restore", pairs);
    caches.close();
    await memory.close();
  });
}

function runSpill() {
  return inDirectory(async (directory) => {
    // A chat is 8 tensors of 1 MiB.
    const [chats, tokens] = [16, 1024];
    const model = { name: "spill", layers: 4, kvHeads: 2, headDim: 128, dtype: "f32" };
    const memory = await createTensorMemory({
      budgets: { ram: "64MiB", ssd: "1GiB" },
      ssd: { directory },
      codecs: { default: "raw" },
    });
    const request = { model, chats, tokens, kv: "tensors" };
    const plan = await memory.plan(request);
    const idsOf = (chat) => Array.from({ length: 8 }, (_, index) => `chat ${chat}/${index}`);
    for (let chat = 0; chat < chats; chat++) {
      for (const id of idsOf(chat)) {
        await memory.reserve({ kind: "KV_CACHE", bytes: MIB });
        const tensor = memory.allocate({
          kind: "KV_CACHE",
          id,
          shape: [1, 2, tokens, 128],
          dtype: "f32",
        });
        const pin = tensor.pin();
        pin.view.fill(chat);
        pin[Symbol.dispose]();
      }
    }
    const bringIn = async (chat) => {
      const leases = await memory.acquireChain(idsOf(chat), { access: "write" });
      for (const lease of leases) {
        lease.view[0] += 1;
        lease[Symbol.dispose]();
      }
    };
    const pairs = await visit({ memory, request, chats, rounds: isQuick ? 2 : 5, bringIn });
    noteBytes("spill", plan, memory.stats());
    timeFigure("plan/spill-restore", pairs);
    await memory.close();
  });
}

const sections = { chat: runChat, kv: runKv, spill: runSpill };
for (const [name, run] of Object.entries(sections)) {
  if (options.only !== undefined && !options.only.includes(name)) continue;
  console.log(`${name} …`);
  await run();
}
report("plan", figures);
