// Tensors in codecs on their way into tiers: exact ones come back as they were, others inside their budgets.
import { describe, expect, it } from "vitest";
import { RecordCoder } from "../../src/cache/record-coder.js";
import type { UnitCoder } from "../../src/codec/codec.js";
import { plainCodec } from "../../src/codec/plain.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import type { CodecOptions } from "../../src/memory/codec-options.js";
import type { RecordHeader } from "../../src/record/record.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import {
  allocate,
  expectSame,
  keptTier,
  open,
  read,
  relativeError,
  valuesLike,
} from "../support/coded-tensors.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

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
