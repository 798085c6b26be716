// Room that is made before it is asked for: for the budget, and for the process.
import { describe, expect, it } from "vitest";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { openMemory } from "../support/oracle.js";

const MIB = 2 ** 20;

/** Lets the background end what it has begun. */
async function settle(memory: TensorMemory) {
  for (let quiet = 0, seen = -1; quiet < 100; quiet++) {
    await new Promise((resolve) => setImmediate(resolve));
    const { bytesWritten } = memory.stats().tier;
    if (bytesWritten !== seen || memory.stats().pools.some(({ pinnedCount }) => pinnedCount > 0)) {
      quiet = 0;
    }
    seen = bytesWritten;
  }
  return memory.stats();
}

const open = (options: TensorMemoryOptions) =>
  openMemory({ ...options, seams: { tier: memoryTier(), ...options.seams } });

describe("watermarks", () => {
  it("keep room free in the background, so that requests find it", async () => {
    const memory = await open({ watermarks: { high: 0.5, low: 0.3 } });
    const events = memory.events();
    for (let index = 0; index < 40; index++) {
      allocateFilled(memory, `t${index}`, MIB / 2, index);
      await settle(memory);
    }
    const { background, tensors, budget } = memory.stats();
    expect(background.budgetRunCount).toBeGreaterThan(2);
    expect(tensors.hotBytes).toBeLessThan(0.55 * budget.limitBytes);
    expect(background.demotedCount).toBe(memory.stats().transfers.swapOutCount);
    const { value } = await events.next();
    expect(value).toMatchObject({ type: expect.stringMatching(/watermark|spill|pressure/) });
    await events.return();
    for (let index = 0; index < 40; index++) {
      await expectFilled(memory, `t${index}`, MIB / 2, index);
      await settle(memory);
    }
  });

  it("are off by default, and without a tier", async () => {
    for (const memory of [
      await open({}),
      await openMemory({ watermarks: { high: 0.2, low: 0.1 } }),
    ]) {
      for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
      const { background, transfers } = await settle(memory);
      expect(background.demotedCount).toBe(0);
      expect(transfers.swapOutCount).toBe(0);
    }
  });

  it("end with the memory", async () => {
    const memory = await open({ watermarks: { high: 0.3, low: 0.01 } });
    for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
    await memory.close();
    expect(memory.stats().background.demotedCount).toBeLessThan(10);
    await settle(memory);
  });

  it.each([
    { high: 0 },
    { high: 1.1 },
    { low: 0 },
    { high: 0.5, low: 0.6 },
    { high: "1" },
    { other: 1 },
  ])("refuse %o", async (watermarks) => {
    await expect(openMemory({ watermarks: watermarks as never })).rejects.toMatchObject({
      code: "bad-option",
    });
  });
});

describe("a limit of the process", () => {
  it("demotes what the process has too much, and looks seldom", async () => {
    const clock = manualClock({ sleeping: "skip" });
    let rssBytes = 50 * MIB;
    let probeCount = 0;
    const residentBytes = () => {
      probeCount += 1;
      return rssBytes;
    };
    const memory = await open({ limits: { rss: "100MiB" }, seams: { clock, residentBytes } });
    for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
    expect((await settle(memory)).background.rssRunCount).toBe(0);
    expect(probeCount).toBe(1);
    rssBytes = 84 * MIB;
    clock.advance(1000);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 4 });
    expect((await settle(memory)).background.rssRunCount).toBe(0);
    rssBytes = 91 * MIB;
    clock.advance(1000);
    const { hotBytes } = memory.stats().tensors;
    await memory.reserve({ kind: "ACTIVATIONS", bytes: MIB });
    const after = await settle(memory);
    expect(after.background.rssRunCount).toBe(1);
    expect(after.tensors.hotBytes).toBe(Math.max(0, hotBytes - 11 * MIB));
    for (let index = 0; index < 10; index++) await expectFilled(memory, `t${index}`, MIB, index);
    await settle(memory);
  });
});
