// Tensors on their way to the disk and back: as they are, in codecs, and as the memory itself decides.
// Contestants take turns tensor by tensor, each in a store of its own, so that a busy moment hits all of them alike; a
// round is the sum over all tensors, a ratio is the median over rounds. Stores lie on the disk of the working directory, and
// in a tier that lets so many bytes through a second and no more, as a slow disk would.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../dist/src/clock.js";
import { createTensorMemory } from "../../../dist/src/node.js";
import { memoryTier } from "../../../dist/src/tier/memory.js";
import { printFeatures } from "../../features.mjs";
import { makeHead } from "../data/heads.mjs";
import { Draws } from "../data/random.mjs";
import { atMost, median, plain } from "../timing.mjs";

const TENSOR_BYTES = 2 ** 20;
/** The second of those that write as they are shows how much equal contestants differ. */
const CONTESTANTS = { raw: "raw", "raw again": "raw", lossless: "lossless", auto: "auto" };
const NAMES = Object.keys(CONTESTANTS);
const DTYPES = { cache: ["bf16", "f32"], durable: ["bf16", "f32"], slow: ["bf16"] };
const AT_MOST_OVER_RAW = 1.05;
const SLOW_BYTES_PER_MS = 50_000;

/** One tensor's bytes: keys of a head, repeated, as bf16 or f32. */
function contentOf(dtype) {
  const { keys } = makeHead("mid", 100, { queryCount: 64 });
  const words = new Uint32Array(keys.slice().buffer);
  const bytes =
    dtype === "f32"
      ? new Uint8Array(words.buffer)
      : new Uint8Array(Uint16Array.from(words, (word) => (word + 0x8000) >>> 16).buffer);
  return Uint8Array.from({ length: TENSOR_BYTES }, (_, index) => bytes[index % bytes.byteLength]);
}

/** A tier in memory that waits for every byte. */
function slowTier() {
  const inner = memoryTier();
  const pass = (bytes) => systemClock.sleep(bytes.byteLength / SLOW_BYTES_PER_MS);
  return {
    ...inner,
    capabilities: { ...inner.capabilities, needsReadBack: false },
    begin: async (key, byteLength) => {
      const writer = await inner.begin(key, byteLength);
      const write = async (source) => {
        await pass(source);
        return writer.write(source);
      };
      return { ...writer, write };
    },
    openRead: async (key) => {
      const reader = await inner.openRead(key);
      const read = async (offset, ...targets) => {
        for (const target of targets) await pass(target);
        return reader.read(offset, ...targets);
      };
      return reader && { ...reader, read };
    },
  };
}

/** Where the records go. */
function placeOf(folder, name, mode, dtype) {
  if (mode === "slow") return { seams: { tier: slowTier() } };
  return { ssd: { directory: join(folder, `${name}-${mode}-${dtype}`), mode } };
}

/** A memory with tensors that can be moved out and back again. */
async function open(folder, name, mode, dtype, count) {
  const memory = await createTensorMemory({
    profile: "generic",
    budgets: { ram: "128MiB", ssd: "2GiB" },
    ...placeOf(folder, name, mode, dtype),
    codecs: { default: CONTESTANTS[name] },
  });
  const content = contentOf(dtype);
  const shape = [TENSOR_BYTES / (dtype === "f32" ? 512 : 256), 128];
  const ids = Array.from({ length: count }, (_, index) => `tensor ${index}`);
  for (const id of ids) {
    const pin = memory.allocate({ kind: "KV_CACHE", id, shape, dtype }).pin();
    pin.bytes.set(content);
    pin[Symbol.dispose]();
  }
  return {
    memory,
    /** Moves one tensor out and back. @returns Milliseconds each, and of all threads' processors. */
    step: async (index) => {
      const id = ids[index];
      const before = process.cpuUsage();
      const startMs = performance.now();
      await memory.swapOut(id);
      const middleMs = performance.now();
      const lease = await memory.acquire(id);
      const endMs = performance.now();
      const { user } = process.cpuUsage(before);
      lease.bytes[0] += 1;
      lease[Symbol.dispose]();
      return { out: middleMs - startMs, back: endMs - middleMs, user: user / 1000 };
    },
    isIntact: async () => {
      const lease = await memory.acquire(ids[0], { access: "read" });
      const isSame = Buffer.compare(lease.bytes.subarray(1), content.subarray(1)) === 0;
      lease[Symbol.dispose]();
      return isSame;
    },
  };
}

export async function run({ isQuick }) {
  await mkdir("build", { recursive: true });
  const folder = await mkdtemp(join("build", "bench-spill-"));
  const figures = [];
  const tables = [];
  const count = isQuick ? 24 : 48;
  const rounds = isQuick ? 9 : 21;
  try {
    for (const mode of Object.keys(DTYPES)) {
      for (const dtype of DTYPES[mode]) {
        const all = {};
        for (const name of NAMES) all[name] = await open(folder, name, mode, dtype, count);
        const samples = Object.fromEntries(NAMES.map((name) => [name, []]));
        const draws = new Draws(1);
        // The first round is not counted: gates learn in it.
        for (let round = -1; round < rounds; round++) {
          const sums = Object.fromEntries(
            NAMES.map((name) => [name, { out: 0, back: 0, user: 0 }]),
          );
          for (let index = 0; index < count; index++) {
            // Whoever follows finds disk and caches as another one left them: everybody follows each as often.
            for (const name of draws.shuffled(NAMES)) {
              const sample = await all[name].step(index);
              for (const part of Object.keys(sample)) sums[name][part] += sample[part];
            }
          }
          if (round >= 0) for (const name of NAMES) samples[name].push(sums[name]);
        }
        const table = {};
        const label = `${mode}/${dtype}`;
        const overRaw = (name, part) =>
          median(samples[name].map((each, round) => part(each) / part(samples.raw[round])));
        for (const name of NAMES) {
          if (!(await all[name].isIntact())) throw new Error(`${name}: the tensor has changed`);
          const { codecs, tier } = all[name].memory.stats();
          const rawBytes = codecs.reduce((sum, each) => sum + each.rawBytes, 0);
          const storedBytes = codecs.reduce((sum, each) => sum + each.storedBytes, 0);
          table[`${label} ${name}`] = {
            "stored / raw": (storedBytes / rawBytes).toFixed(3),
            "out MB/s": (
              (count * TENSOR_BYTES) /
              median(samples[name].map((each) => each.out)) /
              1e3
            ).toFixed(0),
            "back MB/s": (
              (count * TENSOR_BYTES) /
              median(samples[name].map((each) => each.back)) /
              1e3
            ).toFixed(0),
            "time / raw": overRaw(name, (each) => each.out + each.back).toFixed(3),
            "user time / raw": overRaw(name, (each) => each.user).toFixed(3),
            coded: codecs
              .filter(({ codec }) => codec !== "raw")
              .map(({ codec, tensorCount }) => `${codec} ${tensorCount}`)
              .join(", "),
            written: tier.bytesWritten,
          };
          if (name === "lossless") {
            figures.push(plain(`spill-bytes-over-raw/${label}`, storedBytes / rawBytes, "ratio"));
          }
          printFeatures(all[name].memory.stats(), `${label} ${name}`);
          await all[name].memory.close();
        }
        tables.push(table);
        const whole = (each) => each.out + each.back;
        figures.push(
          plain(
            `spill-raw-again-time-over-raw/${label}`,
            overRaw("raw again", whole),
            "ratio",
            "noise",
          ),
          plain(`spill-lossless-time-over-raw/${label}`, overRaw("lossless", whole), "ratio"),
          atMost(
            `spill-auto-time-over-raw/${label}`,
            overRaw("auto", whole),
            AT_MOST_OVER_RAW,
            `out and back, as the memory decides; user time ${overRaw("auto", (each) => each.user).toFixed(3)}`,
          ),
        );
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { figures, tables };
}
