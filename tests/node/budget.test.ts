// The promise behind `budgets.ram`: everything held in RAM, at every change, and what happens when
// the platform refuses.
import { describe, expect, it } from "vitest";
import type { MemoryStats } from "../../src/stats/memory-stats.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { countingMemory, memoryTier, seededRandom } from "../../src/testing/index.js";
import { checkQuiet, openMemory, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

const oom = (error: unknown) => {
  expect(error).toMatchObject({ code: "out-of-memory" });
  return error as {
    requestedBytes: number;
    freeBytes: number;
    budgetBytes: number;
    remediesTried: string[];
  };
};

function refusal(work: () => unknown) {
  try {
    work();
  } catch (error) {
    return oom(error);
  }
  throw new Error("nothing was refused");
}

const poolOf = (memory: TensorMemory, kind: string) =>
  memory.stats().pools.find((pool) => pool.kind === kind) as MemoryStats["pools"][number];

async function collectRetired(memory: TensorMemory): Promise<void> {
  for (let turn = 0; turn < 20 && memory.stats().budget.byCategory.retired > 0; turn++) {
    globalThis.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("the limit", () => {
  it("covers arenas, staging and the control plane from the start", async () => {
    const counting = countingMemory();
    const memory = await openMemory({ seams: { createMemory: counting.createMemory } });
    const { byCategory, usedBytes, limitBytes } = memory.stats().budget;
    expect(limitBytes).toBe(16 * MIB);
    expect(byCategory.control).toBeGreaterThan(0);
    expect(byCategory.staging).toBeGreaterThan(0);
    expect(usedBytes).toBe(byCategory.control + byCategory.staging);
    memory.allocate({ kind: "KV_CACHE", byteLength: 1 });
    expect(memory.stats().budget.byCategory.arenas).toBe(memory.stats().pools[0]?.arenaBytes);
    // One wasm page asks the module how large its tables are, and is dropped.
    const { control, arenas } = memory.stats().budget.byCategory;
    expect(counting.createdBytes).toBe(control + arenas + 65536);
  });

  it("is never exceeded in a random workload", async () => {
    await withSeed("the budget", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory({ seams: { tier: memoryTier() } });
      const kinds = ["KV_CACHE", "ACTIVATIONS", "PARAMETERS"] as const;
      const live: string[] = [];
      let refusedCount = 0;
      for (let step = 0; step < 3000; step++) {
        const kind = kinds[random.uint32() % 3] as (typeof kinds)[number];
        const bytes = 1 + (random.uint32() % (step % 20 === 0 ? 5 * MIB : 100_000));
        if (random.uint32() % 3 === 0) {
          const id = live.splice(random.uint32() % Math.max(1, live.length), 1)[0];
          if (id !== undefined) memory.free(id);
        } else if (random.uint32() % 4 === 0) {
          await memory.reserve({ kind, bytes }).catch(oom);
        } else if (memory.tryAllocate({ kind, byteLength: bytes, id: `t${step}` }) === null) {
          refusedCount += 1;
        } else {
          live.push(`t${step}`);
        }
        if (random.uint32() % 64 === 0) memory.trim();
        const { usedBytes, limitBytes } = memory.stats().budget;
        if (usedBytes > limitBytes) throw new Error(`${usedBytes} bytes at step ${step}`);
        if (step % 200 === 0) checkQuiet(memory);
      }
      expect(refusedCount).toBeGreaterThan(30);
      expect(memory.stats().budget.usedBytesPeak).toBeLessThanOrEqual(16 * MIB);
    });
  });

  it("gives the right numbers when it refuses", async () => {
    const memory = await openMemory();
    const error = refusal(() => memory.allocate({ kind: "KV_CACHE", byteLength: 100 * MIB }));
    expect(error).toMatchObject({
      requestedBytes: 100 * MIB,
      freeBytes: 0,
      largestFreeBlockBytes: 0,
      pinnedBytes: 0,
      budgetBytes: 16 * MIB,
      remediesTried: [
        "add-arena",
        "release-idle",
        "drop-guesses",
        "evict-clean",
        "compact",
        "drop-disposable",
      ],
    });
    expect(memory.tryAllocate({ kind: "KV_CACHE", byteLength: 100 * MIB })).toBeNull();
  });
});

describe("the platform", () => {
  it.each([1, 2, 3])("may refuse creation %i at the start", async (request) => {
    const counting = countingMemory((at) => at === request);
    const tier = memoryTier();
    await expect(
      openMemory({ seams: { tier, createMemory: counting.createMemory } }),
    ).rejects.toMatchObject({ code: "out-of-memory" });
  });

  it.each([4, 5, 6, 7])(
    "may refuse creation %i: nothing leaks, and it works later",
    async (request) => {
      const counting = countingMemory((at) => at === request);
      const memory = await openMemory({ seams: { createMemory: counting.createMemory } });
      const arenaBytes = 2 * MIB;
      while (counting.requestCount < request - 1) {
        memory.allocate({ kind: "KV_CACHE", byteLength: arenaBytes });
      }
      const before = memory.stats();
      const error = refusal(() => memory.allocate({ kind: "KV_CACHE", byteLength: arenaBytes }));
      expect(error).toMatchObject({ requestedBytes: arenaBytes, budgetBytes: 16 * MIB });
      expect(memory.stats().budget.byCategory).toEqual(before.budget.byCategory);
      expect(
        memory.stats().pools.map(({ grantedBytes, liveCount }) => [grantedBytes, liveCount]),
      ).toEqual(before.pools.map(({ grantedBytes, liveCount }) => [grantedBytes, liveCount]));
      memory.allocate({ kind: "KV_CACHE", byteLength: arenaBytes });
    },
  );

  it("may refuse for ever: acquire and reserve tell, the tensor stays where it was", async () => {
    let isFull = false;
    const counting = countingMemory(() => isFull);
    const memory = await openMemory({
      seams: { createMemory: counting.createMemory, tier: memoryTier() },
    });
    memory.allocate({ kind: "KV_CACHE", byteLength: 1000, id: "a" });
    await memory.swapOut("a");
    memory.trim();
    isFull = true;
    await expect(memory.acquire("a")).rejects.toMatchObject({ code: "out-of-memory" });
    await expect(memory.reserve({ kind: "KV_CACHE", bytes: 1000 })).rejects.toMatchObject({
      code: "out-of-memory",
    });
    checkQuiet(memory);
    isFull = false;
    (await memory.acquire("a"))?.[Symbol.dispose]();
  });
});

describe("arenas", () => {
  it("of their own hold what is larger than an ordinary one, and no more", async () => {
    const memory = await openMemory({ budgets: { ram: "96MiB" } });
    const arenaBytes = 16 * MIB;
    expect(arenaBytes).toBeLessThan(33 * MIB);
    const large = memory.allocate({ kind: "PARAMETERS", byteLength: 33 * MIB });
    expect(memory.stats().budget.byCategory.arenas).toBe(33 * MIB);
    const second = memory.allocate({ kind: "PARAMETERS", byteLength: 33 * MIB + 1 });
    expect(memory.stats().budget.byCategory.arenas).toBe(66 * MIB + 65536);
    {
      using pin = large.pin();
      pin.bytes[33 * MIB - 1] = 7;
    }
    large.free();
    // A little smaller: the spare serves again.
    const again = memory.allocate({ kind: "KV_CACHE", byteLength: 32 * MIB });
    expect(memory.stats().arenas).toMatchObject({ addedCount: 2, spareCount: 0 });
    again.free();
    second.free();
    memory.trim();
    await collectRetired(memory);
    expect(memory.stats().budget.byCategory).toMatchObject({ arenas: 0, retired: 0 });
  });

  it("emptied by one pool serve another", async () => {
    const memory = await openMemory();
    const arenaBytes = 2 * MIB;
    const count = Math.floor((15 * MIB) / arenaBytes);
    for (const kind of ["KV_CACHE", "ACTIVATIONS", "GRADIENTS"] as const) {
      const tensors = Array.from({ length: count }, () =>
        memory.allocate({ kind, byteLength: arenaBytes }),
      );
      for (const tensor of tensors) tensor.free();
    }
    expect(memory.stats().arenas.addedCount).toBe(count);
  });

  it("dropped by trim count until they are collected", async () => {
    const memory = await openMemory();
    const tensor = memory.allocate({ kind: "KV_CACHE", byteLength: MIB });
    tensor.free();
    const { arenas } = memory.stats().budget.byCategory;
    expect(memory.trim()).toBe(arenas);
    expect(memory.stats().budget.byCategory).toMatchObject({ arenas: 0, retired: arenas });
    await collectRetired(memory);
    expect(memory.stats().budget.byCategory).toMatchObject({ arenas: 0, retired: 0 });
  });

  it("are not opened for a want of slots", async () => {
    const memory = await openMemory({ budgets: { ram: "4MiB" } });
    let count = 0;
    while (memory.tryAllocate({ kind: "KV_CACHE", byteLength: 1 }) !== null) count += 1;
    expect(count).toBeGreaterThan(4000);
    for (let attempt = 0; attempt < 5; attempt++) {
      memory.tryAllocate({ kind: "KV_CACHE", byteLength: 1 });
    }
    expect(memory.stats().arenas.addedCount).toBe(1);
  });
});

describe("pools", () => {
  it("stay inside a budget of their own", async () => {
    const memory = await openMemory({ pools: { KV_CACHE: { budget: "4MiB" } } });
    const error = await (async () => {
      for (;;) memory.allocate({ kind: "KV_CACHE", byteLength: 100_000 });
    })().catch(oom);
    expect(error.budgetBytes).toBe(4 * MIB);
    expect(poolOf(memory, "KV_CACHE").capacityBytesPeak).toBeLessThanOrEqual(4 * MIB);
    memory.allocate({ kind: "ACTIVATIONS", byteLength: 5 * MIB });
  });

  it("share the rest: a cold tensor of one makes room in another", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const kinds = ["KV_CACHE", "IMAGE_FEATURES"] as const;
    for (let index = 0; index < 12; index++) {
      memory.allocate({ kind: kinds[index % 2] as "KV_CACHE", byteLength: MIB, id: `t${index}` });
    }
    await memory.reserve({ kind: "TEXT_EMBEDDINGS", bytes: MIB, count: 3 });
    for (let index = 0; index < 3; index++) {
      memory.allocate({ kind: "TEXT_EMBEDDINGS", byteLength: MIB, id: `x${index}` });
    }
    expect(memory.stats().tensors.count).toBe(15);
    for (let index = 0; index < 12; index++) {
      (await memory.acquire(`t${index}`, { access: "read" }))?.[Symbol.dispose]();
    }
  });

  it("evict what is clean before a synchronous allocation fails", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    let count = 0;
    while (memory.tryAllocate({ kind: "KV_CACHE", byteLength: MIB, id: `t${count}` })) count += 1;
    for (let index = 0; index < count; index++) await memory.save(`t${index}`);
    memory.allocate({ kind: "KV_CACHE", byteLength: MIB, id: "new" });
    expect(memory.tensor("t0")?.isResident).toBe(false);
    expect(memory.stats().transfers).toMatchObject({ cleanEvictionCount: 1, swapOutCount: 0 });
  });
});
