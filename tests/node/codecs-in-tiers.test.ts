// Tensors are coded when they leave RAM and decoded when they come back: exactly, or within the budget
// that was given, and damage never gets through.
import { describe, expect, it } from "vitest";
import { CodecGate } from "../../src/cache/codec-gate.js";
import { UnitStream } from "../../src/cache/decoding.js";
import { RecordCoder } from "../../src/cache/record-coder.js";
import type { UnitCoder } from "../../src/codec/codec.js";
import { plainCodec } from "../../src/codec/plain.js";
import { Hasher } from "../../src/core/hash-stream.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import type { CodecOptions } from "../../src/memory/codec-options.js";
import { encodeHeader, type RecordHeader, recordKey } from "../../src/record/record.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier, TierReader } from "../../src/tier/tier.js";
import type { TensorErrorBudget } from "../../src/types.js";
import { type PrivateBytes, privateBytes, privateCopy } from "../../src/util/private-bytes.js";
import { CODED_RECORD } from "../support/coded-record.js";
import { closeMemory, openMemory, SEED, withSeed } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

/** A tier that stays open, so that another memory can have it. */
function keptTier(options?: { readonly capacityBytes: number }): Tier {
  const tier = memoryTier(options);
  return { ...tier, close: async () => {} };
}

const open = (codecs: CodecOptions, tier: Tier = memoryTier(), ram = "64MiB") =>
  openMemory({ budgets: { ram }, codecs, seams: { tier } });

/** Values like those of a KV cache: roughly normal, of 16 significant bits. */
function valuesLike(count: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  const uniform = () => random.uint32() / 2 ** 32;
  const values = Float32Array.from({ length: count }, (_each, index) => {
    const scale = 1 + (index % 64) / 16;
    return scale * (uniform() + uniform() + uniform() - 1.5);
  });
  const words = new Uint32Array(values.buffer);
  words.forEach((word, index) => {
    words[index] = word & 0xffff0000;
  });
  return values;
}

function allocate(
  memory: TensorMemory,
  id: string,
  values: Float32Array,
  more: { readonly budget?: TensorErrorBudget; readonly tag?: string } = {},
): void {
  const shape = [values.length / 64, 64];
  const tensor = memory.allocate({ kind: "KV_CACHE", id, shape, dtype: "f32", ...more });
  using pin = tensor.pin();
  pin.view.set(values);
}

async function read(memory: TensorMemory, id: string): Promise<Float32Array> {
  using lease = await memory.acquire<"f32">(id, { access: "read" });
  return (lease?.view ?? new Float32Array()).slice();
}

/** Equal bytes: unlike values, these are compared fast, and NaN is what it was. */
function expectSame(values: Float32Array, original: Float32Array): void {
  const bytesOf = (array: Float32Array) => new Uint8Array(array.buffer, 0, array.byteLength);
  expect(Buffer.compare(bytesOf(values), bytesOf(original))).toBe(0);
}

function relativeError(values: Float32Array, original: Float32Array): number {
  let squares = 0;
  let errors = 0;
  original.forEach((value, index) => {
    squares += value ** 2;
    errors += (value - (values[index] as number)) ** 2;
  });
  return Math.sqrt(errors / squares);
}

/** The bytes of the only object of a tier. */
async function onlyObject(tier: Tier): Promise<{ key: string; bytes: PrivateBytes }> {
  for await (const key of tier.list()) {
    const reader = (await tier.openRead(key)) as TierReader;
    const bytes = privateBytes(reader.byteLength);
    await reader.read(0, bytes);
    await reader.close();
    return { key, bytes };
  }
  throw new Error("the tier is empty");
}

async function plant(tier: Tier, key: string, bytes: PrivateBytes): Promise<void> {
  const writer = await tier.begin(key, bytes.byteLength);
  if (writer === "no-space") throw new Error("no space");
  await writer.write(bytes);
  await writer.commit({ durable: false });
}

describe("a lossless tensor", () => {
  it.each([
    ["of one part", 64 * 64],
    ["of many parts", 64 * 3000],
    ["longer than the buffer that is encoded ahead", 64 * 40_000],
  ])("%s is stored in fewer bytes and comes back as it was", async (_name, count) => {
    const memory = await open({ default: "lossless" });
    const values = valuesLike(count, 1);
    allocate(memory, "a", values);
    await memory.swapOut("a");
    expectSame(await read(memory, "a"), values);
    const { codecs, tier } = memory.stats();
    const plane = codecs.find(({ codec }) => codec === "plane");
    expect(plane).toMatchObject({ tensorCount: 1, rawBytes: count * 4, relativeErrorMax: 0 });
    expect(plane?.storedBytes).toBeLessThan(count * 4 * 0.6);
    expect(tier.storedBytes).toBeLessThan(count * 4 * 0.6 + 512);
    expect(memory.report()).toMatch(/^codec +tensors/m);
  });

  it("of any element type and content comes back as it was", async () => {
    const memory = await open({ default: "lossless" });
    await withSeed("tensors of any type", async (seed) => {
      const random = seededRandom(seed);
      for (const dtype of ["u8", "bf16", "f16", "f64", "i32", "u64"] as const) {
        const id = `of ${dtype}`;
        const shape = [1 + (random.uint32() % 300), 1 + (random.uint32() % 700)];
        const tensor = memory.allocate({ kind: "PARAMETERS", id, shape, dtype });
        let original: Uint8Array;
        {
          using pin = tensor.pin();
          pin.bytes.forEach((_byte, index, bytes) => {
            bytes[index] = random.uint32() & (index % 2 === 0 ? 0x0f : 0xff);
          });
          original = pin.bytes.slice();
        }
        await memory.swapOut(id);
        using lease = await memory.acquire(id, { access: "read" });
        expect(
          Buffer.compare(lease?.bytes ?? new Uint8Array(), original),
          `${dtype} ${shape}`,
        ).toBe(0);
        lease?.[Symbol.dispose]();
        memory.free(id);
      }
    });
    expect(memory.stats().codecs.length).toBeGreaterThan(0);
  });

  it("that does not get shorter is stored as it is", async () => {
    const memory = await open({ default: "lossless" });
    const random = seededRandom(3);
    const noise = new Float32Array(
      Uint32Array.from({ length: 2 ** 20 }, () => random.uint32()).buffer,
    );
    allocate(memory, "noise", noise);
    await memory.swapOut("noise");
    expectSame(await read(memory, "noise"), noise);
    expect(memory.stats().codecs[0]).toMatchObject({
      codec: "raw",
      tensorCount: 1,
      storedBytes: 2 ** 22,
    });
  });

  it("fits a tier that has no room for it as it is", async () => {
    const tier = memoryTier({ capacityBytes: 300_000 });
    const memory = await open({ default: "auto" }, tier);
    const values = valuesLike(100_032, 4);
    allocate(memory, "a", values);
    expect(await memory.swapOut("a")).toBe("stored");
    expectSame(await read(memory, "a"), values);
    const plain = await open({ default: "raw" }, memoryTier({ capacityBytes: 300_000 }));
    allocate(plain, "a", values);
    expect(await plain.swapOut("a")).toBe("no-space");
  });

  it("that is written while it is coded stays where it is", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await open({ default: "lossless" }, gate.tier);
    const values = valuesLike(64 * 40_000, 5);
    allocate(memory, "a", values);
    gate.close("write");
    const moving = memory.swapOut("a");
    await gate.waiting;
    {
      using pin = memory.tryAcquire<"f32">("a");
      pin?.view.fill(1.2345, 64 * 20_000);
    }
    gate.open();
    await expect(moving).rejects.toMatchObject({ code: "busy" });
    expect(memory.tensor("a")?.isResident).toBe(true);
    expect((await read(memory, "a"))[0]).toBe(values[0]);
  });

  it("needs no codec before the first one is coded", async () => {
    let memoryCount = 0;
    const createMemory = (pages: number) => {
      memoryCount += 1;
      return createUnsharedMemory(pages);
    };
    const seams = { tier: memoryTier(), createMemory };
    const memory = await openMemory({ budgets: { ram: "64MiB" }, seams });
    allocate(memory, "a", valuesLike(6400, 6));
    const { byCategory } = memory.stats().budget;
    const before = memoryCount;
    await memory.swapOut("a");
    expect(memoryCount, "the first of a kind is written as it is").toBe(before);
    allocate(memory, "b", valuesLike(6400, 7));
    await memory.swapOut("b");
    expect(memoryCount, "the second is tried in codecs").toBe(before + 1);
    expect(memory.stats().budget.byCategory.staging).toBe(byCategory.staging);
  });
});

describe("without room for the codec", () => {
  /** The platform refuses the workspace, and nothing else. */
  const createMemory = (pages: number) => {
    if (pages === 16) throw new RangeError("no room");
    return createUnsharedMemory(pages);
  };

  it("tensors are written as they are", async () => {
    const seams = { tier: memoryTier(), createMemory };
    const codecs = { default: "lossless" } as const;
    const memory = await openMemory({ budgets: { ram: "64MiB" }, codecs, seams });
    const values = valuesLike(6400, 14);
    allocate(memory, "a", values);
    expect(await memory.swapOut("a")).toBe("stored");
    expectSame(await read(memory, "a"), values);
    expect(memory.stats().codecs).toMatchObject([{ codec: "raw", tensorCount: 1 }]);
  });

  it("coded records cannot be read, and stay where they are", async () => {
    const tier = keptTier();
    const memory = await open({ default: "lossless" }, tier);
    const values = valuesLike(6400, 15);
    allocate(memory, "a", values);
    await memory.save("a");
    await closeMemory(memory);
    await tier.open();
    const seams = { tier, createMemory };
    const later = await openMemory({ budgets: { ram: "64MiB" }, seams });
    await expect(later.acquire("a")).rejects.toMatchObject({ code: "out-of-memory" });
    await closeMemory(later);
    await tier.open();
    expectSame(await read(await open({}, tier), "a"), values);
  });

  it("an encoder that fails leaves the tensor where it is, and the buffer to the next one", async () => {
    let isFailing = true;
    const plain = await plainCodec.load();
    const coder: UnitCoder = {
      ...plain,
      encode: (part) => {
        if (isFailing) throw new RangeError("injected");
        // Half of each unit, so that it gets shorter.
        return plain.encode({ ...part, bytes: part.bytes.subarray(0, part.bytes.byteLength / 2) });
      },
    };
    const clock = manualClock({ sleeping: "skip" });
    const codec = { ...plainCodec, load: async () => coder };
    const records = new RecordCoder({ codec, clock, aheadBytes: 10_000 });
    const bytes = new Uint8Array(40_000).fill(7);
    const source = (offset: number, byteLength: number) =>
      bytes.subarray(offset, offset + byteLength);
    const shape = [100, 100];
    const header: RecordHeader = {
      ...{ tenant: "", fingerprint: "", id: "a", kind: "PARAMETERS", layout: "row-major" },
      ...{
        dtype: "f32",
        shape,
        codecId: 0,
        isDurable: false,
        isSaved: false,
        generation: 1,
        expiresMs: 0,
      },
      ...{ rawBytes: 40_000, storedBytes: 40_000 },
    };
    const coding = { isAlways: true, limit: null, recoding: null };
    await expect(records.encode(header, source, coding)).rejects.toThrow("injected");
    isFailing = false;
    // The second one at the same time has no buffer, and gives the same bytes.
    const [first, second] = await Promise.all([
      records.encode(header, source, coding),
      records.encode(header, source, coding),
    ]);
    const joined = await Promise.all(
      [first, second].map(async (each) => {
        const pieces: Uint8Array[] = [];
        for await (const piece of each?.pieces() ?? []) pieces.push(piece.slice());
        return Buffer.concat(pieces);
      }),
    );
    expect(joined[0]?.byteLength).toBe(first?.storedBytes);
    expect(joined[0]?.byteLength).toBe(20_000 + 10 * 8);
    expect(joined[1]).toEqual(joined[0]);
    first?.release();
    second?.release();
  });
});

describe("an error budget", () => {
  const lossy = { kinds: { KV_CACHE: { metric: "relative", epsilon: 0.02 } } } as const;

  it("of a kind is kept, and measured", async () => {
    const memory = await open(lossy);
    const values = valuesLike(64 * 1000, 8);
    allocate(memory, "a", values);
    await memory.swapOut("a");
    const error = relativeError(await read(memory, "a"), values);
    expect(error).toBeGreaterThan(1e-4);
    expect(error).toBeLessThanOrEqual(0.02);
    const { codecs, tier } = memory.stats();
    const errorMax = Math.max(...codecs.map(({ relativeErrorMax }) => relativeErrorMax));
    expect(errorMax).toBeGreaterThan(1e-4);
    expect(errorMax).toBeLessThanOrEqual(0.02);
    expect(tier.storedBytes).toBeLessThan(values.byteLength / 3);
  });

  it("is spent once: what was only read loses no more", async () => {
    const tier = keptTier();
    const own = { metric: "relative", epsilon: 0.05 } as const;
    const memory = await open({}, tier);
    const values = valuesLike(64 * 500, 9);
    allocate(memory, "a", values, { budget: own });
    await memory.swapOut("a");
    const once = await read(memory, "a");
    expect(relativeError(once, values)).toBeGreaterThan(1e-4);
    for (let round = 0; round < 3; round++) {
      await memory.swapOut("a");
      expectSame(await read(memory, "a"), once);
    }
    // Another record of the same values is not coarser than they are: no inexact codec writes it.
    const inexactCounts = () =>
      memory
        .stats()
        .codecs.filter(({ relativeErrorMax }) => relativeErrorMax > 0)
        .map(({ codec, tensorCount }) => [codec, tensorCount]);
    const before = inexactCounts();
    expect(before).not.toEqual([]);
    await memory.save("a");
    expect(inexactCounts()).toEqual(before);
    memory.free("a");
    expectSame(await read(memory, "a"), once);
    await closeMemory(memory);
    await tier.open();
  });

  it("counts anew when the tensor was written", async () => {
    const memory = await open(lossy);
    const values = valuesLike(64 * 500, 10);
    allocate(memory, "a", values);
    await memory.swapOut("a");
    const once = await read(memory, "a");
    {
      using lease = await memory.acquire<"f32">("a");
      if (lease !== null) lease.view[0] = 3;
    }
    once[0] = 3;
    await memory.swapOut("a");
    expect(relativeError(await read(memory, "a"), once)).toBeLessThanOrEqual(0.02);
  });

  it("of a kind does not change what is saved; the tensor's own does", async () => {
    const memory = await open(lossy);
    const values = valuesLike(64 * 500, 11);
    allocate(memory, "a", values);
    await memory.save("a");
    memory.free("a");
    expectSame(await read(memory, "a"), values);
    allocate(memory, "b", values, { budget: { metric: "max", epsilon: 0.05 } });
    await memory.save("b");
    memory.free("b");
    const back = await read(memory, "b");
    const magnitude = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const largest = back.reduce(
      (most, value, index) => Math.max(most, Math.abs(value - (values[index] as number))),
      0,
    );
    expect(largest).toBeGreaterThan(0);
    expect(largest).toBeLessThanOrEqual(0.05 * magnitude);
  });

  it("does not reach exact tensors, other tags, or records of earlier processes", async () => {
    const tier = keptTier();
    const rules = { ...lossy, tags: { "layer 0": "raw" } } as const;
    const memory = await open(rules, tier);
    const values = valuesLike(64 * 500, 12);
    allocate(memory, "critical", values, { budget: "exact" });
    allocate(memory, "first layer", values, { tag: "layer 0" });
    for (const id of ["critical", "first layer"]) {
      await memory.swapOut(id);
      expectSame(await read(memory, id), values);
    }
    const raw = memory.stats().codecs.find(({ codec }) => codec === "raw");
    expect(raw).toMatchObject({ tensorCount: 1, rawBytes: values.byteLength });
    await memory.save("critical");
    await closeMemory(memory);
    await tier.open();
    const later = await open(rules, tier);
    {
      using lease = await later.acquire<"f32">("critical");
      if (lease !== null) lease.view[0] = 7;
    }
    await later.swapOut("critical");
    const changed = values.slice();
    changed[0] = 7;
    expectSame(await read(later, "critical"), changed);
  });

  it("is refused when it makes no sense", async () => {
    const bad: readonly unknown[] = [
      { default: "zip" },
      { default: { metric: "relative", epsilon: 0.1 } },
      { kinds: { KV: "raw" } },
      { kinds: { KV_CACHE: { metric: "attention", epsilon: 0.1 } } },
      { kinds: { KV_CACHE: { metric: "max", epsilon: 2 } } },
      { kinds: { KV_CACHE: { metric: "max", epsilon: Number.NaN } } },
      { tags: { a: "auto", b: null } },
      { level: 3 },
    ];
    for (const codecs of bad) {
      await expect(open(codecs as CodecOptions), JSON.stringify(codecs)).rejects.toMatchObject({
        code: "bad-option",
      });
    }
    const memory = await open({});
    for (const budget of ["lossy", 1, { metric: "max" }, { metric: "mse", epsilon: 0 }]) {
      const options = { kind: "KV_CACHE", byteLength: 64, budget } as never;
      expect(() => memory.allocate(options)).toThrow(
        expect.objectContaining({ code: "bad-option" }),
      );
    }
    expect(memory.stats().tensors.count).toBe(0);
  });
});

describe("a coded record", () => {
  async function stored() {
    const tier = keptTier();
    const memory = await open({ default: "lossless" }, tier);
    const values = valuesLike(640, 13);
    allocate(memory, "a", values);
    await memory.save("a");
    await closeMemory(memory);
    await tier.open();
    return { tier, values, ...(await onlyObject(tier)) };
  }

  async function verdictOf(tier: Tier, values: Float32Array, ram = "64MiB"): Promise<string> {
    const memory = await openMemory({ budgets: { ram }, seams: { tier } });
    try {
      const back = await read(memory, "a");
      return Buffer.compare(Buffer.from(back.buffer), Buffer.from(values.buffer)) === 0
        ? "intact"
        : "wrong";
    } catch (error) {
      return (error as { code: string }).code;
    } finally {
      await closeMemory(memory);
      await tier.open();
    }
  }

  it("has these bytes, for ever", async () => {
    const { tier, values, key, bytes } = await stored();
    const golden = Buffer.from(CODED_RECORD, "base64");
    expect(Buffer.from(bytes).toString("base64")).toBe(CODED_RECORD);
    expect(golden[12], "the codec").toBe(16);
    expect(golden.subarray(256, 264).toString("latin1")).toBe("TCB1\x01\x03\x01\x00");
    await plant(tier, key, privateCopy(golden));
    expect(await verdictOf(tier, values)).toBe("intact");
  });

  it("is left alone by a memory that is too small for codecs", async () => {
    const { tier, values } = await stored();
    expect(await verdictOf(tier, values, "8MiB")).toBe("incompatible");
    expect(await verdictOf(tier, values)).toBe("intact");
  });

  it("with a byte changed anywhere is corrupt, or of another version", async () => {
    const { tier, values, key, bytes } = await stored();
    const seen = new Set<string>();
    for (let index = 0; index < bytes.byteLength; index += index < 512 ? 7 : 61) {
      const changed = bytes.slice() as PrivateBytes;
      changed[index] = (changed[index] as number) ^ 0x10;
      await plant(tier, key, changed);
      const verdict = await verdictOf(tier, values);
      seen.add(verdict);
      expect(["corruption", "incompatible"], `byte ${index}`).toContain(verdict);
    }
    expect(seen.has("corruption")).toBe(true);
  });

  it("whose units are malformed under a digest that fits is corrupt", async () => {
    const { tier, values, key, bytes } = await stored();
    const hasher = await Hasher.create(1, createUnsharedMemory);
    const sealed = (header: RecordHeader, units: Uint8Array): PrivateBytes => {
      const head = encodeHeader({ ...header, storedBytes: units.byteLength });
      const record = privateBytes(head.byteLength + units.byteLength + 16);
      record.set(head);
      record.set(units, head.byteLength);
      const hash = hasher.open();
      hash.update(record.subarray(0, record.byteLength - 16));
      record.set(hash.end(), record.byteLength - 16);
      return record;
    };
    const name = { tenant: "", fingerprint: "", id: "a" };
    expect(key).toBe(await recordKey(name, true));
    const header: RecordHeader = {
      ...{ ...name, kind: "KV_CACHE", dtype: "f32", shape: [10, 64], layout: "row-major" },
      ...{ codecId: 16, isDurable: false, isSaved: true, generation: 1, expiresMs: 0 },
      ...{ rawBytes: 2560, storedBytes: 0 },
    };
    const units = bytes.subarray(256, bytes.byteLength - 16);
    const verdicts: Record<string, string> = {};
    const random = seededRandom(SEED);
    const judge = async (
      label: string,
      changed: Uint8Array,
      changes: Partial<RecordHeader> = {},
    ) => {
      await plant(tier, key, sealed({ ...header, ...changes }, changed));
      verdicts[label] = await verdictOf(tier, values);
    };
    await judge("intact", units);
    expect(verdicts["intact"]).toBe("intact");
    await judge("two units", Uint8Array.of(...units.subarray(0, 700), ...units.subarray(0, 700)));
    await judge("cut", units.subarray(0, units.byteLength - 8));
    await judge("nothing but a head", units.subarray(0, 64));
    await judge("less than a head", units.subarray(0, 9));
    await judge(
      "noise",
      units.map(() => random.uint32()),
    );
    await judge("zeros behind it", Uint8Array.of(...units, ...new Uint8Array(64)));
    await judge("of another type", units, { dtype: "i32" });
    await judge("of a longer tensor", units, { shape: [20, 64], rawBytes: 5120 });
    await judge("of a shorter tensor", units, { shape: [9, 64], rawBytes: 2304 });
    await judge("as long as the tensor", new Uint8Array(2560));
    delete verdicts["intact"];
    expect(new Set(Object.values(verdicts)), JSON.stringify(verdicts)).toEqual(
      new Set(["corruption"]),
    );
  });
});

describe("units that come in pieces", () => {
  it("are put together, wherever they are cut", async () => {
    const coder = await plainCodec.load();
    const source = Uint8Array.from({ length: 10_000 }, (_each, index) => index * 7);
    const units: number[] = [];
    const dtype = "u8";
    for (let at = 0; at < source.byteLength; at += 1000) {
      const bytes = source.subarray(at, at + 1000);
      units.push(...coder.encode({ bytes, dtype, columns: 1, limit: null, mayFactor: true }).bytes);
    }
    const stored = Uint8Array.from(units);
    await withSeed("cuts", (seed) => {
      const random = seededRandom(seed);
      for (let round = 0; round < 200; round++) {
        const target = new Uint8Array(source.byteLength);
        const room = new Uint8Array(plainCodec.unitBytesMax);
        const stream = new UnitStream(coder, room, source.byteLength, (unit, offset) => {
          const decoded = coder.decode(unit, dtype, target.subarray(offset));
          return decoded?.byteLength ?? null;
        });
        const mostBytes = [1, 3, 9, 50, 5000][round % 5] as number;
        for (let at = 0; at < stored.length; ) {
          const count = 1 + (random.uint32() % mostBytes);
          if (stream.end() || !stream.push(stored.subarray(at, at + count))) {
            throw new Error(`at ${at}`);
          }
          at += count;
        }
        expect(stream.end()).toBe(true);
        expect(Buffer.compare(target, source)).toBe(0);
        expect(stream.push(stored.subarray(0, 1008))).toBe(false);
      }
    });
  });
});

describe("the gate", () => {
  /** Writes and reads tensors of a kind under these costs, in ms. @returns Time beside that of raw. */
  function run(gate: CodecGate, count: number, costs: { plain: number; coded: number }) {
    let spent = 0;
    let codedCount = 0;
    for (let index = 0; index < count; index++) {
      const isCoded = gate.asksCoded("KV_CACHE", 2 ** 20);
      const cost = isCoded ? costs.coded : costs.plain;
      gate.noteWrite("KV_CACHE", 2 ** 20, isCoded, cost);
      gate.noteRead("KV_CACHE", 2 ** 20, isCoded, cost / 2);
      spent += cost;
      codedCount += isCoded ? 1 : 0;
    }
    return { overRaw: spent / (count * costs.plain), codedShare: codedCount / count };
  }

  it("codes where that is faster, and hardly ever where it is not", () => {
    expect(run(new CodecGate(), 1000, { plain: 10, coded: 7 })).toMatchObject({
      codedShare: expect.toSatisfy((share: number) => share > 0.95),
    });
    for (const coded of [10, 11, 15, 30, 200]) {
      const { overRaw, codedShare } = run(new CodecGate(), 2000, { plain: 10, coded });
      expect(overRaw, `${coded}`).toBeLessThan(1.04);
      expect(codedShare, `${coded}`).toBeLessThan(0.05);
    }
  });

  it("follows a device that changes, and only then", () => {
    const gate = new CodecGate();
    run(gate, 100, { plain: 10, coded: 20 });
    // Five per cent are no reason to change.
    expect(run(gate, 500, { plain: 10, coded: 9.5 }).codedShare).toBeLessThan(0.1);
    run(gate, 500, { plain: 40, coded: 15 });
    expect(run(gate, 500, { plain: 40, coded: 15 }).codedShare).toBeGreaterThan(0.9);
  });

  it("forgets a first write that took long, and finds out in noise", async () => {
    const gate = new CodecGate();
    gate.noteWrite("KV_CACHE", 2 ** 20, false, 500);
    const { overRaw } = run(gate, 300, { plain: 10, coded: 14 });
    expect(overRaw).toBeLessThan(1.05);
    await withSeed("noise", (seed) => {
      const random = seededRandom(seed);
      // A third of all writes takes up to five times as long.
      const noisy = (cost: number) =>
        random.uint32() % 3 === 0 ? cost * (1 + (random.uint32() % 5)) : cost;
      for (const [plain, coded] of [
        [10, 14],
        [10, 7],
      ] as const) {
        const other = new CodecGate();
        let codedCount = 0;
        for (let index = 0; index < 2000; index++) {
          const isCoded = other.asksCoded("KV_CACHE", 2 ** 20);
          other.noteWrite("KV_CACHE", 2 ** 20, isCoded, noisy(isCoded ? coded : plain));
          codedCount += isCoded ? 1 : 0;
        }
        if (coded > plain) expect(codedCount / 2000).toBeLessThan(0.05);
        else expect(codedCount / 2000).toBeGreaterThan(0.95);
      }
    });
  });

  it("is not impressed by one stall, nor by a clock that stands still", () => {
    const gate = new CodecGate();
    run(gate, 200, { plain: 10, coded: 8 });
    gate.noteWrite("KV_CACHE", 2 ** 20, true, 11);
    expect(gate.asksCoded("KV_CACHE", 2 ** 20)).toBe(true);
    expect(run(new CodecGate(), 500, { plain: 0, coded: 0 }).codedShare).toBeLessThan(0.05);
  });

  it("leaves short tensors as they are, and keeps kinds and sizes apart", () => {
    const gate = new CodecGate();
    for (let round = 0; round < 10; round++) expect(gate.asksCoded("KV_CACHE", 4096)).toBe(false);
    run(gate, 100, { plain: 10, coded: 5 });
    expect(gate.asksCoded("KV_CACHE", 2 ** 20)).toBe(true);
    expect(gate.asksCoded("PARAMETERS", 2 ** 20)).toBe(false);
    expect(gate.asksCoded("KV_CACHE", 2 ** 24)).toBe(false);
  });

  it("measures by the memory's clock: a slow tier is written in codecs", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const inner = memoryTier();
    // Ten megabytes a second.
    const slow: Tier = {
      ...inner,
      begin: async (key, byteLength) => {
        const writer = await inner.begin(key, byteLength);
        if (writer === "no-space") return writer;
        return {
          ...writer,
          write: async (source) => {
            clock.advance(source.byteLength / 10_000);
            return writer.write(source);
          },
        };
      },
    };
    const memory = await openMemory({ budgets: { ram: "64MiB" }, seams: { tier: slow, clock } });
    for (let index = 0; index < 20; index++) {
      allocate(memory, `${index}`, valuesLike(64 * 256, index));
      await memory.swapOut(`${index}`);
    }
    const counts = new Map(memory.stats().codecs.map((each) => [each.codec, each.tensorCount]));
    expect(counts.get("plane")).toBeGreaterThan(15);
    expect(counts.get("raw")).toBeLessThan(5);
  });
});
