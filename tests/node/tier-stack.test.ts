// Several tiers as one: where objects lie, and when they move.
import { describe, expect, it } from "vitest";
import { DURABLE, holds, SAVED, store, warm } from "../support/stack-levels.js";
import { keyOf, objectOf, put, SWAPPED, stackOf, versionAt } from "../support/stacks.js";

describe("a stack places and moves", () => {
  it("new objects into the highest level that keeps what they need", async () => {
    const tiers = [warm(100_000), store("ssd", 100_000), store("hdd", 100_000)] as const;
    const { stack } = stackOf(tiers);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 100));
    await put(stack, 2, objectOf(2, 1, 100), SAVED);
    await put(stack, 3, objectOf(3, 1, 100), DURABLE);
    await put(stack, 4, objectOf(4, 1, 60_000));
    expect(await holds(tiers[0])).toEqual([1]);
    expect(await holds(tiers[1])).toEqual([2, 3]);
    // Too much of any level: it goes to the last one.
    expect(await holds(tiers[2])).toEqual([4]);
    await stack.close();
  });

  it("the coldest objects down when a level is full, and refuses when the last one is", async () => {
    const tiers = [store("ssd", 4000), store("hdd", 4000)];
    const { stack } = stackOf(tiers);
    await stack.open();
    let storedCount = 0;
    for (let key = 1; key <= 12; key++) {
      if ((await put(stack, key, objectOf(key, 1, 900))) === "stored") storedCount += 1;
    }
    await stack.settle();
    expect(storedCount).toBe(8);
    expect(stack.stats().noSpaceCount).toBe(4);
    for (const tier of tiers) expect(tier.stats().physicalBytes).toBeLessThanOrEqual(4000);
    for (let key = 1; key <= 12; key++) expect(await versionAt(stack, key)).toBe(key <= 8 ? 1 : 0);
    const [ssd, hdd] = stack.levels();
    expect(ssd?.demotions).toBeGreaterThanOrEqual(4);
    expect(hdd?.hits).toBeGreaterThan(0);
    const { lookups, hits, absent, failed } = stack.lookups();
    expect([lookups, hits + absent + failed, hits]).toEqual([12, 12, 8]); // INV-STACK-4
    await stack.close();
  });

  it("in the background what is above the high watermark", async () => {
    const tiers = [store("ssd", 10_000), store("hdd", 10_000)] as const;
    const { stack } = stackOf(tiers);
    await stack.open();
    for (let key = 1; key <= 10; key++) await put(stack, key, objectOf(key, 1, 950));
    await stack.settle();
    expect(tiers[0].stats().storedBytes).toBeLessThanOrEqual(8500);
    // Room was there for each, so no commit had to wait.
    expect(tiers[0].stats().noSpaceCount).toBe(0);
    await stack.close();
  });

  it("what is read again up, and gives the copy up without a write", async () => {
    const tiers = [store("ssd", 4000), store("hdd", 20_000)] as const;
    const { stack, clock } = stackOf(tiers);
    await stack.open();
    for (let key = 1; key <= 8; key++) {
      await put(stack, key, objectOf(key, 1, 900));
      clock.advance(1000);
    }
    await stack.settle();
    expect(await holds(tiers[1])).toContain(1);
    for (let use = 0; use < 3; use++) {
      clock.advance(10);
      expect(await versionAt(stack, 1)).toBe(1);
      await stack.settle();
    }
    expect(await holds(tiers[0])).toContain(1);
    expect(await holds(tiers[1])).toContain(1); // INV-STACK-1
    expect(stack.levels()[0]?.promotions).toBe(1);
    const written = tiers[1].stats().bytesWritten;
    for (let key = 20; key < 26; key++) {
      clock.advance(100_000);
      await put(stack, key, objectOf(key, 1, 900));
    }
    await stack.settle();
    expect(await holds(tiers[0])).not.toContain(1);
    expect(stack.levels()[0]?.cleanEvictions).toBeGreaterThan(0);
    expect(tiers[1].stats().bytesWritten - written).toBeLessThan(6 * 900);
    expect(await versionAt(stack, 1)).toBe(1);
    await stack.close();
  });

  it("what lies in RAM down when it is closed", async () => {
    const tiers = [warm(10_000), store("ssd", 10_000)] as const;
    const { stack } = stackOf(tiers);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 500));
    expect(await holds(tiers[0])).toEqual([1]);
    await stack.close();
    await tiers[1].open();
    expect(await holds(tiers[1])).toEqual([1]);
  });

  it("a longer successor below, and never under something older", async () => {
    const tiers = [store("ssd", 1000), store("hdd", 10_000)] as const;
    const { stack } = stackOf(tiers);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 200));
    expect(await holds(tiers[0])).toEqual([1]);
    await put(stack, 1, objectOf(1, 2, 5000));
    expect([await holds(tiers[0]), await holds(tiers[1])]).toEqual([[], [1]]);
    expect(await versionAt(stack, 1)).toBe(2);
    await put(stack, 1, objectOf(1, 3, 200));
    await stack.settle();
    expect([await holds(tiers[0]), await holds(tiers[1])]).toEqual([[1], []]);
    await stack.close();
  });

  it("nothing that is in use", async () => {
    const tiers = [store("ssd", 2000), store("hdd", 2000)] as const;
    const { stack } = stackOf(tiers);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 1500));
    const top = (await holds(tiers[0])).length === 1 ? tiers[0] : tiers[1];
    const reader = await stack.openRead(keyOf(1));
    await put(stack, 2, objectOf(2, 1, 1500));
    await put(stack, 3, objectOf(3, 1, 400));
    expect(await holds(top)).toContain(1);
    await reader?.close();
    await stack.close();
  });

  it("an object whose time is over nowhere: it goes", async () => {
    const tiers = [store("ssd", 2000), store("hdd", 8000)] as const;
    const { stack, clock } = stackOf(tiers);
    await stack.open();
    const expiresMs = clock.wallMs() + 1000;
    await put(stack, 1, objectOf(1, 1, 400), { ...SWAPPED, expiresMs });
    clock.advance(2000);
    for (let key = 2; key < 8; key++) await put(stack, key, objectOf(key, 1, 400));
    await stack.settle();
    expect(await versionAt(stack, 1)).toBe(0);
    expect(await holds(tiers[1])).not.toContain(1);
    await stack.close();
  });
});
