// What leaves a tier that is full: what nobody needs, what lies elsewhere too, what its owner can make
// again. Never the only copy of anything else.
import { describe, expect, it } from "vitest";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";
import { keyOf, objectOf, put, SWAPPED, stackOf, versionAt } from "../support/stacks.js";

const MIB = 2 ** 20;
const RAW = { codecs: { default: "raw" } } as const;

/** A persistent tier in memory. */
function store(name: string, capacityBytes: number): Tier {
  const tier = memoryTier({ name, capacityBytes });
  return { ...tier, capabilities: { ...tier.capabilities, isPersistent: true } };
}

async function holds(tier: Tier, key: number): Promise<boolean> {
  for await (const each of tier.list()) if (each === keyOf(key)) return true;
  return false;
}

describe("the last level of a stack", () => {
  it("gives up a warm copy that a higher level has too, and no only copy", async () => {
    const ssd = store("ssd", 4000);
    const hdd = store("hdd", 20_000);
    await hdd.open();
    for (let key = 1; key <= 12; key++) await put(hdd, key, objectOf(key, 1, 1500));
    await put(hdd, 20, objectOf(20, 1, 900));
    const { stack, clock } = stackOf([ssd, hdd]);
    await stack.open();
    for (let use = 0; use < 3; use++) {
      clock.advance(10);
      expect(await versionAt(stack, 20)).toBe(1);
      await stack.settle();
    }
    expect([await holds(ssd, 20), await holds(hdd, 20)]).toEqual([true, true]);
    expect(await put(stack, 30, objectOf(30, 1, 1900))).toBe("stored");
    expect([await holds(hdd, 30), await holds(hdd, 20)]).toEqual([true, false]);
    expect(stack.levels()[1]?.cleanEvictions).toBe(1);
    for (let key = 40; (await put(stack, key, objectOf(key, 1, 1500))) === "stored"; key++) {
      await stack.settle();
    }
    for (const key of [...Array(12).keys(), 19, 29])
      expect(await versionAt(stack, key + 1)).toBe(1);
    expect(hdd.stats().physicalBytes).toBeLessThanOrEqual(20_000);
    await stack.close();
  });

  it("gives up what has expired, however warm it is", async () => {
    const hdd = store("hdd", 20_000);
    const { stack, clock } = stackOf([store("ssd", 1000), hdd]);
    await stack.open();
    for (let key = 1; key <= 12; key++) await put(stack, key, objectOf(key, 1, 1500));
    const expiresMs = clock.wallMs() + 1000;
    await put(stack, 20, objectOf(20, 1, 1500), { ...SWAPPED, expiresMs });
    expect(await put(stack, 30, objectOf(30, 1, 1500))).toBe("no-space");
    clock.advance(2000);
    expect(await put(stack, 30, objectOf(30, 1, 1500))).toBe("stored");
    expect([await holds(hdd, 20), await holds(hdd, 30)]).toEqual([false, true]);
    for (let key = 1; key <= 12; key++) expect(await versionAt(stack, key)).toBe(1);
    await stack.close();
  });
});

const tensors = (memory: TensorMemory, prefix: string, count: number, disposable = false) => {
  const ids = Array.from({ length: count }, (_, index) => `${prefix}${index}`);
  for (const [index, id] of ids.entries()) {
    const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: MIB, id, disposable });
    using pin = tensor.pin();
    pin.bytes.forEach((_byte, at, bytes) => {
      bytes[at] = (at * 7 + index) & 0xff;
    });
  }
  return ids;
};

describe("a full store on files", () => {
  const capacityBytes = 4.5 * MIB;

  it("gives up saved records that have expired, also those of an earlier process", async () => {
    const files = memoryFileSystem();
    const clock = manualClock({ sleeping: "skip" });
    const options = { ...RAW, capacityBytes, seams: { clock } };
    const first = await openOn(files, { ...options, namespace: { tenant: "other" } });
    for (const id of tensors(first, "old", 2)) await first.save(id, { ttlMs: 1000 });
    await closeMemory(first);
    const memory = await openOn(files, options);
    for (const id of tensors(memory, "own", 2)) await memory.save(id, { ttlMs: 1000 });
    await memory.swapOut("own0");
    const [kept, also] = tensors(memory, "new", 3) as [string, string];
    expect(await memory.save(kept)).toBe("no-space");
    clock.advance(2000);
    expect(await memory.save(kept)).toBe("stored");
    expect(await memory.save(also)).toBe("stored");
    expect(memory.stats().tier.objectCount).toBe(3);
    // What is resident stays until it leaves; what was not is gone.
    expect(memory.tensor("own1")?.isResident).toBe(true);
    await expectFilled(memory, "own1", MIB, 1);
    expect(await memory.acquire("own0")).toBeNull();
    await expectFilled(memory, kept, MIB, 0);
  });

  it("gives up what an earlier process had swapped out, and the copy of a resident tensor", async () => {
    const files = memoryFileSystem();
    const killed = await openOn(files, { ...RAW, capacityBytes });
    for (const id of tensors(killed, "orphan", 2)) await killed.swapOut(id);
    await closeMemory(killed);
    const memory = await openOn(files, { ...RAW, capacityBytes });
    const [back, ...others] = tensors(memory, "t", 5) as [string, ...string[]];
    await memory.swapOut(back);
    (await memory.acquire(back, { access: "read" }))?.[Symbol.dispose]();
    for (const id of others) expect(await memory.save(id)).toBe("stored");
    await expectFilled(memory, back, MIB, 0);
    for (const [index, id] of others.entries()) await expectFilled(memory, id, MIB, index + 1);
  });

  it("gives up no only copy, and says that it is full", async () => {
    const memory = await openOn(memoryFileSystem(), { ...RAW, capacityBytes });
    const ids = tensors(memory, "t", 6);
    const outcomes: string[] = [];
    for (const id of ids) outcomes.push(await memory.swapOut(id));
    expect(outcomes).toEqual([...Array(4).fill("stored"), "no-space", "no-space"]);
    await expect(memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 11 })).rejects.toMatchObject(
      { code: "out-of-memory" },
    );
    for (const [index, id] of ids.entries()) await expectFilled(memory, id, MIB, index);
  });

  it("lets clean and disposable tensors leave RAM when nothing can be written", async () => {
    const memory = await openOn(memoryFileSystem(), { ...RAW, capacityBytes });
    const dirty = tensors(memory, "dirty", 2);
    const clean = tensors(memory, "clean", 4);
    for (const id of clean) expect(await memory.save(id)).toBe("stored");
    const disposable = tensors(memory, "disposable", 2, true);
    for (let count = 4; disposable.some((id) => memory.tensor(id) !== null); count++) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count });
    }
    for (const id of clean) expect(memory.tensor(id)?.isResident).toBe(false);
    for (const id of dirty) expect(memory.tensor(id)?.isResident).toBe(true);
    expect(memory.stats().disposables.droppedCount).toBe(2);
    for (const [index, id] of clean.entries()) await expectFilled(memory, id, MIB, index);
  });
});

describe("a memory over two full levels", () => {
  const open = () =>
    openMemory({
      ...RAW,
      budgets: { ram: "16MiB", ssd: "4MiB", hdd: "8MiB" },
      ssd: { directory: "/ssd" },
      hdd: { directory: "/hdd" },
      seams: { fileSystem: memoryFileSystem() },
    });

  it("drops disposable tensors there for others, whichever level they are in", async () => {
    const memory = await open();
    for (const id of tensors(memory, "d", 8, true)) await memory.swapOut(id);
    const kept = tensors(memory, "kept", 8);
    for (const [index, id] of kept.entries()) {
      expect(await (index % 2 === 0 ? memory.save(id) : memory.swapOut(id))).toBe("stored");
    }
    expect(memory.stats().disposables.droppedCount).toBeGreaterThan(3);
    for (const { name, physicalBytes, capacityBytes } of memory.stats().tiers) {
      expect(physicalBytes, name).toBeLessThanOrEqual(capacityBytes);
    }
    allocateFilled(memory, "last", MIB, 9);
    for (const [index, id] of kept.entries()) await expectFilled(memory, id, MIB, index);
  });
});
