// The store of the SSD tier beside plain files and cacache, on the disk at hand. Run by
// `npm run bench`, or alone:
//
//   node --expose-gc bench/store.mjs [--only small|together|large|restart]... [--quick] [--rounds N] [--json FILE]
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

/**
 * What users call, many at once: tensors that are swapped out, acquired and saved together, beside one
 * file each under as many callers (under one, where they wait for the device).
 */
async function together() {
  const ids = Array.from({ length: isQuick ? 500 : 1000 }, (_, index) => `t${index}`);
  const content = randomBytes(SMALL_BYTES);
  const times = new Map();
  let isCounted = false;
  const note = async (name, count, callerCount, work) => {
    const ms = await timed(count, callerCount, work);
    if (isCounted) times.set(name, [...(times.get(name) ?? []), ms / count]);
  };
  const files = async () => {
    for (const [suffix, isDurable, count, callerCount] of [
      ["", false, ids.length, CALLER_COUNT],
      ["-durable", true, 32, 1],
    ]) {
      const directory = join(root, "together-files");
      mkdirSync(directory);
      const { write, read } = smallContestants.files(directory);
      await note(`files-write${suffix}`, count, callerCount, (index) =>
        write(index, content, isDurable),
      );
      if (!isDurable) await note("files-read", count, callerCount, read);
      rmSync(directory, { recursive: true });
    }
  };
  const directory = join(root, "together");
  const memory = await createTensorMemory({
    budgets: { ram: "512MiB", ssd: "16GiB" },
    ssd: { directory },
  });
  for (const id of ids) {
    const pin = memory.allocate({ kind: "KV_CACHE", byteLength: SMALL_BYTES, id }).pin();
    pin.view.set(content);
    pin[Symbol.dispose]();
  }
  const all = { count: ids.length, callerCount: ids.length };
  const acquire = async (index) => (await memory.acquire(ids[index]))[Symbol.dispose]();
  const store = async () => {
    await note("swap-out", all.count, all.callerCount, (index) => memory.swapOut(ids[index]));
    await note("acquire", all.count, all.callerCount, acquire);
    await note("save-durable", 256, 256, (index) => memory.save(ids[index], { mode: "durable" }));
    // Written to, so that the next save has something to do.
    await timed(all.count, all.callerCount, acquire);
  };
  for (let round = -1; round < roundCount; round++) {
    isCounted = round >= 0;
    for (const side of round % 2 === 0 ? [files, store] : [store, files]) await side();
    globalThis.gc?.();
  }
  await memory.close();
  rmSync(directory, { recursive: true });
  const over = (id, own, plain, target, beside) =>
    add(
      `together/${id}-over-files`,
      medianRatio(times.get(plain), times.get(own)),
      "ratio",
      target,
      beside,
    );
  for (const [name, list] of times) add(`together/${name}`, 1000 * median(list), "µs each");
  over("swap-out", "swap-out", "files-write", 8, "one file each");
  over("acquire", "acquire", "files-read", 4, "one file each");
  over("save-durable", "save-durable", "files-write-durable", 20, "one after the other");
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

/** The tier as transfers use it, without their checksum: written through private memory. */
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

/** The same: read straight to where the bytes belong. */
async function tierRead(tier, key, target) {
  const reader = await tier.openRead(key);
  for (let offset = 0; offset < target.byteLength; offset += MIB) {
    await reader.read(offset, target.subarray(offset, offset + MIB));
  }
  await reader.close();
}

/** What no codec shortens: as KV of real models, nearly. */
function randomBytes(byteLength) {
  const bytes = new Uint8Array(byteLength);
  for (let offset = 0; offset < byteLength; offset += SMALL_BYTES) {
    crypto.getRandomValues(bytes.subarray(offset, offset + SMALL_BYTES));
  }
  return bytes;
}

/** The median of what each round says for itself: what is compared is close in time. */
function medianRatio(slow, fast) {
  return median(slow.map((ms, round) => ms / fast[round]));
}

/**
 * Swap-out and acquire of whole tensors beside plain files of the same length, one at a time; in every
 * other round the other way round. Each side has memory of its own for every tensor.
 */
async function large() {
  for (const mib of isQuick ? [1, 4, 64] : [1, 4, 16, 64]) {
    const byteLength = mib * MIB;
    const count = Math.max(2, Math.min(16, 64 / mib));
    const sources = randomBytes(count * byteLength);
    const targets = new Uint8Array(count * byteLength).fill(1);
    const part = (bytes, index) => bytes.subarray(index * byteLength, (index + 1) * byteLength);
    const times = { write: [], read: [], writeBare: [], readBare: [] };
    const plainTimes = CHUNK_BYTES.map(() => ({
      write: [],
      read: [],
      writeBare: [],
      readBare: [],
    }));
    const chunks = [new Uint8Array(MIB / 4), new Uint8Array(MIB / 4)];
    const directory = join(root, `store-${mib}`);
    const memory = await createTensorMemory({
      budgets: { ram: 2 * (count + 2) * byteLength + 64 * MIB, ssd: "16GiB" },
      ssd: { directory },
    });
    for (let index = 0; index < count; index++) {
      const pin = memory.allocate({ kind: "KV_CACHE", byteLength, id: `t${index}` }).pin();
      pin.view.set(part(sources, index));
      pin[Symbol.dispose]();
    }
    const plainRound = async (note) => {
      for (const [choice, chunkBytes] of CHUNK_BYTES.entries()) {
        const plain = join(root, `plain-${mib}`);
        const path = (index) => join(plain, keyOf(index));
        for (const [suffix, stream] of [
          ["", () => hasher.open()],
          ["Bare", () => unhashed],
        ]) {
          mkdirSync(plain);
          const write = (index) =>
            plainWrite(path(index), part(sources, index), chunkBytes, stream());
          const read = (index) =>
            plainRead(path(index), part(targets, index), chunkBytes, stream());
          const writeMs = await timed(count, 1, write);
          note(plainTimes[choice], `write${suffix}`, writeMs);
          note(plainTimes[choice], `read${suffix}`, await timed(count, 1, read));
          rmSync(plain, { recursive: true });
        }
      }
    };
    const storeRound = async (note) => {
      const bare = join(root, `bare-${mib}`);
      const tier = new FsTier({ directory: bare, fileSystem: nodeFileSystem });
      await tier.open();
      const write = (index) => tierWrite(tier, keyOf(index), part(sources, index), chunks);
      const read = (index) => tierRead(tier, keyOf(index), part(targets, index));
      note(times, "writeBare", await timed(count, 1, write));
      note(times, "readBare", await timed(count, 1, read));
      await tier.close();
      rmSync(bare, { recursive: true });
      // Each has been written to since: so the acquire of the round before says.
      note(times, "write", await timed(count, 1, (index) => memory.swapOut(`t${index}`)));
      const restore = async (index) => (await memory.acquire(`t${index}`))[Symbol.dispose]();
      note(times, "read", await timed(count, 1, restore));
    };
    // The first round is not counted.
    for (let round = -1; round < roundCount; round++) {
      const note = (list, name, ms) => round >= 0 && list[name].push(ms);
      const sides = round % 2 === 0 ? [plainRound, storeRound] : [storeRound, plainRound];
      for (const side of sides) await side(note);
      globalThis.gc?.();
    }
    await memory.close();
    rmSync(directory, { recursive: true });
    const rate = (list) => (count * byteLength) / 1000 / median(list);
    /** The faster way of plain files. */
    const plainOf = (name) =>
      plainTimes
        .map((each) => each[name])
        .reduce((left, right) => (median(left) <= median(right) ? left : right));
    add(`large/${mib}-mib/spill`, rate(times.write), "MB/s");
    add(`large/${mib}-mib/restore`, rate(times.read), "MB/s");
    add(`large/${mib}-mib/plain-write`, rate(plainOf("write")), "MB/s");
    add(`large/${mib}-mib/plain-read`, rate(plainOf("read")), "MB/s");
    const over = (id, name, target, beside) => {
      const value = medianRatio(plainOf(name), times[name]);
      add(`large/${mib}-mib/${id}-over-plain`, value, "ratio", target, beside);
    };
    over("spill", "write", 0.8, "plain fs, same hash");
    over("restore", "read", 0.8, "plain fs, same hash");
    over("tier-write", "writeBare", 0.9, "neither hashes");
    over("tier-read", "readBare", 0.9, "neither hashes");
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

const sections = { small, together, large, restart };
try {
  for (const [name, run] of Object.entries(sections)) {
    if (values.only === undefined || values.only.includes(name)) await run();
  }
} finally {
  rmSync(root, { recursive: true, force: true });
}
report("store", figures);
