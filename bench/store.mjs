// The store of the SSD tier beside plain files and cacache, on the disk at hand. Run by
// `npm run bench`, or alone:
//
//   node --expose-gc bench/store.mjs [--only small|large|restart]... [--quick] [--rounds N] [--json FILE]
//
// Contestants take turns, round by round, and every ratio is of two figures of the same run; the median
// of the rounds counts. Everybody hashes what they write and read with the same hash, cacache with its
// own. Every round begins with empty directories; memory is touched before it is timed.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createTensorMemory } from "tierheap";
import { Hasher } from "../dist/src/core/hash-stream.js";
import { createUnsharedMemory } from "../dist/src/core/linear-memory.js";
import { nodeFileSystem } from "../dist/src/tier/file-system-node.js";
import { FsTier } from "../dist/src/tier/fs.js";
import { median, report } from "./support.mjs";

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    quick: { type: "boolean" },
    rounds: { type: "string" },
    json: { type: "string" },
  },
});
const isQuick = values.quick === true;
const roundCount = Number(values.rounds ?? (isQuick ? 3 : 7));
const KIB = 1024;
const MIB = 2 ** 20;
const CALLER_COUNT = 32;
const SMALL_BYTES = 64 * KIB;
/** Plain files are written and read in both; the faster one counts. */
const CHUNK_BYTES = [64 * KIB, MIB / 2];

const root = mkdtempSync(join(process.env.TIERHEAP_BENCH_DIR ?? tmpdir(), "tierheap-bench-"));
const hasher = await Hasher.create(CALLER_COUNT, createUnsharedMemory);
const figures = [];
const add = (id, value, unit, target, beside) => {
  const met = target === undefined ? undefined : value >= target;
  figures.push({ id, value, unit, ...(target !== undefined && { target, met }), beside });
};

function hash(bytes) {
  const stream = hasher.open();
  stream.update(bytes);
  return stream.end();
}

const keyOf = (index) => index.toString(16).padStart(64, "0");

/** Runs work for each index, so many at once. @returns Milliseconds. */
async function timed(count, callerCount, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  const startMs = performance.now();
  await Promise.all(Array.from({ length: callerCount }, caller));
  return performance.now() - startMs;
}

async function syncDirectory(path) {
  const handle = await open(path);
  await handle.sync();
  await handle.close();
}

/** Contestants for small objects; each has a directory of its own in every round. */
const smallContestants = {
  files: (directory) => ({
    write: async (index, bytes, isDurable) => {
      hash(bytes);
      const handle = await open(join(directory, keyOf(index)), "wx");
      await handle.write(bytes);
      if (isDurable) await handle.sync();
      await handle.close();
      if (isDurable) await syncDirectory(directory);
    },
    read: async (index) => hash(await readFile(join(directory, keyOf(index)))),
    close: async () => {},
  }),
  store: async (directory) => {
    const tier = new FsTier({ directory, fileSystem: nodeFileSystem });
    await tier.open();
    return {
      write: async (index, bytes, isDurable) => {
        const writer = await tier.begin(keyOf(index), bytes.byteLength);
        hash(bytes);
        await writer.write(bytes);
        await writer.commit({ durable: isDurable });
      },
      read: async (index) => {
        const reader = await tier.openRead(keyOf(index));
        const bytes = new Uint8Array(reader.byteLength);
        await reader.read(0, bytes);
        await reader.close();
        hash(bytes);
      },
      close: () => tier.close(),
    };
  },
  cacache: async (directory) => {
    const { default: cacache } = await import("cacache");
    return {
      write: (index, bytes) => cacache.put(directory, keyOf(index), Buffer.from(bytes.buffer)),
      read: (index) => cacache.get(directory, keyOf(index)),
      close: async () => {},
    };
  },
};

async function small() {
  const bytes = new Uint8Array(SMALL_BYTES).map((_, index) => index * 7);
  for (const isDurable of [false, true]) {
    const mode = isDurable ? "durable" : "cache";
    // What waits for the device is slow by itself; the file system syncs many files at once as well,
    // so that both one caller and many are shown.
    const count = isDurable ? (isQuick ? 64 : 256) : isQuick ? 500 : 2000;
    const names = isDurable ? ["files", "store"] : Object.keys(smallContestants);
    const times = new Map();
    const note = (id, ms, objectCount) => {
      const list = times.get(id) ?? [];
      list.push(ms / objectCount);
      times.set(id, list);
    };
    for (let round = 0; round < roundCount; round++) {
      for (const name of names) {
        for (const callerCount of name === "files" && isDurable
          ? [1, CALLER_COUNT]
          : [CALLER_COUNT]) {
          const directory = join(root, `${name}-${mode}-${round}-${callerCount}`);
          mkdirSync(directory);
          let contestant;
          try {
            contestant = await smallContestants[name](directory);
          } catch (error) {
            if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
            if (round === 0) console.log(`${name} is not installed`);
            continue;
          }
          const own = callerCount === 1 ? Math.min(count, 64) : count;
          const write = (index) => contestant.write(index, bytes, isDurable);
          const suffix = callerCount === 1 ? "-one-caller" : "";
          note(`${name}${suffix}/write`, await timed(own, callerCount, write), own);
          note(`${name}${suffix}/read`, await timed(own, callerCount, contestant.read), own);
          await contestant.close();
          rmSync(directory, { recursive: true });
        }
      }
    }
    const rate = (id) => SMALL_BYTES / 1000 / median(times.get(id) ?? [Number.NaN]);
    for (const id of times.keys()) add(`small/${mode}/${id}`, rate(id), "MB/s");
    const ratio = (left, right) => rate(left) / rate(right);
    if (isDurable) {
      add(
        "small/durable/write-over-files",
        ratio("store/write", "files-one-caller/write"),
        "ratio",
        20,
        "one file each, one after the other",
      );
      add(
        "small/durable/write-over-files-at-once",
        ratio("store/write", "files/write"),
        "ratio",
        undefined,
        "one file each, as many callers",
      );
    } else {
      add(
        "small/cache/write-over-files",
        ratio("store/write", "files/write"),
        "ratio",
        8,
        "one file each",
      );
      add(
        "small/cache/read-over-files",
        ratio("store/read", "files/read"),
        "ratio",
        4,
        "one file each",
      );
    }
  }
}

async function plainWrite(path, bytes, chunkBytes) {
  const stream = hasher.open();
  const handle = await open(path, "wx");
  for (let offset = 0; offset < bytes.byteLength; offset += chunkBytes) {
    const chunk = bytes.subarray(offset, offset + chunkBytes);
    stream.update(chunk);
    await handle.write(chunk, 0, chunk.byteLength, offset);
  }
  stream.end();
  await handle.close();
}

async function plainRead(path, target, chunkBytes) {
  const stream = hasher.open();
  const handle = await open(path);
  for (let offset = 0; offset < target.byteLength; offset += chunkBytes) {
    const chunk = target.subarray(offset, offset + chunkBytes);
    await handle.read(chunk, 0, chunk.byteLength, offset);
    stream.update(chunk);
  }
  stream.end();
  await handle.close();
}

/** Swap-out and acquire of whole tensors beside plain files of the same length, one at a time. */
async function large() {
  for (const mib of isQuick ? [1, 16] : [1, 4, 16, 64]) {
    const byteLength = mib * MIB;
    const count = Math.max(2, Math.min(16, 64 / mib));
    const bytes = new Uint8Array(byteLength).map((_, index) => index * 7);
    const target = new Uint8Array(byteLength);
    const times = { write: [], read: [] };
    const plainTimes = CHUNK_BYTES.map(() => ({ write: [], read: [] }));
    for (let round = 0; round < roundCount; round++) {
      for (const [choice, chunkBytes] of CHUNK_BYTES.entries()) {
        const plain = join(root, `plain-${mib}-${round}-${choice}`);
        mkdirSync(plain);
        const path = (index) => join(plain, keyOf(index));
        const write = (index) => plainWrite(path(index), bytes, chunkBytes);
        const read = (index) => plainRead(path(index), target, chunkBytes);
        plainTimes[choice].write.push(await timed(count, 1, write));
        plainTimes[choice].read.push(await timed(count, 1, read));
        rmSync(plain, { recursive: true });
      }
      const directory = join(root, `store-${mib}-${round}`);
      const memory = await createTensorMemory({
        budgets: { ram: 2 * (count + 2) * byteLength + 64 * MIB, ssd: "16GiB" },
        ssd: { directory },
      });
      for (let index = 0; index < count; index++) {
        const pin = memory.allocate({ kind: "KV_CACHE", byteLength, id: `t${index}` }).pin();
        pin.view.set(bytes);
        pin[Symbol.dispose]();
      }
      const spill = () => timed(count, 1, (index) => memory.swapOut(`t${index}`));
      const restore = () =>
        timed(count, 1, async (index) => (await memory.acquire(`t${index}`))[Symbol.dispose]());
      await spill();
      await restore();
      times.write.push(await spill());
      times.read.push(await restore());
      await memory.close();
      rmSync(directory, { recursive: true });
      globalThis.gc?.();
    }
    const rate = (list) => (count * byteLength) / 1000 / median(list);
    add(`large/${mib}-mib/spill`, rate(times.write), "MB/s");
    add(`large/${mib}-mib/restore`, rate(times.read), "MB/s");
    const plainWriteRate = Math.max(...plainTimes.map(({ write }) => rate(write)));
    const plainReadRate = Math.max(...plainTimes.map(({ read }) => rate(read)));
    add(`large/${mib}-mib/plain-write`, plainWriteRate, "MB/s");
    add(`large/${mib}-mib/plain-read`, plainReadRate, "MB/s");
    const beside = "plain fs, same hash";
    const spill = rate(times.write) / plainWriteRate;
    const restore = rate(times.read) / plainReadRate;
    add(`large/${mib}-mib/spill-over-plain`, spill, "ratio", 0.8, beside);
    add(`large/${mib}-mib/restore-over-plain`, restore, "ratio", 0.8, beside);
  }
}

/** A store of many records after its process was killed, and after it was closed. */
async function restart() {
  const recordCount = 10_000;
  const directory = join(root, "restart");
  const make = () => new FsTier({ directory, fileSystem: nodeFileSystem });
  const first = make();
  await first.open();
  const bytes = new Uint8Array(4 * KIB);
  const write = async (index) => {
    const isLong = index % 100 === 0;
    const object = isLong ? new Uint8Array(300 * KIB) : bytes.slice();
    new DataView(object.buffer).setUint32(0, index);
    const writer = await first.begin(keyOf(index), object.byteLength);
    await writer.write(object);
    await writer.commit({ durable: false });
  };
  await timed(recordCount, CALLER_COUNT, write);
  // A killed process leaves its lock and an open segment: so does one that is not closed.
  const unlocked = {
    ...nodeFileSystem,
    tryLock: async () => ({ release: async () => {} }),
  };
  for (const state of ["killed", "closed"]) {
    const fileSystem = state === "killed" ? unlocked : nodeFileSystem;
    if (state === "closed") await first.close();
    const tier = new FsTier({ directory, fileSystem });
    const openMs = await timed(1, 1, () => tier.open());
    let usableCount = 0;
    await timed(recordCount, CALLER_COUNT, async (index) => {
      const reader = await tier.openRead(keyOf(index));
      if (reader === null) return;
      const head = new Uint8Array(4);
      await reader.read(0, head);
      await reader.close();
      if (new DataView(head.buffer).getUint32(0) === index) usableCount += 1;
    });
    if (state === "closed") await tier.close();
    add(
      `restart/${state}/usable`,
      (100 * usableCount) / recordCount,
      "%",
      99.9,
      `${recordCount} records`,
    );
    add(`restart/${state}/open-per-1000`, openMs / (recordCount / 1000), "ms");
  }
}

const sections = { small, large, restart };
try {
  for (const [name, run] of Object.entries(sections)) {
    if (values.only === undefined || values.only.includes(name)) await run();
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}
report("store", figures);
