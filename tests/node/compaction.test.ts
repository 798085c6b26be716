// Compaction in steps: it ends where its limits say, goes on whatever happened between, and no byte of a
// tensor changes.
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.js";
import { fragmentationLevel } from "../../src/memory/fragmentation.js";
import type { Seams } from "../../src/memory/seams.js";
import type { Tensor } from "../../src/memory/tensor.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { seededRandom } from "../../src/testing/index.js";
import { openMemory, withSeed } from "../support/oracle.js";

const RAM_BYTES = 64 * 2 ** 20;

/** Fills arenas with stamped tensors of many lengths and frees some of them at random. */
async function fragmented(seed: number, seams: Partial<Seams> = {}) {
  const random = seededRandom(seed);
  const unit = () => random.uint32() / 2 ** 32;
  const memory = await openMemory({ budgets: { ram: RAM_BYTES }, seams });
  let live: { readonly tensor: Tensor; readonly mark: number }[] = [];
  const add = () => {
    const byteLength = Math.ceil(256 * 4096 ** unit());
    const tensor = memory.tryAllocate({ kind: "ACTIVATIONS", byteLength });
    if (tensor === null) return false;
    const mark = 1 + Math.floor(unit() * 255);
    using pin = tensor.pin({ access: "write" });
    pin.bytes.fill(mark);
    live.push({ tensor, mark });
    return true;
  };
  while (add());
  const thin = () => {
    const kept = live.filter(() => unit() < 0.6);
    const keptSet = new Set(kept);
    for (const each of live) if (!keptSet.has(each)) each.tensor.free();
    live = kept;
  };
  thin();
  const damagedCount = () =>
    live.filter(({ tensor, mark }) => {
      using pin = tensor.pin();
      return pin.bytes.some((byte) => byte !== mark);
    }).length;
  const freeAll = () => {
    for (const { tensor } of live) tensor.free();
  };
  return { memory, add, thin, damagedCount, freeAll };
}

const poolOf = (memory: TensorMemory) => {
  const pool = memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS");
  if (pool === undefined) throw new Error("no such pool");
  return pool;
};

describe("compaction", () => {
  it("makes the free space nearly one piece in each arena, and changes no byte", () =>
    withSeed("compaction", async (seed) => {
      const { memory, damagedCount, freeAll } = await fragmented(seed);
      const before = poolOf(memory);
      expect(memory.compact().isFinished).toBe(true);
      const after = poolOf(memory);
      // In pieces beside the longest of each arena. Fewer arenas, and so fuller ones, hold the same.
      const scatteredBytes = after.externalFragmentation * after.freeBytes;
      expect(after.arenaCount).toBeLessThan(before.arenaCount);
      expect(scatteredBytes).toBeLessThan(after.capacityBytes * 0.08);
      expect(scatteredBytes).toBeLessThan(before.externalFragmentation * before.freeBytes * 0.25);
      expect(after.compactedBytes).toBeGreaterThan(0);
      expect(damagedCount()).toBe(0);
      expect(memory.verify().isSound).toBe(true);
      freeAll();
    }));

  it("goes on with the next step, and a step moves no more than it may, or one tensor", () =>
    withSeed("compaction in steps", async (seed) => {
      const { memory, add, thin, damagedCount, freeAll } = await fragmented(seed);
      const bytesMovedMax = 2 ** 19;
      let stepCount = 0;
      let isFinished = false;
      while (!isFinished) {
        const step = memory.compact({ bytesMovedMax });
        stepCount += 1;
        expect(step.movedBytes).toBeLessThanOrEqual(2 ** 20);
        if (stepCount < 20) add();
        if (stepCount === 5) thin();
        expect(memory.verify().isSound).toBe(true);
        isFinished = step.isFinished;
        expect(stepCount).toBeLessThan(2000);
      }
      expect(stepCount).toBeGreaterThan(5);
      expect(damagedCount()).toBe(0);
      freeAll();
    }));

  it("moves one tensor a step if there is time or bytes for no more", () =>
    withSeed("compaction without time", async (seed) => {
      let nowMs = 0;
      const clock = { ...systemClock, monotonicMs: () => nowMs++ };
      const { memory, freeAll } = await fragmented(seed, { clock });
      const largestBytes = 2 ** 20;
      for (const limits of [{ bytesMovedMax: 1 }, { durationMsMax: 1 }]) {
        const before = poolOf(memory).compactedBytes;
        const step = memory.compact(limits);
        expect(step.isFinished).toBe(false);
        expect(step.movedBytes).toBeGreaterThan(0);
        expect(step.movedBytes).toBeLessThanOrEqual(largestBytes);
        expect(poolOf(memory).compactedBytes).toBe(before + step.movedBytes);
      }
      freeAll();
    }));

  it("names levels of fragmentation", () => {
    const levels = [0, 0.09, 0.1, 0.29, 0.3, 0.59, 0.6, 1].map(fragmentationLevel);
    expect(levels.join(" ")).toBe("low low medium medium high high critical critical");
  });
});
