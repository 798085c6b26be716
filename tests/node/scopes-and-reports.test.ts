// Groups of tensors, what a tensor tells about itself, and statistics as text.
import { describe, expect, it } from "vitest";
import { formatBytes, formatPercent, formatTable } from "../../src/index.js";
import type { Tensor } from "../../src/memory/tensor.js";
import type { MemoryStats } from "../../src/stats/memory-stats.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import { openMemory, withSeed } from "../support/oracle.js";

describe("a scope", () => {
  it("frees what is left of it, once", async () => {
    const memory = await openMemory();
    const outer = memory.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "outer" });
    let kept: typeof outer;
    {
      using scope = memory.scope("prefill");
      kept = scope.keep(scope.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "kept" }));
      scope.allocate({ kind: "ACTIVATIONS", byteLength: 8 }).free();
      expect(scope.allocate({ kind: "ACTIVATIONS", byteLength: 8 }).tag).toBe("prefill");
      expect(scope.allocate({ kind: "ACTIVATIONS", byteLength: 8, tag: "own" }).tag).toBe("own");
      scope.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "gone" });
      expect(memory.stats().tensors.count).toBe(5);
      scope[Symbol.dispose]();
    }
    expect(memory.stats().tensors.count).toBe(2);
    expect(memory.tensor("gone")).toBeNull();
    expect(kept.isFreed || outer.isFreed).toBe(false);
  });

  it("keeps what is pinned and says so; the rest is freed", async () => {
    const memory = await openMemory();
    const scope = memory.scope("decode");
    const pinned = scope.allocate({ kind: "ACTIVATIONS", byteLength: 8 });
    const other = scope.allocate({ kind: "ACTIVATIONS", byteLength: 8 });
    {
      using _pin = pinned.pin();
      expect(() => scope[Symbol.dispose]()).toThrowError(
        "1 tensors of scope decode are still pinned",
      );
    }
    expect([pinned.isFreed, other.isFreed]).toEqual([false, true]);
    scope[Symbol.dispose]();
    expect(pinned.isFreed).toBe(true);
  });
});

describe("a large scope", () => {
  it("is freed together, what is pinned, freed or cold in it apart", async () => {
    const memory = await openMemory({ budgets: { ram: "64MiB" }, seams: { tier: memoryTier() } });
    const scope = memory.scope("step");
    const tensors = Array.from({ length: 10_000 }, (_, index) =>
      scope.allocate({
        kind: index % 2 === 0 ? "ACTIVATIONS" : "KV_CACHE",
        byteLength: 1 + (index % 300),
        ...(index < 10 ? { id: `t${index}` } : {}),
      }),
    );
    await memory.swapOut("t3");
    tensors[7]?.free();
    const saving = memory.save("t5");
    {
      using _pin = tensors[8]?.pin();
      using _other = tensors[9999]?.pin();
      expect(() => scope[Symbol.dispose]()).toThrowError("2 tensors of scope step");
    }
    expect(tensors.filter(({ isFreed }) => !isFreed)).toEqual([tensors[8], tensors[9999]]);
    expect(memory.stats().tensors.hotCount).toBe(2);
    scope[Symbol.dispose]();
    await saving;
    expect(memory.stats().tensors).toEqual({ count: 0, hotCount: 0, hotBytes: 0 });
    expect(memory.verify().isSound).toBe(true);
    scope[Symbol.dispose]();
  });

  it("forgets what was freed singly", async () => {
    const memory = await openMemory();
    using scope = memory.scope();
    for (let index = 0; index < 5000; index++) {
      scope.allocate({ kind: "ACTIVATIONS", byteLength: 64 }).free();
    }
    const last = scope.keep(scope.allocate({ kind: "ACTIVATIONS", byteLength: 64 }));
    scope[Symbol.dispose]();
    expect(last.isFreed).toBe(false);
  });
});

describe("a tensor", () => {
  it("tells what it is", async () => {
    const memory = await openMemory();
    const options = {
      kind: "IMAGE_FEATURES",
      shape: [2, 3, 4],
      dtype: "bf16",
      layout: "nchw",
    } as const;
    const tensor = memory.allocate({ ...options, id: "a", tag: "vision" });
    expect(tensor).toMatchObject({
      ...options,
      id: "a",
      tag: "vision",
      byteLength: 48,
      isResident: true,
    });
    expect(memory.tensor("a")).toMatchObject({ ...options, id: "a" });
    expect(memory.tensor("b")).toBeNull();
    const anonymous = memory.allocate({ kind: "PARAMETERS", byteLength: 7 });
    expect(anonymous).toMatchObject({
      id: null,
      dtype: "u8",
      shape: [7],
      layout: "row-major",
      tag: "",
    });
    using pin = tensor.pin();
    expect(pin).toMatchObject({ id: "a", dtype: "bf16", shape: [2, 3, 4], access: "write" });
    anonymous.free();
  });
});

describe("reports", () => {
  it("format sizes, shares and tables", () => {
    expect([0, 1023, 1024, 1536, 102_400, 2 ** 30, 2 ** 50].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1.0 KiB",
      "1.5 KiB",
      "100 KiB",
      "1.0 GiB",
      "1024 TiB",
    ]);
    expect(formatBytes(Number.POSITIVE_INFINITY)).toBe("unlimited");
    expect(formatPercent(0.1234)).toBe("12.3 %");
    expect(formatTable([["a", "bb"], ["ccc"]])).toBe("a    bb\nccc");
  });

  it("show budget, pools and tiers", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    memory.allocate({ kind: "KV_CACHE", byteLength: 100_000, id: "a" });
    await memory.swapOut("a");
    const report = memory.report();
    for (const part of ["compaction", "arenas emptied", "claimed peak", "by length"]) {
      expect(report).toContain(part);
    }
    expect(report).not.toContain("lock taken");
    for (const part of ["RAM budget", "16.0 MiB", "KV_CACHE", "ext. frag.", "1 tensors"]) {
      expect(report).toContain(part);
    }
  });

  it("count the lock of a shared memory", async () => {
    const memory = await openMemory({ shared: true });
    memory.allocate({ kind: "KV_CACHE", byteLength: 100 }).free();
    const { lock } = memory.stats();
    expect(lock).toMatchObject({ contendedCount: 0, refusedCount: 0 });
    expect(lock?.enteredCount).toBeGreaterThan(0);
    expect(memory.report()).toMatch(/lock taken +\d+, contended 0, refused 0/);
    expect((await openMemory()).stats().lock).toBeNull();
  });

  it.each([
    ["short", 16],
    ["long", 64],
  ])("count free and cached blocks of %s arenas by length", (_name, mib) =>
    withSeed("block counts", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory({ budgets: { ram: mib * 2 ** 20 } });
      const tensors: Tensor[] = [];
      const poolStats = () => memory.stats().pools[0] as MemoryStats["pools"][number];
      const sum = (counts: readonly { blockBytes: number; count: number }[]) =>
        counts.reduce((total, { blockBytes, count }) => total + blockBytes * count, 0);
      for (let step = 0; step < 2000; step++) {
        const byteLength = 1 + (random.uint32() % 2 ** (1 + (random.uint32() % 17)));
        if (random.uint32() % 3 === 0) tensors.splice(0, 1)[0]?.free();
        else tensors.push(memory.allocate({ kind: "ACTIVATIONS", byteLength }));
      }
      const { freeBlocks, cachedBlocks, freeBytes, claimedBytes, grantedBytes } = poolStats();
      expect(sum(cachedBlocks)).toBe(claimedBytes - grantedBytes);
      expect(cachedBlocks.length).toBeGreaterThan(1);
      // The rest is free in slabs.
      expect(sum(freeBlocks)).toBeGreaterThan(freeBytes / 8);
      expect(sum(freeBlocks) + sum(cachedBlocks)).toBeLessThanOrEqual(freeBytes);
      const lengths = freeBlocks.map(({ blockBytes }) => blockBytes);
      expect(lengths).toEqual([...lengths].sort((left, right) => left - right));
      expect(lengths.at(-1)).toBe(poolStats().largestFreeBlockBytes);
      for (const tensor of tensors) tensor.free();
      memory.trim();
      expect(memory.stats().pools[0]).toMatchObject({ freeBlocks: [], cachedBlocks: [] });
    }),
  );
});
