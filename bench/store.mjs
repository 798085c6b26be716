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
import { mkdirSync, rmSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { createTensorMemory } from "tierheap";
import { nodeFileSystem } from "../dist/src/tier/file-system-node.js";
import { FsTier } from "../dist/src/tier/fs.js";
import { printFeatures } from "./features.mjs";
import {
  add,
  CALLER_COUNT,
  figures,
  hash,
  isQuick,
  KIB,
  keyOf,
  lastProcessorMs,
  medianRatio,
  randomBytes,
  root,
  roundCount,
  SMALL_BYTES,
  timed,
  values,
} from "./store/common.mjs";
import { large } from "./store/large.mjs";
import { median, report } from "./support.mjs";

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
      noteOne(`${id}/processor`, lastProcessorMs() / objectCount);
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
  printFeatures(memory.stats());
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
