// Faults that a review found in how room is made.
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

const MIB = 2 ** 20;

/** Allocates anonymous tensors until none fits. */
function fill(memory: TensorMemory, byteLength: number) {
  const tensors = [];
  for (;;) {
    const tensor = memory.tryAllocate({ kind: "KV_CACHE", byteLength });
    if (tensor === null) return tensors;
    tensors.push(tensor);
  }
}

/** What a refused request must leave as it was. */
function situation(memory: TensorMemory) {
  const { tensors, transfers, tier, budget, pools, arenas } = memory.stats();
  return {
    tensors,
    arenas,
    byCategory: budget.byCategory,
    capacities: pools.map(({ capacityBytes }) => capacityBytes),
    writtenBytes: tier.bytesWritten,
    evictions: [transfers.swapOutCount, transfers.cleanEvictionCount],
  };
}

describe("a heap that was emptied", () => {
  it("serves small tensors after a large one did not fit, and the large one when awaited", async () => {
    const memory = await openMemory({ budgets: { ram: "32MiB" }, seams: { clock: systemClock } });
    const small = fill(memory, MIB);
    expect(small.length).toBeGreaterThan(20);
    for (const tensor of small) tensor.free();
    memory.tryAllocate({ kind: "KV_CACHE", byteLength: 12 * MIB })?.free();
    const again = fill(memory, MIB);
    expect(again.length).toBe(small.length);
    for (const tensor of again) tensor.free();
    await memory.reserve({ kind: "KV_CACHE", bytes: 12 * MIB });
    memory.allocate({ kind: "KV_CACHE", byteLength: 12 * MIB }).free();
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: small.length - 12 });
  });

  it("serves tensors of 20 and then of 44 MiB in 64 MiB", async () => {
    const memory = await openMemory({ budgets: { ram: "64MiB" }, seams: { clock: systemClock } });
    for (const size of [20, 44, 20, 12]) {
      await memory.reserve({ kind: "ACTIVATIONS", bytes: size * MIB });
      memory.allocate({ kind: "ACTIVATIONS", byteLength: size * MIB }).free();
    }
  });

  it("keeps its spares when all of them would not be enough", async () => {
    const memory = await openMemory({ budgets: { ram: "32MiB" }, seams: { tier: memoryTier() } });
    const small = fill(memory, MIB);
    for (const tensor of small.splice(0, 8)) tensor.free();
    const { spareBytes, droppedCount } = memory.stats().arenas;
    await expect(memory.reserve({ kind: "KV_CACHE", bytes: 20 * MIB })).rejects.toMatchObject({
      code: "out-of-memory",
    });
    expect(memory.stats().arenas).toMatchObject({ spareBytes, droppedCount });
    expect(fill(memory, MIB).length).toBe(8);
  });
});

describe("an eviction that needs no waiting", () => {
  it("takes no more tensors than one request needs", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    memory.allocate({ kind: "KV_CACHE", byteLength: 1 }).free();
    const arenaBytes = memory.stats().pools[0]?.arenaBytes as number;
    const ids: string[] = [];
    while (
      memory.tryAllocate({ kind: "KV_CACHE", byteLength: arenaBytes, id: `t${ids.length}` }) !==
      null
    ) {
      ids.push(`t${ids.length}`);
    }
    expect(ids.length).toBe(6);
    for (const id of ids) await memory.save(id);
    for (const kind of ["KV_CACHE", "PARAMETERS"] as const) {
      const before = memory.stats().transfers.cleanEvictionCount;
      memory.allocate({ kind, byteLength: arenaBytes });
      expect(memory.stats().transfers.cleanEvictionCount - before, kind).toBe(1);
    }
  });
});

describe("an impossible request changes nothing", () => {
  it("when more is reserved than there is RAM", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    for (let index = 0; index < 8; index++) allocateFilled(memory, `t${index}`, MIB, index);
    await memory.save("t0");
    const before = situation(memory);
    for (const request of [{ bytes: 1024 * MIB }, { bytes: MIB, count: 1024 }, { bytes: 16 * MIB }])
      await expect(memory.reserve({ kind: "KV_CACHE", ...request })).rejects.toMatchObject({
        code: "out-of-memory",
      });
    expect(situation(memory)).toEqual(before);
  });

  // tryPlace evicts every clean tensor before it finds that no arena can be that long.
  it("when more is allocated than there is RAM", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    allocateFilled(memory, "a", MIB, 1);
    await memory.save("a");
    const before = situation(memory);
    expect(memory.tryAllocate({ kind: "KV_CACHE", byteLength: 1024 * MIB })).toBeNull();
    expect(situation(memory)).toEqual(before);
  });

  it("when a pool is at its budget: the tensors of others stay", async () => {
    const memory = await openMemory({
      budgets: { ram: "32MiB" },
      pools: { KV_CACHE: { budget: "4MiB" } },
      seams: { tier: memoryTier() },
    });
    for (let index = 0; index < 8; index++) {
      memory.allocate({ kind: "PARAMETERS", byteLength: MIB, id: `p${index}` });
    }
    await memory.save("p0");
    for (let index = 0; index < 4; index++) memory.allocate({ kind: "KV_CACHE", byteLength: MIB });
    const before = situation(memory);
    await expect(memory.reserve({ kind: "KV_CACHE", bytes: MIB })).rejects.toMatchObject({
      code: "out-of-memory",
    });
    expect(memory.tryAllocate({ kind: "KV_CACHE", byteLength: MIB })).toBeNull();
    expect(situation(memory)).toEqual(before);
  });

  it("when a record is acquired that is longer than RAM", async () => {
    const files = memoryFileSystem();
    const first = await openOn(files, { budgets: { ram: "64MiB" } });
    first.allocate({ kind: "KV_CACHE", byteLength: 20 * MIB, id: "long" });
    await first.save("long");
    await closeMemory(first);
    const second = await openOn(files);
    for (let index = 0; index < 8; index++) allocateFilled(second, `t${index}`, MIB, index);
    // The record itself becomes known, as a cold tensor.
    const { tensors, ...before } = situation(second);
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(second.acquire("long")).rejects.toMatchObject({ code: "out-of-memory" });
    }
    expect(situation(second)).toEqual({ ...before, tensors: { ...tensors, count: 9 } });
    expect(second.tensor("long")?.isResident).toBe(false);
  });
});

/** Every read takes a turn of the event loop. */
function slowTier(inner: Tier): Tier {
  return {
    ...inner,
    openRead: async (key) => {
      await systemClock.sleep(0);
      return inner.openRead(key);
    },
  };
}

describe("requests that wait for each other", () => {
  // A load whose block is found counts as progress only turns later: who asks in between gives up.
  it.each([
    ["quick", (tier: Tier) => tier],
    ["slow", slowTier],
  ])("do not run out of room while loads are under way (%s tier)", async (_name, wrap) => {
    const memory = await openMemory({
      budgets: { ram: "8MiB" },
      seams: { tier: wrap(memoryTier()) },
    });
    const ids = Array.from({ length: 16 }, (_, index) => `t${index}`);
    for (const [index, id] of ids.entries()) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB });
      allocateFilled(memory, id, MIB, index);
    }
    for (const id of ids) await memory.swapOut(id);
    for (const [index, id] of ids.entries()) {
      const prefetched = memory.prefetch(ids.filter((other) => other !== id));
      await expectFilled(memory, id, MIB, index);
      await prefetched;
    }
  });

  // As above: a reservation gives its block back turns later, and counts as no progress.
  it("share one block that only one of them could have", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ budgets: { ram: "8MiB" }, seams: { tier: gate.tier } });
    allocateFilled(memory, "a", MIB, 1);
    fill(memory, MIB);
    gate.close("write");
    const reserved = [1, 2, 3].map(() => memory.reserve({ kind: "KV_CACHE", bytes: MIB }));
    await gate.waiting;
    gate.open();
    const results = await Promise.allSettled(reserved);
    expect(results.map(({ status }) => status)).toEqual(Array(3).fill("fulfilled"));
  });
});

describe("the budget of a pool", () => {
  it("does not shrink the arenas of others", async () => {
    const options = { budgets: { ram: "256MiB" }, profile: "server" } as const;
    const plain = await openMemory(options);
    const bounded = await openMemory({
      ...options,
      pools: { TEXT_EMBEDDINGS: { budget: "1MiB" } },
    });
    const lengths = (memory: TensorMemory) =>
      memory
        .stats()
        .pools.filter(({ kind }) => kind !== "TEXT_EMBEDDINGS")
        .map(({ arenaBytes }) => arenaBytes);
    const counts = [plain, bounded].map((memory) => fill(memory, MIB).length);
    expect(lengths(bounded)).toEqual(lengths(plain));
    expect(lengths(bounded)).toEqual([32 * MIB]);
    expect(counts[1]).toBeGreaterThanOrEqual((counts[0] as number) - 32);
    bounded.allocate({ kind: "TEXT_EMBEDDINGS", byteLength: 1000 });
  });

  it("is at most that of RAM", async () => {
    const open = (budget: string) =>
      openMemory({ budgets: { ram: "8MiB" }, pools: { KV_CACHE: { budget } } });
    await expect(open("512MiB")).rejects.toMatchObject({ code: "bad-size" });
    await expect(open("8388609B")).rejects.toMatchObject({ code: "bad-size" });
    await open("8MiB");
  });
});
