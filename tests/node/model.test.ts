// Seeded random operations against models: the allocator with a map of who owns each granule, a whole
// memory with what each tensor should hold. A canary shows that the models can fail.
import { describe, expect, it } from "vitest";
import { BuddyAllocator, type Handle, NULL_HANDLE } from "../../src/index.js";
import type { Random } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryFileSystem, memoryTier, seededRandom } from "../../src/testing/index.js";
import { FsTier } from "../../src/tier/fs.js";
import type { Tier } from "../../src/tier/tier.js";
import { Caller, type Operation } from "../support/memory-model.js";
import { abandon, checkQuiet, collecting, openMemory, SEED, withSeed } from "../support/oracle.js";
import { misreadingTier } from "../support/tiers.js";

interface Counts {
  operations: number;
  allocations: number;
  refusals: number;
  moves: number;
  stale: number;
}

/** Runs operations on an allocator beside a map of owners, and compares after each. */
async function runAllocator(
  random: Random,
  granules: number,
  operations: number,
  checkEvery: number,
): Promise<Counts> {
  const granuleBytes = 64;
  const buddy = await BuddyAllocator.create({ totalBytes: granules * granuleBytes, granuleBytes });
  const owners = new Int32Array(granules);
  const live: { handle: Handle; owner: number; granted: number }[] = [];
  const freed: Handle[] = [];
  const counts: Counts = { operations, allocations: 0, refusals: 0, moves: 0, stale: 0 };
  let grantedBytes = 0;
  const own = (offset: number, bytes: number, from: number, to: number) => {
    for (
      let granule = offset / granuleBytes;
      granule < (offset + bytes) / granuleBytes;
      granule++
    ) {
      if (owners[granule] !== from)
        throw new Error(`granule ${granule} is of ${owners[granule]}, not ${from}`);
      owners[granule] = to;
    }
  };
  for (let step = 0; step < operations; step++) {
    const choice = random.uint32() % 100;
    // Waves: mostly growing, then mostly shrinking.
    const growth = step % 4096 < 2048 ? 62 : 34;
    if (choice < growth) {
      const bytes = 1 + (random.uint32() % (choice < 4 ? granules * 16 : 2000));
      const handle = buddy.tryAllocate(bytes, choice % 8 === 0 ? 256 : 1);
      if (handle === NULL_HANDLE) {
        counts.refusals += 1;
        if (buddy.largestFreeBlockBytes >= 2 * bytes + 512)
          throw new Error(`${bytes} bytes are refused`);
      } else {
        counts.allocations += 1;
        const granted = buddy.grantedBytesOf(handle);
        if (granted < bytes) throw new Error(`${granted} of ${bytes} bytes are granted`);
        own(buddy.offsetOf(handle), granted, 0, step + 1);
        live.push({ handle, owner: step + 1, granted });
        grantedBytes += granted;
      }
    } else if (choice < 96 && live.length > 0) {
      const index = random.uint32() % live.length;
      const block = live[index] as (typeof live)[number];
      live[index] = live.at(-1) as typeof block;
      live.pop();
      own(buddy.offsetOf(block.handle), block.granted, block.owner, 0);
      buddy.free(block.handle);
      grantedBytes -= block.granted;
      freed[step & 255] = block.handle;
    } else if (freed.length > 0) {
      const stale = freed[random.uint32() % freed.length] ?? 0.5;
      let isRefused = false;
      try {
        buddy.free(stale);
      } catch {
        isRefused = true;
      }
      if (!isRefused) throw new Error(`the stale handle ${stale} is taken`);
      counts.stale += 1;
    }
    if (step % 5000 === 4999) {
      buddy.compact((source, target, byteLength) => {
        counts.moves += 1;
        const bytes = Math.ceil(byteLength / granuleBytes) * granuleBytes;
        const owner = owners[source / granuleBytes] as number;
        const { granted } = live.find((block) => block.owner === owner) ?? { granted: bytes };
        own(source, granted, owner, 0);
        own(target, granted, 0, owner);
      });
      for (const { handle, owner } of live) {
        if (owners[buddy.offsetOf(handle) / granuleBytes] !== owner)
          throw new Error("a block is elsewhere");
      }
    }
    if (step % checkEvery === 0) {
      expect(buddy.verify()).toBeNull();
      const stats = buddy.stats();
      expect(stats.grantedBytes).toBe(grantedBytes);
      expect(stats.liveCount).toBe(live.length);
      expect(stats.freeBytes).toBe(granules * granuleBytes - grantedBytes);
    }
  }
  return counts;
}

describe("the allocator", () => {
  it("agrees with the owner map over a million operations", async () => {
    await withSeed("the allocator model", async (seed) => {
      const counts = await runAllocator(seededRandom(seed), 8192 + 1234, 1_000_000, 1000);
      expect(counts.refusals, "refusals").toBeGreaterThanOrEqual(counts.operations / 100);
      expect(counts.moves, "moves").toBeGreaterThanOrEqual(1000);
      expect(counts.stale, "stale handles").toBeGreaterThan(10_000);
    });
  });

  it.each([1, 2, 3, 17, 63, 64])(
    "agrees on %i granules after every operation",
    async (granules) => {
      await withSeed("the small allocator model", async (seed) => {
        await runAllocator(seededRandom(seed + granules), granules, 5000, 1);
      });
    },
  );
});

const WEIGHTS: Readonly<Record<Operation, number>> = {
  allocate: 12,
  free: 7,
  write: 14,
  read: 20,
  hold: 6,
  letGo: 8,
  swapOut: 12,
  save: 10,
  compact: 3,
  trim: 1,
};

/** Several callers at once on one memory; half of the runs leave some operations out. */
async function runMemory(
  seed: number,
  tier: Tier,
  operationsEach: number,
  sabotage: (memory: TensorMemory) => void = () => {},
  ram = "6MiB",
) {
  const random = seededRandom(seed);
  const memory = await openMemory({
    budgets: { ram },
    debug: seed % 2 === 0,
    seams: { tier },
  });
  const weighted = (Object.entries(WEIGHTS) as [Operation, number][]).flatMap(
    ([operation, weight]) => {
      const isOff =
        seed % 2 === 1 &&
        ["hold", "save", "compact", "trim"].includes(operation) &&
        random.uint32() % 2 === 0;
      return Array<Operation>(isOff ? 0 : weight).fill(operation);
    },
  );
  const callers = ["a", "b", "c", "d"].map(
    (prefix) => new Caller(memory, seededRandom(random.uint32()), prefix),
  );
  const results = await Promise.allSettled(
    callers.map(async (caller) => {
      for (let step = 0; step < operationsEach; step++) {
        await caller.step(weighted[caller.below(weighted.length)] as Operation);
        if (step % 250 === 0) expect(memory.verify().problems).toEqual([]);
        if (caller === callers[0]) sabotage(memory);
        if (step % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      while (caller.held.length > 0) await caller.step("letGo");
    }),
  );
  for (const result of results) {
    if (result.status === "fulfilled") continue;
    abandon(memory);
    await memory.close();
    throw result.reason;
  }
  checkQuiet(memory);
  expect(memory.stats().tensors.count).toBe(
    callers.reduce((sum, { tensors }) => sum + tensors.size, 0),
  );
  // Freed one by one, the resident ones first: a full tier has no room for what they would displace.
  const hotFirst = (id: string) => (memory.tensor(id)?.isResident === true ? 0 : 1);
  const tensors = callers
    .flatMap((caller) => [...caller.tensors].map(([id, expected]) => ({ caller, id, expected })))
    .sort((a, b) => hotFirst(a.id) - hotFirst(b.id));
  for (const { caller, id, expected } of tensors) {
    using lease = await collecting(() => memory.acquire(id, { access: "read" }));
    if (lease === null) throw new Error(`${id} is gone`);
    caller.check(lease, expected, id);
    lease[Symbol.dispose]();
    memory.free(id);
  }
  return { memory, callers };
}

describe("a whole memory", () => {
  const tiers: readonly [string, number, () => Tier][] = [
    ["a memory tier", 2500, () => memoryTier()],
    ["a small memory tier", 1000, () => memoryTier({ capacityBytes: 6 * 2 ** 20 })],
    ["files", 1500, () => new FsTier({ directory: "/store", fileSystem: memoryFileSystem() })],
  ];

  // 20,000 operations in all.
  it.each(tiers)(
    "agrees with four callers on %s, %i operations each",
    async (_name, count, tier) => {
      await withSeed("the memory model", async (seed) => {
        const { memory, callers } = await runMemory(seed + count, tier(), count);
        const { transfers, lookups } = memory.stats();
        expect(transfers.swapOutCount, "swap-outs").toBeGreaterThan(100);
        expect(transfers.swapInCount, "swap-ins").toBeGreaterThan(100);
        expect(lookups.hits, "hits").toBeGreaterThan(100);
        for (const { counts } of callers) expect(counts.get("read")).toBeGreaterThan(100);
      });
    },
  );

  it("agrees also where arenas have slabs", async () => {
    await withSeed("the memory model", async (seed) => {
      // Four arenas of 4 MiB, the shortest with slabs.
      const { memory } = await runMemory(seed, memoryTier(), 2500, () => {}, "18MiB");
      const { pools, transfers } = memory.stats();
      expect(pools[0]?.arenaBytes).toBe(4 * 2 ** 20);
      expect(transfers.swapInCount, "swap-ins").toBeGreaterThan(100);
    });
  });

  it.each(["flip", "swap"] as const)("notices a tier that lies: %s (canary)", async (lie) => {
    const run = runMemory(SEED, misreadingTier(memoryTier(), lie), 2500);
    await expect(run).rejects.toMatchObject({ code: expect.stringMatching(/^(corruption|io)$/) });
  });

  it("notices writes through a view whose pin has ended (canary)", async () => {
    const kept: Uint8Array[] = [];
    const sabotage = (memory: TensorMemory) => {
      for (const index of ["a/0", "a/1", "a/2", "a/3"]) {
        const pin = kept.length < 4 ? memory.tryAcquire(index, { access: "read" }) : null;
        if (pin !== null) kept.push(pin.bytes);
        pin?.[Symbol.dispose]();
      }
      for (const bytes of kept) bytes.fill(0xee);
    };
    await expect(runMemory(SEED, memoryTier(), 2500, sabotage)).rejects.toThrowError("other bytes");
  });
});
