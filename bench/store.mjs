// The store of the SSD tier beside plain files and cacache, on the disk at hand. Run by
// `npm run bench`, or alone:
//
//   node --expose-gc bench/store.mjs [--only small|large|restart]... [--quick] [--rounds N] [--json FILE]
//
// Contestants take turns, round by round, and every ratio is of two figures of the same run; the median
// of the rounds counts. Everybody hashes what they write and read with the same hash, cacache with its
// own. Every round begins with empty directories on one file system; memory is touched before it is timed.
// In cache mode nobody syncs. "One file" is the bound of any store: the same bytes, hash and memory, but one
// open file and nothing else. Ratios by processor time are less disturbed by what else the machine does.
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

/** Processor time of this process in the last {@link timed}, in milliseconds. */
let processorMs = 0;

/** Runs work for each index, so many at once. @returns Milliseconds. */
async function timed(count, callerCount, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  const usage = process.cpuUsage();
  const startMs = performance.now();
  await Promise.all(Array.from({ length: callerCount }, caller));
  const wallMs = performance.now() - startMs;
  const { user, system } = process.cpuUsage(usage);
  processorMs = (user + system) / 1000;
  return wallMs;
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
  "one-file": async (directory) => {
    const handle = await open(join(directory, "all"), "wx+");
    return {
      write: async (index, bytes) => {
        hash(bytes);
        await handle.write(bytes, 0, bytes.byteLength, index * bytes.byteLength);
      },
      read: async (index) => {
        const bytes = new Uint8Array(SMALL_BYTES);
        await handle.read(bytes, 0, bytes.byteLength, index * bytes.byteLength);
        hash(bytes);
      },
      close: () => handle.close(),
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
    const count = isDurable ? (isQuick ? 64 : 256) : isQuick ? 1000 : 2000;
    const names = isDurable ? ["files", "store"] : Object.keys(smallContestants);
    const times = new Map();
    const noteOne = (id, ms) => times.set(id, [...(times.get(id) ?? []), ms]);
    const note = (id, ms, objectCount, round) => {
      if (round < 0) return;
      noteOne(id, ms / objectCount);
      noteOne(`${id}/processor`, processorMs / objectCount);
    };
    // The first round is not counted: code is compiled and the threads are started in it.
    for (let round = -1; round < roundCount; round++) {
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
            if (round < 0) console.log(`${name} is not installed`);
            continue;
          }
          const own = callerCount === 1 ? Math.min(count, 64) : count;
          const write = (index) => contestant.write(index, bytes, isDurable);
          const suffix = callerCount === 1 ? "-one-caller" : "";
          note(`${name}${suffix}/write`, await timed(own, callerCount, write), own, round);
          note(`${name}${suffix}/read`, await timed(own, callerCount, contestant.read), own, round);
          await contestant.close();
          rmSync(directory, { recursive: true });
        }
      }
    }
    const rate = (id) => SMALL_BYTES / 1000 / median(times.get(id) ?? [Number.NaN]);
    for (const id of times.keys()) {
      if (!id.endsWith("/processor")) add(`small/${mode}/${id}`, rate(id), "MB/s");
    }
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
      for (const work of ["write", "read"]) {
        const id = `small/cache/${work}-over-files`;
        const processor = ratio(`store/${work}/processor`, `files/${work}/processor`);
        add(`${id}-by-processor-time`, processor, "ratio", undefined, "one file each");
        const bound = ratio(`one-file/${work}`, `files/${work}`);
        add(`${id}-bound`, bound, "ratio", undefined, "one open file, one file each");
      }
    }
  }
}

/** Nothing: what both sides do where the checksum is left out. */
const unhashed = { update: () => {}, end: () => {} };

async function plainWrite(path, bytes, chunkBytes, stream) {
  const handle = await open(path, "wx");
  for (let offset = 0; offset < bytes.byteLength; offset += chunkBytes) {
    const chunk = bytes.subarray(offset, offset + chunkBytes);
    stream.update(chunk);
    await handle.write(chunk, 0, chunk.byteLength, offset);
  }
  stream.end();
  await handle.close();
}

async function plainRead(path, target, chunkBytes, stream) {
  const handle = await open(path);
  for (let offset = 0; offset < target.byteLength; offset += chunkBytes) {
    const chunk = target.subarray(offset, offset + chunkBytes);
    await handle.read(chunk, 0, chunk.byteLength, offset);
    stream.update(chunk);
  }
  stream.end();
  await handle.close();
}

/** The tier as transfers use it, without their checksum: chunks, through private memory. */
async function tierWrite(tier, key, bytes, chunks) {
  const writer = await tier.begin(key, bytes.byteLength);
  let writing;
  for (let offset = 0, turn = 0; offset < bytes.byteLength; turn++) {
    const chunk = chunks[turn % chunks.length].subarray(0, bytes.byteLength - offset);
    chunk.set(bytes.subarray(offset, offset + chunk.byteLength));
    await writing;
    writing = writer.write(chunk);
    offset += chunk.byteLength;
  }
  await writing;
  await writer.commit({ durable: false });
}

async function tierRead(tier, key, target, chunks) {
  const reader = await tier.openRead(key);
  const start = (offset, turn) => {
    const chunk = chunks[turn % chunks.length].subarray(0, target.byteLength - offset);
    return { chunk, reading: reader.read(offset, chunk) };
  };
  let next = start(0, 0);
  for (let offset = 0, turn = 1; offset < target.byteLength; turn++) {
    const { chunk, reading } = next;
    await reading;
    if (offset + chunk.byteLength < target.byteLength)
      next = start(offset + chunk.byteLength, turn);
    target.set(chunk, offset);
    offset += chunk.byteLength;
  }
  await reader.close();
}

/** Swap-out and acquire of whole tensors beside plain files of the same length, one at a time. */
async function large() {
  for (const mib of isQuick ? [1, 4, 64] : [1, 4, 16, 64]) {
    const byteLength = mib * MIB;
    const count = Math.max(2, Math.min(16, 64 / mib));
    const bytes = new Uint8Array(byteLength).map((_, index) => index * 7);
    const target = new Uint8Array(byteLength);
    const noTimes = () => ({ write: [], read: [], writeBare: [], readBare: [] });
    const times = noTimes();
    const plainTimes = CHUNK_BYTES.map(noTimes);
    const chunks = [new Uint8Array(MIB / 2), new Uint8Array(MIB / 2)];
    for (let round = 0; round < roundCount; round++) {
      for (const [choice, chunkBytes] of CHUNK_BYTES.entries()) {
        const plain = join(root, `plain-${mib}-${round}-${choice}`);
        mkdirSync(plain);
        const path = (index) => join(plain, keyOf(index));
        const write = (index) => plainWrite(path(index), bytes, chunkBytes, hasher.open());
        const read = (index) => plainRead(path(index), target, chunkBytes, hasher.open());
        plainTimes[choice].write.push(await timed(count, 1, write));
        plainTimes[choice].read.push(await timed(count, 1, read));
        rmSync(plain, { recursive: true });
        mkdirSync(plain);
        const writeBare = (index) => plainWrite(path(index), bytes, chunkBytes, unhashed);
        const readBare = (index) => plainRead(path(index), target, chunkBytes, unhashed);
        plainTimes[choice].writeBare.push(await timed(count, 1, writeBare));
        plainTimes[choice].readBare.push(await timed(count, 1, readBare));
        rmSync(plain, { recursive: true });
      }
      const bare = join(root, `bare-${mib}-${round}`);
      const tier = new FsTier({ directory: bare, fileSystem: nodeFileSystem });
      await tier.open();
      const writeTier = (index) => tierWrite(tier, keyOf(index), bytes, chunks);
      const readTier = (index) => tierRead(tier, keyOf(index), target, chunks);
      times.writeBare.push(await timed(count, 1, writeTier));
      times.readBare.push(await timed(count, 1, readTier));
      await tier.close();
      rmSync(bare, { recursive: true });
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
    for (const [name, id] of [
      ["writeBare", "write"],
      ["readBare", "read"],
    ]) {
      const plainRate = Math.max(...plainTimes.map((each) => rate(each[name])));
      const value = rate(times[name]) / plainRate;
      add(`large/${mib}-mib/tier-${id}-over-plain`, value, "ratio", 0.9, "neither hashes");
    }
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
