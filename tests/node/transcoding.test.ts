// Records that are coded anew on their way to a colder tier: in fewer bytes, never further from the original than
// the budget says, and what is exact stays exact.
import { describe, expect, it } from "vitest";
import { TranscodeGate } from "../../src/cache/transcode-gate.js";
import { unitCodec } from "../../src/codec/unit-codec.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import type { CodecOptions } from "../../src/memory/codec-options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier, TierFactory } from "../../src/tier/tier.js";
import type { Dtype, ErrorLimit, TensorErrorBudget } from "../../src/types.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

const COLUMNS = 64;

/** Values with outliers, or of low rank, or of few magnitudes. */
function valuesLike(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  const uniform = () => random.uint32() / 2 ** 32;
  const shape = random.uint32() % 3;
  return Float32Array.from({ length: count }, (_each, index) => {
    const scale = 1 + (index % COLUMNS) / 16;
    const normal = uniform() + uniform() + uniform() - 1.5;
    if (shape === 0) return scale * normal;
    if (shape === 1) return uniform() < 0.01 ? 30 * normal : normal / 4;
    return Math.round(8 * normal) / 8;
  });
}

/** Bits of a value's element type; null: the type has all of f32. */
const roundTo: Partial<Record<Dtype, number>> = { bf16: 0xffff0000 };

function elementsOf(values: Float32Array, dtype: "f32" | "bf16"): Uint8Array {
  const words = new Uint32Array(values.buffer);
  if (dtype === "f32") return new Uint8Array(values.buffer);
  const mask = roundTo[dtype] ?? 0;
  words.forEach((word, index) => {
    words[index] = word & mask;
  });
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

function valuesOf(bytes: Uint8Array, dtype: "f32" | "bf16"): Float32Array {
  if (dtype === "f32") return new Float32Array(bytes.slice().buffer);
  const halves = new Uint16Array(bytes.slice().buffer);
  return new Float32Array(Uint32Array.from(halves, (half) => half * 65536).buffer);
}

/** In the metric of a limit. */
function errorOf(values: Float32Array, original: Float32Array, metric: string): number {
  let [squares, errors, largest, farthest] = [0, 0, 0, 0];
  original.forEach((value, index) => {
    const error = Math.abs(value - (values[index] as number));
    squares += value ** 2;
    errors += error ** 2;
    largest = Math.max(largest, Math.abs(value));
    farthest = Math.max(farthest, error);
  });
  return metric === "max" ? farthest / largest : Math.sqrt(errors / squares);
}

const remoteTier =
  (tier: Tier): TierFactory =>
  () =>
    tier;

interface Asked {
  readonly codecs: CodecOptions;
  readonly warm?: string;
  readonly ssd?: Tier;
  readonly remote?: Tier;
}

/** A warm tier, one that stands for the SSD, and a lowest one. */
function open({ codecs, warm = "768KiB", ssd = memoryTier(), remote }: Asked) {
  return openMemory({
    budgets: { ram: "64MiB", warm },
    codecs,
    ...(remote === undefined ? {} : { remote: remoteTier(remote) }),
    seams: { tier: ssd },
  });
}

function allocate(
  memory: TensorMemory,
  id: string,
  dtype: "f32" | "bf16",
  bytes: Uint8Array,
  budget?: TensorErrorBudget,
): void {
  const rows = bytes.byteLength / COLUMNS / (dtype === "f32" ? 4 : 2);
  const shape = [rows, COLUMNS];
  const more = budget === undefined ? {} : { budget };
  using pin = memory.allocate({ kind: "KV_CACHE", id, shape, dtype, ...more }).pin();
  pin.bytes.set(bytes);
}

async function read(memory: TensorMemory, id: string): Promise<Uint8Array> {
  using lease = await memory.acquire(id, { access: "read" });
  return (lease?.bytes ?? new Uint8Array()).slice();
}

const isSame = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0;

/** Waits until what was pushed down has arrived. */
async function settle(memory: TensorMemory): Promise<void> {
  let before = "";
  let sameCount = 0;
  for (let turn = 0; turn < 2000 && sameCount < 10; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const now = JSON.stringify(memory.stats().tiers.map(({ storedBytes }) => storedBytes));
    sameCount = now === before ? sameCount + 1 : 0;
    before = now;
  }
}

describe("a record that moves down", () => {
  it.each([
    ["relative", 0.05],
    ["relative", 0.005],
    ["max", 0.05],
    ["max", 0.01],
  ] as const)(
    "keeps a %s error of %s against the original, whatever its way",
    async (metric, epsilon) => {
      const limit: ErrorLimit = { metric, epsilon };
      await withSeed(`transcoding ${metric} ${epsilon}`, async (seed) => {
        const random = seededRandom(seed ^ Math.round(epsilon * 1e6));
        const memory = await open({
          codecs: { kinds: { KV_CACHE: limit }, colder: "smaller" },
          ssd: memoryTier({ capacityBytes: 2 ** 20 }),
          remote: memoryTier(),
        });
        const originals = new Map<
          string,
          { dtype: "f32" | "bf16"; bytes: Uint8Array; isExact: boolean }
        >();
        for (let index = 0; index < 90; index++) {
          const id = `${index}`;
          const dtype = random.uint32() % 3 === 0 ? "bf16" : "f32";
          const count = COLUMNS * (32 + (random.uint32() % 1500));
          const bytes = elementsOf(valuesLike(count, random.uint32()), dtype);
          const isExact = random.uint32() % 8 === 0;
          allocate(memory, id, dtype, bytes, isExact ? "exact" : undefined);
          originals.set(id, { dtype, bytes, isExact });
          await memory.swapOut(id);
          // Some come back in between, unwritten, and go again.
          if (random.uint32() % 3 === 0) {
            const again = `${random.uint32() % (index + 1)}`;
            await read(memory, again);
            await memory.swapOut(again);
          }
        }
        await settle(memory);
        const { transcoded, tiers } = memory.stats();
        expect(transcoded.reduce((sum, { tensorCount }) => sum + tensorCount, 0)).toBeGreaterThan(
          5,
        );
        expect(tiers.at(-1)?.objectCount).toBeGreaterThan(0);
        let inexactCount = 0;
        for (const [id, { dtype, bytes, isExact }] of originals) {
          const back = await read(memory, id);
          if (isExact) expect(isSame(back, bytes), id).toBe(true);
          const error = errorOf(valuesOf(back, dtype), valuesOf(bytes, dtype), metric);
          expect(error, id).toBeLessThanOrEqual(epsilon);
          if (error > 0) inexactCount += 1;
        }
        expect(inexactCount).toBeGreaterThan(20);
      });
    },
  );

  it("takes fewer bytes there, and says in which codec", async () => {
    const limit: ErrorLimit = { metric: "relative", epsilon: 0.08 };
    const storedWith = async (colder: "as-is" | "smaller") => {
      const ssd = memoryTier();
      const memory = await open({ codecs: { kinds: { KV_CACHE: limit }, colder }, ssd });
      for (let index = 0; index < 40; index++) {
        allocate(memory, `${index}`, "f32", elementsOf(valuesLike(COLUMNS * 2000, 3), "f32"));
        await memory.swapOut(`${index}`);
      }
      await settle(memory);
      const { tiers, transcoded, codecs } = memory.stats();
      const [, warm, cold] = tiers;
      const bytesEach = (level = warm) => (level?.storedBytes ?? 0) / (level?.objectCount ?? 1);
      expect(cold?.demotions).toBe(0);
      expect(warm?.demotions).toBeGreaterThan(0);
      expect(memory.verify().problems).toEqual([]);
      return { warm: bytesEach(), cold: bytesEach(cold), transcoded, codecs };
    };
    const asIs = await storedWith("as-is");
    expect(asIs.transcoded).toEqual([]);
    expect(asIs.cold).toBeCloseTo(asIs.warm, -3);
    const smaller = await storedWith("smaller");
    expect(smaller.cold).toBeLessThan(0.8 * smaller.warm);
    const [row] = smaller.transcoded;
    expect(row?.tensorCount).toBeGreaterThan(0);
    expect(row?.storedBytes).toBeLessThan(row?.rawBytes ?? 0);
    expect(row?.relativeErrorMax).toBeGreaterThan(0);
    expect(row?.relativeErrorMax).toBeLessThanOrEqual(0.08);
    // The warm tier's codecs are fast ones.
    expect(smaller.codecs.map(({ codec }) => codec)).not.toContain("lm");
  });

  it("that is exact becomes lossless, and stays exact", async () => {
    const memory = await open({
      codecs: { default: "lossless", kinds: { KV_CACHE: "auto" }, colder: "smaller" },
    });
    const bytes = elementsOf(valuesLike(COLUMNS * 1000, 4), "bf16");
    for (let index = 0; index < 12; index++) {
      allocate(memory, `${index}`, "bf16", bytes);
      await memory.swapOut(`${index}`);
    }
    await settle(memory);
    expect(memory.stats().transcoded).toMatchObject([{ codec: "plane", relativeErrorMax: 0 }]);
    for (let index = 0; index < 12; index++) {
      expect(isSame(await read(memory, `${index}`), bytes)).toBe(true);
    }
  });

  it("loses nothing more after it came back", async () => {
    const limit: ErrorLimit = { metric: "relative", epsilon: 0.05 };
    const memory = await open({ codecs: { kinds: { KV_CACHE: limit }, colder: "smaller" } });
    const bytes = elementsOf(valuesLike(COLUMNS * 2000, 5), "f32");
    for (let index = 0; index < 10; index++) {
      allocate(memory, `${index}`, "f32", bytes);
      await memory.swapOut(`${index}`);
    }
    await settle(memory);
    const once = await read(memory, "0");
    expect(isSame(once, bytes)).toBe(false);
    await memory.save("0");
    memory.free("0");
    expect(isSame(await read(memory, "0"), once)).toBe(true);
  });

  it("is refused under another word", async () => {
    const codecs = { colder: "tiny" } as never;
    await expect(openMemory({ codecs })).rejects.toMatchObject({ code: "bad-option" });
  });
});

describe("a unit that is coded anew", () => {
  const load = () => unitCodec({ createMemory: createUnsharedMemory }).load();

  it("adds its errors up, over any row of limits", async () => {
    const coder = await load();
    await withSeed("units coded anew", async (seed) => {
      const random = seededRandom(seed);
      let smallerCount = 0;
      for (let round = 0; round < 150; round++) {
        const metric = random.uint32() % 2 === 0 ? "relative" : "max";
        const epsilon = [0.2, 0.05, 0.01, 0.001][random.uint32() % 4] as number;
        const original = valuesLike(COLUMNS * (8 + (random.uint32() % 200)), random.uint32());
        const part = { dtype: "f32" as const, columns: COLUMNS, mayFactor: round % 2 === 0 };
        const bytes = new Uint8Array(original.buffer);
        const first = { metric, epsilon: epsilon / (1 + (random.uint32() % 5)) } as const;
        let unit = coder.encode({ ...part, bytes, limit: first }).bytes;
        const room = new Uint8Array(65_536);
        for (let step = 0; step < 4; step++) {
          const before = unit.byteLength;
          const made = coder.recode(unit, { ...part, limit: { metric, epsilon } }, room);
          if (made === null) throw new Error("malformed");
          unit = made.bytes.slice();
          expect(unit.byteLength).toBeLessThanOrEqual(before);
          if (unit.byteLength < before) smallerCount += 1;
          const target = new Uint8Array(bytes.byteLength);
          coder.decode(unit, "f32", target);
          const values = new Float32Array(target.buffer);
          const error = errorOf(values, original, metric);
          expect(error, `round ${round}, step ${step}`).toBeLessThanOrEqual(epsilon);
          // What the head says is a bound.
          expect(errorOf(values, original, "relative")).toBeLessThanOrEqual(
            made.relativeError * (1 + 1e-5) + 1e-12,
          );
        }
      }
      expect(smallerCount).toBeGreaterThan(30);
    });
  });

  it("stays as it is where nothing is left, and says so when it is malformed", async () => {
    const coder = await load();
    const original = valuesLike(COLUMNS * 100, SEED);
    const part = { dtype: "f32" as const, columns: COLUMNS, mayFactor: false };
    const limit: ErrorLimit = { metric: "relative", epsilon: 0.01 };
    const bytes = new Uint8Array(original.buffer);
    const unit = coder.encode({ ...part, bytes, limit }).bytes.slice();
    const room = new Uint8Array(65_536);
    const again = coder.recode(unit, { ...part, limit: null }, room);
    expect(again?.bytes).toEqual(unit);
    unit[0] = 0;
    expect(coder.recode(unit, { ...part, limit }, room)).toBeNull();
  });
});

describe("the gate of transcoding", () => {
  const slow = { bytesPerSecond: 10e6, physicalBytes: 0, capacityBytes: 1e12 };
  const fast = { ...slow, bytesPerSecond: 5e9 };

  function learn(gate: TranscodeGate): void {
    // 20 ns a byte, of which 40 % are saved.
    for (let index = 0; index < 5; index++) gate.note("KV_CACHE", 1e6, 10, 0.4);
  }

  it("says yes where a byte costs more time than coding it, and no where it does not", () => {
    const gate = new TranscodeGate();
    learn(gate);
    expect(gate.asks("KV_CACHE", 1e6, slow)).toBe(true);
    expect(gate.asks("KV_CACHE", 1e6, fast)).toBe(false);
    expect(gate.asks("KV_CACHE", 1e6, slow)).toBe(true);
    expect(gate.asks("KV_CACHE", 1000, slow)).toBe(false);
  });

  it("says yes where the tier is nearly full, and now and then to learn", () => {
    const gate = new TranscodeGate();
    learn(gate);
    expect(gate.asks("KV_CACHE", 1e6, { ...fast, physicalBytes: 0.81e12 })).toBe(true);
    const answers = Array.from({ length: 66 }, () => gate.asks("KV_CACHE", 1e6, fast));
    expect(answers.filter((answer) => answer)).toHaveLength(2);
    expect(gate.asks("PARAMETERS", 1e6, fast)).toBe(true);
  });
});
