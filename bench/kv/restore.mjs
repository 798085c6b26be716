// A suspended chat comes back from disk: pages are read, checked and gathered for the runtime. Beside it,
// what it saves: computing the prompt again, in one step. Warm and cold say where the files are; after a
// restart, the heap's own memory is new as well.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildDecoder } from "../../build/examples/chat/model/decoder.js";
import { greedyToken, openOrtDecoder } from "../../dist/src/adapters/ort.js";
import { openKvCaches } from "../../dist/src/kv.js";
import { createTensorMemory } from "../../dist/src/node.js";
import { printFeatures } from "../features.mjs";
import { median } from "../support.mjs";
import { RUNTIMES } from "./chats.mjs";

const MIB = 2 ** 20;
const SIZES = { layers: 6, hidden: 512, heads: 8, kvHeads: 8, vocabulary: 256, seed: 1 };
const TARGETS = new Map([
  [512, 20],
  [2048, 50],
  [4096, 80],
]);

/** Makes the system forget the files' pages, where it lets us. @returns Whether it may have. */
function forgetFiles(directory) {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  // Asks for nothing to be read and the file's pages to be dropped.
  return files.every((file) => {
    const args = [`if=${file}`, "iflag=nocache", "count=0", "status=none"];
    return spawnSync("dd", args).status === 0;
  });
}

/** Nothing of any chat stays in RAM. */
async function suspend(memory) {
  for await (const { id, isResident } of memory.list({ prefix: "tierheap/kv/" })) {
    if (isResident) await memory.swapOut(id);
  }
}

/** @param figure Takes id, value, unit, target, whether it is met, and what stands beside it. */
export async function runRestore({ figure, isQuick, threads, timed }) {
  const rows = [];
  const { load, sessionOptions: own } = RUNTIMES.node;
  const ort = await load();
  const sessionOptions = {
    ...own,
    ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
  };
  const lengths = [...TARGETS.keys()].slice(0, isQuick ? 1 : undefined);
  const model = buildDecoder({ ...SIZES, positions: Math.max(...lengths) + 64 });
  const directory = mkdtempSync(join(tmpdir(), "tierheap-restore-"));
  const openAll = async () => {
    const memory = await createTensorMemory({
      budgets: { ram: 512 * MIB, ssd: 1024 * MIB },
      ssd: { directory },
    });
    const shared = { ort, memory, sessionOptions, fingerprint: "restore bench", checkTokens: 0 };
    const decoder = await openOrtDecoder({ ...shared, model });
    const { fingerprint, kvLayers: layers } = decoder;
    const caches = openKvCaches(memory, { fingerprint, layers });
    const close = async () => {
      caches.close();
      await decoder.close();
      printFeatures(memory.stats());
      await memory.close();
    };
    return { memory, decoder, caches, close };
  };
  try {
    for (const length of lengths) {
      const tokens = Array.from({ length: length + 1 }, (_, index) => (index * 37 + length) % 256);
      const prompt = tokens.slice(0, length);
      const prefillMs = [];
      let expected = -1;
      {
        const { decoder, caches, close } = await openAll();
        for (let round = 0; round < (isQuick ? 2 : 3); round++) {
          const cache = decoder.createCache({ capacityTokens: length + 1 });
          const ms = await timed(() => decoder.step(cache, prompt));
          prefillMs.push(ms);
          if (round === 0) {
            const pages = caches.create();
            await decoder.storeCache(cache, pages);
            if ((await caches.save(pages, "bench")) !== "stored")
              throw new Error("nothing was saved");
            pages.free();
            expected = greedyToken((await decoder.step(cache, tokens)).logits);
          }
          cache.free();
        }
        await close();
      }
      const restoreMs = { warm: [], cold: [], restart: [] };
      const comeBack = async ({ decoder, caches }) => {
        let cache = null;
        const ms = await timed(async () => {
          const pages = await caches.restore({ tokens: prompt, id: "bench" });
          cache = await decoder.restoreCache(pages);
          pages.free();
        });
        if (cache.tokenCount !== length) throw new Error(`${cache.tokenCount} tokens came back`);
        const token = greedyToken((await decoder.step(cache, tokens)).logits);
        if (token !== expected) throw new Error("the chat goes on with another token");
        cache.free();
        return ms;
      };
      const rounds = isQuick ? 3 : 5;
      const running = await openAll();
      for (let round = -1; round < rounds; round++) {
        for (const state of ["warm", "cold"]) {
          await suspend(running.memory);
          if (state === "cold" && !forgetFiles(directory)) continue;
          const ms = await comeBack(running);
          if (round >= 0) restoreMs[state].push(ms);
        }
      }
      await running.close();
      for (let round = 0; round < rounds; round++) {
        const restarted = await openAll();
        restoreMs.restart.push(await comeBack(restarted));
        await restarted.close();
      }
      const prefill = median(prefillMs);
      const kvMib = (length * SIZES.layers * 2 * SIZES.hidden * 4) / MIB;
      for (const state of ["warm", "cold", "restart"]) {
        if (restoreMs[state].length === 0) {
          console.log(`restore: skipped ${length} tokens, cold: the system keeps its files' pages`);
          continue;
        }
        const restore = median(restoreMs[state]);
        const speedup = prefill / restore;
        const target = state === "warm" ? TARGETS.get(length) : undefined;
        const beside = `prefill ${prefill.toFixed(0)} ms, restore ${restore.toFixed(1)} ms of ${kvMib} MiB`;
        figure(
          `kv/restore-${length}-${state}`,
          speedup,
          "ratio",
          target,
          speedup >= target,
          beside,
        );
        rows.push({ tokens: length, state, kvMib, prefill, restore, speedup });
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  console.log("\nrestore: a saved chat from disk beside computing its prompt, 6 layers × 512, ms");
  console.table(rows);
}
