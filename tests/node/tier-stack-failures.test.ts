// Several tiers as one while a level fails: what is read, deleted and found again.
import { describe, expect, it } from "vitest";
import {
  decodeDeletionPage,
  deletionPageKey,
  encodeDeletionPage,
} from "../../src/record/deletion-page.js";
import type { Tier } from "../../src/tier/tier.js";
import { DURABLE, failing, holds, store } from "../support/stack-levels.js";
import { keyOf, objectOf, put, stackOf, versionAt } from "../support/stacks.js";

describe("a stack whose level fails", () => {
  it("goes on without it, and asks it again after a while", async () => {
    const ssd = failing(store("ssd", 100_000));
    const { stack, clock, failures } = stackOf([ssd.tier, store("hdd", 100_000)]);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 100));
    ssd.state.isFailing = true;
    for (let key = 2; key < 6; key++)
      expect(await put(stack, key, objectOf(key, 1, 100))).toBe("stored");
    expect(failures.length).toBe(3);
    expect(stack.levels()[0]?.breaker).toBe("open");
    const before = ssd.state.callCount;
    for (let key = 2; key < 6; key++) expect(await versionAt(stack, key)).toBe(1);
    expect(ssd.state.callCount).toBe(before);
    // What may lie in the level that is down is not reported as missing.
    await expect(stack.openRead(keyOf(1))).rejects.toMatchObject({ code: "io", tier: "ssd" });
    expect(await versionAt(stack, 99)).toBe(0);
    const { lookups, hits, absent, failed } = stack.lookups();
    expect(hits + absent + failed).toBe(lookups);
    ssd.state.isFailing = false;
    clock.advance(1001);
    expect(stack.levels()[0]?.breaker).toBe("half-open");
    expect(await versionAt(stack, 1)).toBe(1);
    expect(stack.levels()[0]?.breaker).toBe("closed");
    await stack.close();
  });

  it("reads on from another level that holds the same", async () => {
    const ssd = failing(store("ssd", 4000));
    const { stack, clock } = stackOf([ssd.tier, store("hdd", 20_000)]);
    await stack.open();
    for (let key = 1; key <= 8; key++) {
      await put(stack, key, objectOf(key, 1, 900));
      clock.advance(1000);
    }
    for (let use = 0; use < 3; use++) {
      await versionAt(stack, 1);
      await stack.settle();
    }
    expect(stack.levels()[0]?.promotions).toBe(1);
    const reader = await stack.openRead(keyOf(1));
    ssd.state.isFailing = true;
    const bytes = objectOf(0, 0, 900);
    expect(await reader?.read(0, bytes)).toBe(900);
    expect(bytes.every((byte, index) => byte === objectOf(1, 1, 900)[index])).toBe(true);
    await reader?.close();
    ssd.state.isFailing = false;
    await stack.close();
  });

  it("never reads what a level kept because it could not be told of a deletion", async () => {
    const hdd = failing(store("hdd", 20_000));
    const { stack, clock } = stackOf([store("ssd", 1000), hdd.tier]);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 800));
    expect(stack.levels()[1]?.objectCount).toBe(1);
    hdd.state.isFailing = true;
    expect(await stack.delete(keyOf(1))).toBe(true);
    expect(await versionAt(stack, 1)).toBe(0);
    hdd.state.isFailing = false;
    clock.advance(100_000);
    expect(await versionAt(stack, 1)).toBe(0);
    expect(await stack.delete(keyOf(1))).toBe(false);
    expect(stack.levels().map(({ objectCount }) => objectCount)).toEqual([0, 0]);
    await stack.close();
  });

  /** Version 1 in the HDD, which could not be told of version 2 in the SSD. */
  async function withOlderBelow(lowest: readonly Tier[] = []) {
    const ssd = failing(store("ssd", 1000));
    const hdd = failing(store("hdd", 20_000));
    const tiers = [ssd.tier, hdd.tier, ...lowest];
    const { stack, clock } = stackOf(tiers);
    await stack.open();
    await put(stack, 1, objectOf(1, 1, 800));
    hdd.state.isFailing = true;
    await put(stack, 1, objectOf(1, 2, 200));
    await stack.settle();
    expect(await versionAt(stack, 1)).toBe(2);
    expect(hdd.tier.stats().objectCount).toBe(1);
    /** What another process finds. */
    const restarted = async () => {
      ssd.state.isFailing = false;
      hdd.state.isFailing = false;
      const again = stackOf(tiers).stack;
      await again.open();
      return again;
    };
    return { stack, clock, ssd, hdd, restarted };
  }

  it("deletes what is older first, or writes down that it is deleted", async () => {
    const one = await withOlderBelow();
    expect(await one.stack.delete(keyOf(1))).toBe(true);
    expect(await versionAt(one.stack, 1)).toBe(0);
    const again = await one.restarted();
    expect(await versionAt(again, 1)).toBe(0);
    await again.settle();
    expect(again.levels().map(({ objectCount }) => objectCount)).toEqual([0, 0]);
    const other = await withOlderBelow();
    other.hdd.state.isFailing = false;
    other.clock.advance(100_000);
    other.ssd.state.isFailing = true;
    // The lower level can take the note for the upper one.
    expect(await other.stack.delete(keyOf(1))).toBe(true);
    expect(await versionAt(await other.restarted(), 1)).toBe(0);
  });

  it("neither reads nor lists what could be deleted nowhere and written down nowhere", async () => {
    const { stack, clock, ssd, hdd, restarted } = await withOlderBelow();
    ssd.state.isFailing = true;
    await expect(stack.delete(keyOf(1))).rejects.toMatchObject({ code: "io" });
    await expect(stack.openRead(keyOf(1))).rejects.toMatchObject({ code: "io" });
    const keys: string[] = [];
    for await (const key of stack.list()) keys.push(key);
    expect([keys, stack.stats().objectCount]).toEqual([[], 0]);
    // What nobody could be told of may come back, but whole and the newest.
    expect(await versionAt(await restarted(), 1)).toBe(2);
    ssd.state.isFailing = false;
    hdd.state.isFailing = true;
    clock.advance(100_000);
    expect(await versionAt(stack, 1)).toBe(0);
    expect(await versionAt(await restarted(), 1)).toBe(0);
  });

  it("takes what is stored after a deletion that is still to come", async () => {
    const { stack, clock, hdd, restarted } = await withOlderBelow();
    await stack.delete(keyOf(1));
    expect(await put(stack, 1, objectOf(1, 3, 200), DURABLE)).toBe("stored");
    expect(await versionAt(await restarted(), 1)).toBe(3);
    hdd.state.isFailing = false;
    clock.advance(100_000);
    // INV-STACK-5: the note goes before the lower level takes it.
    for (let key = 2; key < 8; key++) await put(stack, key, objectOf(key, 1, 200), DURABLE);
    await stack.settle();
    const again = await restarted();
    await again.settle();
    for (let key = 1; key < 8; key++) expect(await versionAt(again, key)).toBe(key === 1 ? 3 : 1);
    expect(await holds(hdd.tier)).toContain(1);
  });

  it("writes many deletions down in few pages, and removes the pages", async () => {
    const ssd = store("ssd", 100_000);
    const hdd = failing(store("hdd", 400_000));
    const { stack, clock } = stackOf([ssd, hdd.tier]);
    await stack.open();
    const count = 600;
    for (let key = 1; key <= count; key++) await put(hdd.tier, key, objectOf(key, 1, 100));
    const restarted = async () => {
      const again = stackOf([ssd, hdd.tier]);
      await again.stack.open();
      return again;
    };
    const { stack: second } = await restarted();
    hdd.state.isFailing = true;
    const keys = Array.from({ length: count }, (_, index) => index + 1);
    await Promise.all(keys.map((key) => second.delete(keyOf(key))));
    expect(ssd.stats().objectCount).toBe(3);
    expect(second.stats().objectCount).toBe(0);
    hdd.state.isFailing = false;
    const third = await restarted();
    expect(third.stack.stats().objectCount).toBe(0);
    await third.stack.settle();
    expect([ssd.stats().objectCount, hdd.tier.stats().objectCount]).toEqual([0, 0]);
    clock.advance(1);
    await stack.close();
  });

  it("keeps a note that it finds no room to shorten, and takes it back once there is room", async () => {
    const inner = store("ssd", 100_000);
    let isFull = false;
    let refusedCount = 0;
    const begin: Tier["begin"] = async (...request) => {
      if (!isFull) return inner.begin(...request);
      refusedCount += 1;
      return "no-space";
    };
    const ssd: Tier = { ...inner, begin };
    const hdd = failing(store("hdd", 400_000));
    await stackOf([ssd, hdd.tier]).stack.open();
    for (const key of [1, 2]) await put(hdd.tier, key, objectOf(key, 1, 100));
    const { stack } = stackOf([ssd, hdd.tier]);
    await stack.open();
    hdd.state.isFailing = true;
    for (const key of [1, 2]) await stack.delete(keyOf(key));
    hdd.state.isFailing = false;
    isFull = true;
    // The page would lose one of its two keys; the caller hears of a failing tier, if of anything.
    const outcome = await stack.delete(keyOf(1)).catch((error: unknown) => error);
    if (typeof outcome !== "boolean") expect(outcome).toMatchObject({ code: "io", tier: "ssd" });
    await stack.settle();
    expect(refusedCount).toBeGreaterThan(0);
    isFull = false;
    await stack.delete(keyOf(1));
    expect(await stack.openRead(keyOf(1))).toBeNull();
    const again = stackOf([ssd, hdd.tier]);
    await again.stack.open();
    await again.stack.settle();
    expect(again.stack.stats().objectCount).toBe(0);
    expect([ssd.stats().objectCount, hdd.tier.stats().objectCount]).toEqual([0, 0]);
    await again.stack.close();
    await stack.close();
  });

  it("refuses notes of another version, and puts damaged ones aside", async () => {
    const page = await encodeDeletionPage({ tier: "ssd", keys: [keyOf(1), keyOf(2)] });
    expect(await decodeDeletionPage(page)).toEqual({
      verdict: "valid",
      page: { tier: "ssd", keys: [keyOf(1), keyOf(2)] },
    });
    for (let bit = 0; bit < 8 * page.byteLength; bit++) {
      const flipped = page.slice() as typeof page;
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      expect((await decodeDeletionPage(flipped)).verdict).toBe("damaged");
    }
    for (let length = 0; length < page.byteLength; length += 7) {
      const part = page.slice(0, length) as typeof page;
      expect((await decodeDeletionPage(part)).verdict).toBe("damaged");
    }
    const newer = await encodeDeletionPage({ tier: "ssd", keys: [] }, 2);
    expect(await decodeDeletionPage(newer)).toEqual({ verdict: "incompatible" });
    const plant = async (bytes: typeof page) => {
      const ssd = store("ssd", 10_000);
      await ssd.open();
      const writer = await ssd.begin(deletionPageKey(0), bytes.byteLength);
      if (writer === "no-space") throw new Error("no room");
      await writer.write(bytes);
      await writer.commit({ durable: true });
      return { ssd, opening: stackOf([ssd, store("hdd", 10_000)]).stack.open() };
    };
    await expect((await plant(newer)).opening).rejects.toMatchObject({ code: "incompatible" });
    page[16] = 0;
    const { ssd, opening } = await plant(page);
    await opening;
    expect(ssd.stats().quarantinedCount).toBe(1);
  });

  it("takes nothing below another copy for the same after a restart", async () => {
    const { restarted } = await withOlderBelow();
    const stack = await restarted();
    expect(await versionAt(stack, 1)).toBe(2);
    // Others push it out: it must move down, not be given up for what lies there.
    for (let key = 2; key < 8; key++) await put(stack, key, objectOf(key, 1, 200));
    await stack.settle();
    expect(await versionAt(stack, 1)).toBe(2);
    const again = await (await withOlderBelow()).restarted();
    await again.quarantine(keyOf(1));
    expect(await versionAt(again, 1)).toBe(0);
  });

  it("moves nothing below what may be older", async () => {
    const remote = store("remote", 20_000);
    const { stack, restarted } = await withOlderBelow([remote]);
    for (let key = 2; key < 8; key++) await put(stack, key, objectOf(key, 1, 200));
    await stack.settle();
    expect(await holds(remote)).not.toContain(1);
    expect((await holds(remote)).length).toBeGreaterThan(0);
    expect(await versionAt(await restarted(), 1)).toBe(2);
  });

  it("opens without one that need not be there, and finds what it has later", async () => {
    const remote = failing(store("remote", 20_000));
    await remote.tier.open();
    await put(remote.tier, 1, objectOf(1, 1, 100));
    await put(remote.tier, 2, objectOf(2, 1, 100));
    remote.state.isFailing = true;
    const { stack, clock } = stackOf([store("ssd", 10_000), remote.tier], ["remote"]);
    await stack.open();
    await put(stack, 2, objectOf(2, 2, 100));
    // It may be there.
    await expect(stack.openRead(keyOf(1))).rejects.toMatchObject({ code: "io" });
    expect(await versionAt(stack, 2)).toBe(2);
    remote.state.isFailing = false;
    clock.advance(100_000);
    expect(await versionAt(stack, 1)).toBe(1);
    expect(await versionAt(stack, 2)).toBe(2);
    // What it has of a key that was written since is older: INV-STACK-2.
    expect(await stack.delete(keyOf(2))).toBe(true);
    expect(await versionAt(stack, 2)).toBe(0);
    await stack.close();
  });
});
