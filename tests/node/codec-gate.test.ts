// When it pays to code: where that is faster than the device.
import { describe, expect, it } from "vitest";
import { CodecGate } from "../../src/cache/codec-gate.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { allocate, valuesLike } from "../support/coded-tensors.js";
import { openMemory, withSeed } from "../support/oracle.js";

describe("the gate", () => {
  /** Writes and reads tensors of a kind under these costs, in ms. @returns Time beside that of raw. */
  function run(gate: CodecGate, count: number, costs: { plain: number; coded: number }) {
    let spent = 0;
    let codedCount = 0;
    for (let index = 0; index < count; index++) {
      const isCoded = gate.asksCoded("KV_CACHE", 2 ** 20);
      const cost = isCoded ? costs.coded : costs.plain;
      gate.noteWrite("KV_CACHE", 2 ** 20, isCoded, cost);
      gate.noteRead("KV_CACHE", 2 ** 20, isCoded, cost / 2);
      spent += cost;
      codedCount += isCoded ? 1 : 0;
    }
    return { overRaw: spent / (count * costs.plain), codedShare: codedCount / count };
  }

  it("codes where that is faster, and hardly ever where it is not", () => {
    expect(run(new CodecGate(), 1000, { plain: 10, coded: 7 })).toMatchObject({
      codedShare: expect.toSatisfy((share: number) => share > 0.95),
    });
    for (const coded of [10, 11, 15, 30, 200]) {
      const { overRaw, codedShare } = run(new CodecGate(), 2000, { plain: 10, coded });
      expect(overRaw, `${coded}`).toBeLessThan(1.04);
      expect(codedShare, `${coded}`).toBeLessThan(0.05);
    }
  });

  it("follows a device that changes, and only then", () => {
    const gate = new CodecGate();
    run(gate, 100, { plain: 10, coded: 20 });
    // Five per cent are no reason to change.
    expect(run(gate, 500, { plain: 10, coded: 9.5 }).codedShare).toBeLessThan(0.1);
    run(gate, 500, { plain: 40, coded: 15 });
    expect(run(gate, 500, { plain: 40, coded: 15 }).codedShare).toBeGreaterThan(0.9);
  });

  it("forgets a first write that took long, and finds out in noise", async () => {
    const gate = new CodecGate();
    gate.noteWrite("KV_CACHE", 2 ** 20, false, 500);
    const { overRaw } = run(gate, 300, { plain: 10, coded: 14 });
    expect(overRaw).toBeLessThan(1.05);
    await withSeed("noise", (seed) => {
      const random = seededRandom(seed);
      // A third of all writes takes up to five times as long.
      const noisy = (cost: number) =>
        random.uint32() % 3 === 0 ? cost * (1 + (random.uint32() % 5)) : cost;
      for (const [plain, coded] of [
        [10, 14],
        [10, 7],
      ] as const) {
        const other = new CodecGate();
        let codedCount = 0;
        for (let index = 0; index < 2000; index++) {
          const isCoded = other.asksCoded("KV_CACHE", 2 ** 20);
          other.noteWrite("KV_CACHE", 2 ** 20, isCoded, noisy(isCoded ? coded : plain));
          codedCount += isCoded ? 1 : 0;
        }
        if (coded > plain) expect(codedCount / 2000).toBeLessThan(0.05);
        else expect(codedCount / 2000).toBeGreaterThan(0.95);
      }
    });
  });

  it("is not impressed by one stall, nor by a clock that stands still", () => {
    const gate = new CodecGate();
    run(gate, 200, { plain: 10, coded: 8 });
    gate.noteWrite("KV_CACHE", 2 ** 20, true, 11);
    expect(gate.asksCoded("KV_CACHE", 2 ** 20)).toBe(true);
    expect(run(new CodecGate(), 500, { plain: 0, coded: 0 }).codedShare).toBeLessThan(0.05);
  });

  it("leaves short tensors as they are, and keeps kinds and sizes apart", () => {
    const gate = new CodecGate();
    for (let round = 0; round < 10; round++) expect(gate.asksCoded("KV_CACHE", 4096)).toBe(false);
    run(gate, 100, { plain: 10, coded: 5 });
    expect(gate.asksCoded("KV_CACHE", 2 ** 20)).toBe(true);
    expect(gate.asksCoded("PARAMETERS", 2 ** 20)).toBe(false);
    expect(gate.asksCoded("KV_CACHE", 2 ** 24)).toBe(false);
  });

  it("measures by the memory's clock: a slow tier is written in codecs", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const inner = memoryTier();
    // Ten megabytes a second.
    const slow: Tier = {
      ...inner,
      begin: async (key, byteLength) => {
        const writer = await inner.begin(key, byteLength);
        if (writer === "no-space") return writer;
        return {
          ...writer,
          write: async (source) => {
            clock.advance(source.byteLength / 10_000);
            return writer.write(source);
          },
        };
      },
    };
    const memory = await openMemory({ budgets: { ram: "64MiB" }, seams: { tier: slow, clock } });
    for (let index = 0; index < 20; index++) {
      allocate(memory, `${index}`, valuesLike(64 * 256, index));
      await memory.swapOut(`${index}`);
    }
    const counts = new Map(memory.stats().codecs.map((each) => [each.codec, each.tensorCount]));
    expect(counts.get("plane")).toBeGreaterThan(15);
    expect(counts.get("raw")).toBeLessThan(5);
  });
});
