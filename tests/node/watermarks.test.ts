// Room that is made before it is asked for: for the budget, and for the process.
import { describe, expect, it } from "vitest";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { openMemory } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

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

/** A tier whose writes wait at a gate. */
function slowTier() {
  const gated = gatedTier(memoryTier());
  return {
    tier: gated.tier,
    close: () => gated.close("write"),
    open: () => gated.open(),
    waiting: () => gated.waiting,
  };
}

/** Lets a run that has begun end. */
async function finish(memory: TensorMemory) {
  while (memory.stats().background.isRunning) await new Promise((resolve) => setImmediate(resolve));
  return memory.stats();
}

const open = (options: TensorMemoryOptions) =>
  openMemory({ ...options, seams: { tier: memoryTier(), ...options.seams } });

describe("watermarks", () => {
  it("copy early, so that requests find room without a write", async () => {
    const memory = await open({});
    const events = memory.events();
    for (let index = 0; index < 60; index++) {
      // What cannot wait, and would be refused if something had to be written first.
      allocateFilled(memory, `t${index}`, MIB / 2, index);
      await finish(memory);
    }
    const { background, tensors, transfers } = memory.stats();
    expect(background.budgetRunCount).toBeGreaterThan(2);
    expect(background.copiedCount).toBe(transfers.earlyCopyCount);
    expect(transfers.swapOutCount).toBe(0);
    expect(transfers.cleanEvictionCount).toBeGreaterThan(20);
    // No byte was given up that nobody needed.
    expect(tensors.hotBytes).toBeGreaterThan(background.highBytes);
    for (;;) {
      const { value } = await events.next();
      if (value?.type !== "watermark") continue;
      expect(value).toMatchObject({ cause: "budget", demotedCount: 0 });
      expect(value.copiedCount).toBeGreaterThan(0);
      break;
    }
    await events.return();
    for (let index = 0; index < 60; index++) {
      await expectFilled(memory, `t${index}`, MIB / 2, index);
      await finish(memory);
    }
  });

  it("copy nothing below the high one, nor down beyond the low one", async () => {
    const memory = await open({ watermarks: { high: 0.6, low: 0.4 } });
    const limitBytes = memory.stats().background.highBytes / 0.6;
    let index = 0;
    while (memory.stats().tensors.hotBytes + MIB / 2 < 0.6 * limitBytes) {
      allocateFilled(memory, `t${index}`, MIB / 2, index);
      index += 1;
    }
    expect((await finish(memory)).background.copiedCount).toBe(0);
    while (memory.stats().background.copiedCount === 0) {
      allocateFilled(memory, `t${index}`, MIB / 2, index);
      index += 1;
      await finish(memory);
    }
    const { background, tensors } = memory.stats();
    const leftBytes = tensors.hotBytes - (background.copiedCount * MIB) / 2;
    expect(leftBytes).toBeLessThanOrEqual(0.4 * limitBytes);
    expect(leftBytes).toBeGreaterThan(0.3 * limitBytes);
  });

  it("copy again what was written", async () => {
    const memory = await open({ watermarks: { high: 0.3, low: 0.05 } });
    for (let index = 0; index < 8; index++) allocateFilled(memory, `t${index}`, MIB, index);
    const { background } = await finish(memory);
    expect(background.copiedCount).toBeGreaterThan(2);
    {
      using lease = await memory.acquire("t0");
      lease?.bytes.fill(99);
    }
    for (let index = 8; index < 20; index++) {
      allocateFilled(memory, `t${index}`, MIB, index);
      await finish(memory);
    }
    using lease = await memory.acquire("t0");
    expect(lease?.bytes.every((byte) => byte === 99)).toBe(true);
  });

  it("give way to a change of length, and to the end of a tensor", async () => {
    const { tier, close, open: openGate, waiting } = slowTier();
    const memory = await open({ seams: { tier }, watermarks: { high: 0.3, low: 0.05 } });
    close();
    for (let index = 0; index < 6; index++) allocateFilled(memory, `t${index}`, MIB, index);
    await waiting();
    expect(memory.stats().background.isRunning).toBe(true);
    const tensor = memory.tensor("t0");
    tensor?.resize({ shape: [2 * MIB] });
    tensor?.resize({ shape: [MIB / 2] });
    memory.free("t1");
    openGate();
    const { background } = await settle(memory);
    expect(background.copiedCount).toBeGreaterThan(0);
    await expectFilled(memory, "t0", MIB / 2, 0);
    await memory.swapOut("t0");
    await expectFilled(memory, "t0", MIB / 2, 0);
    expect(await memory.acquire("t1")).toBe(null);
  });

  it("fill no tier with what nobody needs yet", async () => {
    const tier = memoryTier({ capacityBytes: 4 * MIB });
    const memory = await open({ codecs: { default: "raw" }, seams: { tier } });
    for (let index = 0; index < 23; index++) allocateFilled(memory, `t${index}`, MIB / 2, index);
    const { transfers } = await settle(memory);
    expect(transfers.earlyCopyCount).toBeGreaterThan(0);
    expect(tier.stats().physicalBytes).toBeLessThanOrEqual(0.8 * 4 * MIB);
    // Only copies find all of the tier's room.
    for (let index = 0; index < 7; index++) {
      expect(await memory.swapOut(`t${index + 15}`)).toBe("stored");
    }
    for (let index = 0; index < 23; index++)
      await expectFilled(memory, `t${index}`, MIB / 2, index);
  });

  it("are off at a high one of 1, and without a tier", async () => {
    for (const memory of [
      await open({ watermarks: { high: 1 } }),
      await openMemory({ watermarks: { high: 0.2, low: 0.1 } }),
    ]) {
      for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
      const { background, transfers } = await settle(memory);
      expect(background.copiedCount).toBe(0);
      expect(transfers.earlyCopyCount + transfers.swapOutCount).toBe(0);
    }
  });

  it("end with the memory", async () => {
    const memory = await open({ watermarks: { high: 0.3, low: 0.01 } });
    for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
    await memory.close();
    expect(memory.stats().background.copiedCount).toBeLessThan(10);
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
    rssBytes = 79 * MIB;
    clock.advance(1000);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 4 });
    expect((await settle(memory)).background.rssRunCount).toBe(0);
    rssBytes = 81 * MIB;
    clock.advance(1000);
    const { hotBytes } = memory.stats().tensors;
    await memory.reserve({ kind: "ACTIVATIONS", bytes: MIB });
    const after = await settle(memory);
    expect(after.background.rssRunCount).toBe(1);
    expect(after.tensors.hotBytes).toBe(Math.max(0, hotBytes - 11 * MIB));
    for (let index = 0; index < 10; index++) await expectFilled(memory, `t${index}`, MIB, index);
    await settle(memory);
  });

  it("goes on past what a full tier has no room for", async () => {
    const clock = manualClock({ sleeping: "skip" });
    let rssBytes = 50 * MIB;
    const tier = memoryTier({ capacityBytes: 2.5 * MIB });
    const memory = await open({
      codecs: { default: "raw" },
      limits: { rss: "100MiB" },
      watermarks: { high: 1, low: 0.9 },
      seams: { clock, tier, residentBytes: () => rssBytes },
    });
    for (let index = 0; index < 3; index++) allocateFilled(memory, `old${index}`, MIB, index);
    // Saved, so clean; and newer than what is dirty and would leave first.
    for (let index = 0; index < 2; index++) {
      allocateFilled(memory, `saved${index}`, MIB, 10 + index);
      expect(await memory.save(`saved${index}`)).toBe("stored");
    }
    const isHot = (id: string) => memory.tensor(id)?.isResident;
    rssBytes = 101 * MIB;
    clock.advance(1000);
    await memory.reserve({ kind: "ACTIVATIONS", bytes: MIB });
    const { background } = await settle(memory);
    expect(background).toMatchObject({ rssRunCount: 1, demotedCount: 2 });
    expect(["old0", "old1", "old2"].map(isHot)).toEqual([true, true, true]);
    expect(["saved0", "saved1"].map(isHot)).toEqual([false, false]);
    rssBytes = 50 * MIB;
    for (let index = 0; index < 3; index++) await expectFilled(memory, `old${index}`, MIB, index);
  });
});
