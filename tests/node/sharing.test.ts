// Tensors of equal content: one block, one swapped-out copy, and bytes of its own for whoever writes.
import { describe, expect, it } from "vitest";
import type { TensorRecord } from "../../src/cache/tensor-record.js";
import { CONTENT_PREFIX } from "../../src/limits.js";
import { Tensor } from "../../src/memory/tensor.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier, seededRandom } from "../../src/testing/index.js";
import { allocateFilled, collect, expectFilled, onMemory } from "../support/filled.js";
import { checkQuiet, closeMemory, openMemory, openOn, withSeed } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

const KIB = 1024;
const MIB = 2 ** 20;

function filled(byteLength: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: byteLength }, (_, index) => (index * 7 + seed) & 0xff);
}

function intern(memory: TensorMemory, id: string, seed: number, byteLength = 4 * KIB) {
  return memory.intern({ kind: "PARAMETERS", id, byteLength, bytes: filled(byteLength, seed) });
}

function grantedBytes(memory: TensorMemory): number {
  return memory.stats().pools.reduce((sum, pool) => sum + pool.grantedBytes, 0);
}

async function write(memory: TensorMemory, id: string, seed: number): Promise<void> {
  using lease = await memory.acquire(id);
  lease?.bytes.set(filled(lease.bytes.byteLength, seed));
}

describe("intern", () => {
  it("keeps equal content once, over and over", async () => {
    const memory = await onMemory();
    const first = await intern(memory, "a", 1, MIB);
    const { usedBytes } = memory.stats().budget;
    const granted = grantedBytes(memory);
    for (const id of ["b", "c", "d"]) await intern(memory, id, 1, MIB);
    expect(memory.stats().budget.usedBytes).toBe(usedBytes);
    expect(grantedBytes(memory)).toBe(granted);
    expect(memory.stats().tensors).toMatchObject({ count: 4, hotCount: 1, hotBytes: MIB });
    expect(memory.stats().sharing).toEqual({
      sharedCount: 4,
      contentCount: 1,
      savedBytes: 3 * MIB,
      copyCount: 0,
    });
    expect(memory.report()).toContain("4 tensors in 1 contents: 3.0 MiB saved");
    expect(first).toMatchObject({ id: "a", isResident: true, byteLength: MIB });
    for (const id of ["a", "b", "c", "d"]) await expectFilled(memory, id, MIB, 1);
    using pin = memory.tryAcquire("c", { access: "read" });
    expect(pin?.id).toBe("c");
  });

  it("tells kinds, dtypes, shapes, layouts, alignments, bytes and lengths apart", async () => {
    const memory = await onMemory();
    const bytes = filled(64, 1);
    const base = { kind: "PARAMETERS", dtype: "u8", shape: [8, 8], bytes } as const;
    const variants = [
      base,
      { ...base, kind: "KV_CACHE" },
      { ...base, dtype: "i8" },
      { ...base, shape: [64] },
      { ...base, layout: "nhwc", shape: [1, 2, 4, 8] },
      { ...base, shape: [1, 2, 4, 8] },
      { ...base, alignment: 64 },
      { ...base, bytes: filled(64, 2) },
      { ...base, shape: [8, 4], bytes: filled(32, 1) },
    ] as const;
    for (const [index, options] of variants.entries()) {
      await memory.intern({ ...options, id: `a${index}` });
    }
    const { contentCount, sharedCount } = memory.stats().sharing;
    expect([contentCount, sharedCount]).toEqual([variants.length, variants.length]);
    for (const [index, options] of variants.entries()) {
      await memory.intern({ ...options, id: `b${index}` });
    }
    expect(memory.stats().sharing).toMatchObject({ contentCount, sharedCount: 2 * sharedCount });
  });

  it("shares nothing between namespaces", async () => {
    const tier = memoryTier();
    const one = await openMemory({ seams: { tier }, namespace: { fingerprint: "one" } });
    await intern(one, "a", 1);
    await one.save("a");
    await closeMemory(one);
    const two = await openMemory({ seams: { tier }, namespace: { fingerprint: "two" } });
    expect(await two.acquire("a")).toBeNull();
    await intern(two, "b", 1);
    expect(two.stats().sharing).toMatchObject({ contentCount: 1, savedBytes: 0 });
  });

  it("refuses what is wrong before anything changes", async () => {
    const memory = await onMemory();
    const bytes = filled(16, 1);
    const base = { kind: "PARAMETERS", id: "a", byteLength: 16, bytes } as const;
    await memory.intern(base);
    const refused = (options: object, code: string) =>
      expect(memory.intern(options as never)).rejects.toThrow(expect.objectContaining({ code }));
    await refused(base, "duplicate-id");
    await refused({ ...base, id: undefined }, "bad-id");
    await refused({ ...base, id: `${CONTENT_PREFIX}x` }, "bad-id");
    await refused({ ...base, id: "b", bytes: filled(15, 1) }, "bad-size");
    await refused({ ...base, id: "b", bytes: [1] }, "bad-size");
    await refused({ ...base, id: "b", disposable: true }, "bad-option");
    await refused({ ...base, id: "b", zero: true }, "bad-option");
    await refused({ ...base, id: "b", wrong: 1 }, "bad-option");
    expect(() => memory.allocate({ kind: "PARAMETERS", byteLength: 1, id: "a" })).toThrow("in use");
    await expect(memory.tie("b", "none")).rejects.toMatchObject({ code: "unknown-id" });
    await expect(memory.tie("a", "a")).rejects.toMatchObject({ code: "duplicate-id" });
    memory.allocate({ kind: "KV_CACHE", byteLength: 8, id: "once", disposable: true });
    await expect(memory.tie("b", "once")).rejects.toMatchObject({ code: "unsupported" });
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 1, contentCount: 1 });
  });

  it("makes one content of calls at the same time", async () => {
    const memory = await onMemory();
    await Promise.all(["a", "b", "c"].map((id) => intern(memory, id, 3)));
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 3, contentCount: 1 });
    const outcomes = await Promise.allSettled([intern(memory, "d", 4), intern(memory, "d", 4)]);
    // Which of them is hashed first is open.
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });
});

describe("copy on write", () => {
  it.each(["a", "b"])("leaves the others as they are when %s is written", async (writer) => {
    const memory = await onMemory();
    const tensors = { a: await intern(memory, "a", 1), b: await intern(memory, "b", 1) };
    const other = writer === "a" ? "b" : "a";
    {
      using before = tensors[other].pin({ access: "read" });
      using pin = tensors[writer as "a" | "b"].pin();
      expect([...pin.bytes]).toEqual([...filled(4 * KIB, 1)]);
      pin.bytes.fill(9);
      expect([...before.bytes]).toEqual([...filled(4 * KIB, 1)]);
    }
    await expectFilled(memory, other, 4 * KIB, 1);
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 1, savedBytes: 0, copyCount: 1 });
    // The last holder takes the block.
    await write(memory, other, 5);
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 0, contentCount: 0, copyCount: 1 });
    await expectFilled(memory, other, 4 * KIB, 5);
    using pin = memory.tryAcquire(writer, { access: "read" });
    expect(pin?.bytes.every((byte) => byte === 9)).toBe(true);
  });

  it("comes before a resize", async () => {
    const memory = await onMemory();
    const tensor = await intern(memory, "a", 1);
    await intern(memory, "b", 1);
    tensor.resize({ shape: [8 * KIB] });
    expect(tensor.byteLength).toBe(8 * KIB);
    expect(memory.tensor("b")?.byteLength).toBe(4 * KIB);
    await expectFilled(memory, "b", 4 * KIB, 1);
  });

  it("changes nothing without room, and makes room where it may wait", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" }, seams: { tier: memoryTier() } });
    const tensor = await intern(memory, "a", 1, MIB);
    await intern(memory, "b", 1, MIB);
    let count = 0;
    while (memory.tryAllocate({ kind: "PARAMETERS", byteLength: MIB / 2, id: `${count}` })) count++;
    expect(count).toBeGreaterThan(0);
    const { sharing } = memory.stats();
    expect(() => tensor.pin()).toThrow(expect.objectContaining({ code: "out-of-memory" }));
    expect(memory.stats().sharing).toEqual(sharing);
    await write(memory, "a", 2);
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 1, copyCount: 1 });
    await expectFilled(memory, "a", MIB, 2);
    await expectFilled(memory, "b", MIB, 1);
  });

  it("is refused to the last holder while its content is written to the tier", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    const tensor = await intern(memory, "a", 1);
    gate.close("write");
    const saving = memory.save("a");
    expect(() => tensor.pin()).toThrow(expect.objectContaining({ code: "pinned" }));
    gate.open();
    expect(await saving).toBe("stored");
    await write(memory, "a", 2);
    await expectFilled(memory, "a", 4 * KIB, 2);
  });
});

describe("tie", () => {
  it("shares what was allocated, with its handles as they were", async () => {
    const memory = await onMemory();
    const tensor = allocateFilled(memory, "embedding", 4 * KIB, 1);
    const granted = grantedBytes(memory);
    const tied = await memory.tie("head", "embedding");
    expect(grantedBytes(memory)).toBe(granted);
    expect(tied).toMatchObject({ id: "head", kind: "KV_CACHE", shape: [4 * KIB] });
    {
      using _pin = tensor.pin();
    }
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 1, copyCount: 1 });
    await expectFilled(memory, "head", 4 * KIB, 1);
    await memory.tie("third", "head");
    tensor.free();
    expect(() => tensor.pin()).toThrow("freed");
    await expectFilled(memory, "third", 4 * KIB, 1);
  });

  it("gives up bytes that are there already", async () => {
    const memory = await onMemory();
    allocateFilled(memory, "a", 4 * KIB, 1);
    allocateFilled(memory, "b", 4 * KIB, 1);
    await memory.swapOut("b");
    await memory.tie("a2", "a");
    await memory.tie("b2", "b");
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 4, contentCount: 1 });
    expect(memory.stats().tensors.hotCount).toBe(1);
    await memory.swapOut("b2");
    for (const id of ["a", "a2", "b", "b2"]) await expectFilled(memory, id, 4 * KIB, 1);
    allocateFilled(memory, "c", 4 * KIB, 1);
    const written = memory.tie("d", "c");
    await write(memory, "c", 2);
    await expect(written).rejects.toMatchObject({ code: "pinned" });
  });
});

describe("references", () => {
  it("free the block with the last of free, delete and scopes", async () => {
    const memory = await onMemory();
    const tensors: Tensor[] = [];
    for (const id of ["a", "b", "c", "d"]) tensors.push(await intern(memory, id, 1));
    memory.free("a");
    expect(tensors[0]).toMatchObject({ isFreed: true, isResident: false });
    expect(() => tensors[0]?.free()).toThrow(expect.objectContaining({ code: "freed" }));
    expect(await memory.acquire("a")).toBeNull();
    expect(await memory.delete("b")).toBe(true);
    tensors[2]?.[Symbol.dispose]();
    await expectFilled(memory, "d", 4 * KIB, 1);
    expect(memory.stats().sharing).toMatchObject({
      sharedCount: 1,
      contentCount: 1,
      savedBytes: 0,
    });
    {
      using _pin = tensors[3]?.pin({ access: "read" });
      expect(() => memory.free("d")).toThrow(expect.objectContaining({ code: "pinned" }));
    }
    memory.free("d");
    expect(memory.stats().sharing).toMatchObject({ sharedCount: 0, contentCount: 0 });
    expect(memory.stats().tensors).toMatchObject({ count: 0, hotCount: 0, hotBytes: 0 });
    expect(memory.stats().leaks.leakedCount).toBe(0);
  });

  it("add up, or verify says so", async () => {
    const memory = await onMemory();
    const content = Tensor.recordOf(await intern(memory, "a", 1)).shared as TensorRecord;
    expect(memory.verify().problems).toEqual([]);
    content.referenceCount += 1;
    expect(memory.verify().problems).toEqual(["references do not add up"]);
    content.referenceCount -= 1;
  });
});

describe("tiers", () => {
  it("move a content once, for all who share it", async () => {
    const memory = await onMemory();
    const tensor = await intern(memory, "a", 1);
    await intern(memory, "b", 1);
    expect(await memory.swapOut("a")).toBe("stored");
    expect(tensor.isResident).toBe(false);
    expect(memory.tensor("b")?.isResident).toBe(false);
    expect(memory.tryAcquire("b")).toBeNull();
    expect(memory.stats().transfers.swapOutCount).toBe(1);
    const listed = await collect(memory.list());
    expect(listed.map(({ id, isResident }) => [id, isResident])).toEqual([
      ["a", false],
      ["b", false],
    ]);
    await intern(memory, "c", 1);
    expect(memory.tensor("c")?.isResident).toBe(false);
    await Promise.all(["a", "b", "c"].map((id) => expectFilled(memory, id, 4 * KIB, 1)));
    expect(memory.stats().transfers.swapInCount).toBe(1);
    await memory.swapOut("b");
    expect(memory.stats().transfers).toMatchObject({ swapOutCount: 1, cleanEvictionCount: 1 });
    for (const id of ["a", "b", "c"]) memory.free(id);
    await memory.close();
    expect(memory.stats().tier.objectCount).toBe(0);
  });

  it("keep a tensor that was freed while its content was on its way from those who waited", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    await intern(memory, "a", 1);
    await intern(memory, "b", 1);
    await memory.swapOut("a");
    gate.close("read");
    const first = memory.acquire("a", { access: "read" });
    const second = memory.acquire("b", { access: "read" });
    memory.free("a");
    gate.open();
    expect(await first).toBeNull();
    using lease = await second;
    expect(lease?.bytes[0]).toBe(1);
  });

  it("hold a saved record under each id", async () => {
    const fileSystem = memoryFileSystem();
    const memory = await openOn(fileSystem);
    await intern(memory, "a", 1);
    await intern(memory, "b", 1);
    await intern(memory, "c", 1);
    expect(await memory.save("a")).toBe("stored");
    const { bytesWritten } = memory.stats().tier;
    expect(await memory.save("a")).toBe("stored");
    expect(memory.stats().tier.bytesWritten).toBe(bytesWritten);
    await memory.swapOut("a");
    expect(await memory.save("b")).toBe("stored");
    // What it saved is what it still has: leaving writes nothing.
    (await memory.acquire("b", { access: "read" }))?.[Symbol.dispose]();
    memory.free("c");
    const saved = (await collect(memory.list())).map(({ id, isSaved }) => [id, isSaved]);
    expect(saved).toEqual([
      ["a", true],
      ["b", true],
    ]);
    await write(memory, "b", 2);
    await closeMemory(memory);
    const later = await openOn(fileSystem);
    await expectFilled(later, "a", 4 * KIB, 1);
    await expectFilled(later, "b", 4 * KIB, 1);
    expect(await later.acquire("c")).toBeNull();
    expect(await later.delete("a")).toBe(true);
    await expectFilled(later, "b", 4 * KIB, 1);
  });

  it("lose a content for all, and intern brings it back", async () => {
    const tier = memoryTier();
    const memory = await openMemory({ seams: { tier } });
    await intern(memory, "a", 1);
    await memory.swapOut("a");
    for (const key of await collect(tier.list())) await tier.delete(key);
    await expect(memory.acquire("a")).rejects.toMatchObject({ name: "CorruptionError" });
    await intern(memory, "b", 1);
    await expectFilled(memory, "a", 4 * KIB, 1);
  });
});

describe("a model", () => {
  it("agrees after every step", async () => {
    await withSeed("sharing", async (seed) => {
      const random = seededRandom(seed);
      const draw = (count: number) => random.uint32() % count;
      const memory = await openMemory({ budgets: { ram: "4MiB" }, seams: { tier: memoryTier() } });
      const model = new Map<string, number>();
      const seen = { copyCount: 0, savedBytes: 0 };
      const byteLength = 200 * KIB;
      for (let step = 0; step < 400; step++) {
        const ids = [...model.keys()];
        const id = ids[draw(Math.max(1, ids.length))];
        const fresh = `t${step}`;
        const action = draw(7);
        if (action < 2 && model.size < 30) {
          const content = draw(4);
          await intern(memory, fresh, content, byteLength);
          model.set(fresh, content);
        } else if (id === undefined) {
          continue;
        } else if (action === 2 && model.size < 30) {
          await memory.tie(fresh, id);
          model.set(fresh, model.get(id) as number);
        } else if (action === 3) {
          const content = draw(4);
          await write(memory, id, content);
          model.set(id, content);
        } else if (action === 4) {
          if (draw(2) === 0) memory.free(id);
          else await memory.delete(id);
          model.delete(id);
        } else if (action === 5) {
          await memory.swapOut(id);
        } else {
          await expectFilled(memory, id, byteLength, model.get(id) as number);
        }
        checkQuiet(memory);
        const { sharing, tensors } = memory.stats();
        expect(tensors.count).toBe(model.size);
        seen.copyCount = Math.max(seen.copyCount, sharing.copyCount);
        seen.savedBytes = Math.max(seen.savedBytes, sharing.savedBytes);
      }
      for (const [id, content] of model) await expectFilled(memory, id, byteLength, content);
      expect(seen.copyCount).toBeGreaterThan(10);
      expect(seen.savedBytes).toBeGreaterThan(4 * byteLength);
    });
  });
});
