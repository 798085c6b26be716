// Several tiers as one: where objects go, how they move, what faults and crashes leave.
import { describe, expect, it } from "vitest";
import { TierError } from "../../src/errors.js";
import {
  decodeDeletionPage,
  deletionPageKey,
  encodeDeletionPage,
} from "../../src/record/deletion-page.js";
import {
  crashStates,
  type Disk,
  type FileOperation,
  type MemoryFileSystem,
  memoryFileSystem,
  memoryTier,
  seededRandom,
} from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { FsTier } from "../../src/tier/fs.js";
import type { ObjectHints, Tier } from "../../src/tier/tier.js";
import { withSeed } from "../support/oracle.js";
import { keyOf, objectOf, put, SWAPPED, stackOf, versionAt } from "../support/stacks.js";

const SAVED: ObjectHints = { ...SWAPPED, isSaved: true };
const DURABLE: ObjectHints = { ...SAVED, isDurable: true };

/** A persistent tier in memory. */
function store(name: string, capacityBytes: number): Tier {
  const tier = memoryTier({ name, capacityBytes });
  return {
    ...tier,
    capabilities: {
      isPersistent: true,
      hasDurableCommit: true,
      needsReadBack: false,
      readsInPlace: false,
    },
  };
}

const warm = (capacityBytes: number) =>
  memoryTier({ name: "warm", capacityBytes, needsReadBack: false });

const holds = async (tier: Tier) => {
  const keys: number[] = [];
  for await (const key of tier.list()) keys.push(Number.parseInt(key, 16));
  return keys.sort((one, other) => one - other);
};

/** Fails while it is told to. */
function failing(tier: Tier) {
  const state = { isFailing: false, failedCount: 0, callCount: 0 };
  const check = () => {
    state.callCount += 1;
    if (!state.isFailing) return;
    state.failedCount += 1;
    throw new TierError("io", tier.name, "injected");
  };
  const wrapped: Tier = {
    ...tier,
    open: async () => {
      check();
      await tier.open();
    },
    begin: async (key, byteLength, hints) => {
      check();
      const writer = await tier.begin(key, byteLength, hints);
      if (writer === "no-space") return writer;
      return {
        ...writer,
        write: async (source) => {
          check();
          return writer.write(source);
        },
        commit: async (options) => {
          check();
          return writer.commit(options);
        },
      };
    },
    openRead: async (key) => {
      check();
      const reader = await tier.openRead(key);
      if (reader === null) return null;
      return {
        ...reader,
        read: async (offset, ...targets) => {
          check();
          return reader.read(offset, ...targets);
        },
      };
    },
    delete: async (key) => {
      check();
      return tier.delete(key);
    },
  };
  return { tier: wrapped, state };
}

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

describe("a stack against a model", () => {
  it("answers as one store does, whatever fails", async () => {
    let faultCount = 0;
    let deletedCount = 0;
    let demotionCount = 0;
    let promotionCount = 0;
    await withSeed("the stack's model", async (seed) => {
      for (let run = 0; run < 60; run++) {
        const random = seededRandom(seed + run);
        const draw = (count: number) => random.uint32() % count;
        const levels = [warm(3000), store("ssd", 6000), store("hdd", 12_000)].map(failing);
        const tiers = levels.map(({ tier }) => tier);
        const below = tiers.slice(1);
        const { stack, clock } = stackOf(tiers);
        await stack.open();
        /** Versions that a key may have: more than one after a failure in between. */
        const model = new Map<number, Set<number>>();
        /** Keys whose deletion failed: what a restart finds of them is not promised. */
        const doubtful = new Set<number>();
        for (let step = 1; step < 150; step++) {
          const key = 1 + draw(12);
          const possible = model.get(key) ?? new Set([0]);
          const isFaulty = draw(6) === 0;
          const level = levels[draw(3)];
          if (isFaulty && level !== undefined) level.state.isFailing = true;
          const version = 1 + (step % 250);
          const kind = draw(10);
          try {
            if (kind < 4) {
              const hints = [SWAPPED, SAVED, DURABLE][draw(3)] ?? SWAPPED;
              const outcome = await put(
                stack,
                key,
                objectOf(key, version, 100 + draw(1500)),
                hints,
              );
              if (outcome === "stored") {
                model.set(key, new Set([version]));
                doubtful.delete(key);
              }
            } else if (kind < 9) {
              const found = await versionAt(stack, key);
              expect([...possible], `key ${key} at step ${step} of run ${run}`).toContain(found);
              model.set(key, new Set([found]));
            } else {
              await stack.delete(keyOf(key));
              model.set(key, new Set([0]));
              doubtful.delete(key);
              deletedCount += 1;
            }
          } catch (error) {
            if (!(error instanceof TierError)) throw error;
            faultCount += 1;
            expect(error.code).toBe("io");
            // A failed put or deletion may have happened.
            if (kind < 4) model.set(key, new Set([...possible, version]));
            // A failed deletion is as good as done, until the process ends.
            else if (kind === 9) {
              model.set(key, new Set([0]));
              doubtful.add(key);
            }
            // The level stays down for a few steps.
            if (draw(2) === 0) continue;
          }
          if (level !== undefined) level.state.isFailing = false;
          if (draw(4) === 0) clock.advance(draw(3000));
          if (draw(3) === 0) await stack.settle();
          for (const { tier } of levels) {
            const { physicalBytes, capacityBytes } = tier.stats();
            expect(physicalBytes).toBeLessThanOrEqual(capacityBytes);
          }
        }
        for (const { state } of levels) state.isFailing = false;
        if (run % 2 === 0) {
          // Killed: what was deleted last stays deleted.
          const again = stackOf([warm(3000), ...below]).stack;
          await again.open();
          for (const [key, possible] of model) {
            if (possible.size > 1 || !possible.has(0) || doubtful.has(key)) continue;
            expect(await versionAt(again, key), `key ${key} after run ${run}`).toBe(0);
          }
          continue;
        }
        clock.advance(200_000);
        await stack.settle();
        for (const [key, possible] of model) {
          expect([...possible], `key ${key} at the end of run ${run}`).toContain(
            await versionAt(stack, key),
          );
        }
        const { lookups, hits, absent, failed } = stack.lookups();
        expect(hits + absent + failed).toBe(lookups); // INV-STACK-4
        for (const { demotions, promotions } of stack.levels()) {
          demotionCount += demotions;
          promotionCount += promotions;
        }
        await stack.close();
        const again = stackOf([warm(3000), ...below]).stack;
        await again.open();
        for (const [key, possible] of model) {
          // What found no room below RAM is gone; nothing older comes up.
          const found = await versionAt(again, key);
          expect([...possible, 0], `key ${key} after run ${run}`).toContain(found);
        }
      }
    });
    expect(faultCount).toBeGreaterThan(100);
    expect(deletedCount).toBeGreaterThan(200);
    expect(demotionCount).toBeGreaterThan(100);
    expect(promotionCount).toBeGreaterThan(50);
  });
});

/** Durable work on two devices that demotes and promotes; what each has seen at every point of it. */
async function runOnTwoDevices(seed: number, plant: (tier: Tier) => Tier) {
  const disks = [memoryFileSystem(), memoryFileSystem()] as const;
  const random = seededRandom(seed);
  const draw = (count: number) => random.uint32() % count;
  const tierOf = (index: 0 | 1, fileSystem = disks[index] as FileSystem) =>
    new FsTier({
      ...{ name: `disk${index}`, directory: "/store", fileSystem },
      capacityBytes: index === 0 ? 4000 : 65536,
      random: seededRandom(seed + index),
    });
  const cuts: { readonly lengths: readonly [number, number]; readonly step: number }[] = [];
  let step = 0;
  for (const disk of disks) {
    const operations = disk.operations as FileOperation[];
    operations.push = (...added) => {
      Array.prototype.push.apply(operations, added);
      cuts.push({ lengths: [disks[0].operations.length, disks[1].operations.length], step });
      return operations.length;
    };
  }
  /** Each begun in a step; acknowledged when the next one begins. */
  const changes: { readonly key: number; readonly version: number; readonly step: number }[] = [];
  const { stack, clock } = stackOf([tierOf(0), plant(tierOf(1))]);
  await stack.open();
  for (step = 1; step < 60; step++) {
    const key = 1 + draw(8);
    clock.advance(draw(100));
    if (draw(4) === 0) {
      await versionAt(stack, key);
    } else if (draw(5) === 0) {
      changes.push({ key, version: 0, step });
      await stack.delete(keyOf(key));
    } else {
      changes.push({ key, version: step, step });
      await put(stack, key, objectOf(key, step, 300 + draw(600)), DURABLE);
    }
    if (draw(2) === 0) await stack.settle();
  }
  const moved = stack.levels()[0]?.demotions ?? 0;
  await stack.close();
  const recover = async (states: readonly Disk[]) => {
    const tiers = states.map((state, index) => {
      const files = memoryFileSystem();
      for (const [path, bytes] of state) files.plant(path, bytes.slice());
      return tierOf(index as 0 | 1, files);
    });
    const opened = stackOf(tiers).stack;
    await opened.open();
    const found: number[] = [];
    for (let key = 1; key <= 8; key++) found.push(await versionAt(opened, key));
    await opened.close();
    return found;
  };
  return { disks, cuts, changes, moved, recover };
}

async function exploreTwoDevices(seed: number, plant: (tier: Tier) => Tier) {
  const { disks, cuts, changes, moved, recover } = await runOnTwoDevices(seed, plant);
  const violations: string[] = [];
  let stateCount = 0;
  for (const { lengths, step } of cuts) {
    const [ones, others] = lengths.map((length, index) => [
      ...crashStates((disks[index] as MemoryFileSystem).operations.slice(0, length)),
    ]) as [Disk[], Disk[]];
    // Every state of either device, each beside the least and the most that the other may have kept.
    const pairs = [
      ...ones.flatMap((one) => [others[0], others.at(-1)].map((other) => [one, other as Disk])),
      ...others.flatMap((other) => [ones[0], ones.at(-1)].map((one) => [one as Disk, other])),
    ];
    for (const pair of pairs.slice(0, 24)) {
      stateCount += 1;
      for (const [index, version] of (await recover(pair)).entries()) {
        const own = changes.filter((change) => change.key === index + 1 && change.step <= step);
        const last = own.findLastIndex((change) => change.step < step);
        const allowed = own.slice(Math.max(0, last)).map((change) => change.version);
        if (last < 0) allowed.push(0);
        if (!allowed.includes(version)) {
          violations.push(`in step ${step} key ${index + 1} is ${version}, not ${allowed}`);
        }
      }
    }
  }
  return { stateCount, violations, moved };
}

describe("a power cut at any point of a stack on two devices", () => {
  it("leaves every key as it was acknowledged last, or as it was to become", async () => {
    await withSeed("power cuts", async (seed) => {
      let stateCount = 0;
      let movedCount = 0;
      for (const each of [seed, seed + 1, seed + 2]) {
        const found = await exploreTwoDevices(each, (tier) => tier);
        expect(found.violations, `seed ${each}`).toEqual([]);
        stateCount += found.stateCount;
        movedCount += found.moved;
      }
      expect(stateCount).toBeGreaterThan(3000);
      expect(movedCount).toBeGreaterThan(5);
    });
  });

  it("would be noticed if a demotion did not wait for the lower device", async () => {
    const { violations } = await exploreTwoDevices(3, (tier) => ({
      name: tier.name,
      capabilities: tier.capabilities,
      open: () => tier.open(),
      begin: async (key, byteLength) => {
        const writer = await tier.begin(key, byteLength);
        if (writer === "no-space") return writer;
        return { ...writer, commit: () => writer.commit({ durable: false }) };
      },
      openRead: (key) => tier.openRead(key),
      delete: (key) => tier.delete(key),
      quarantine: (key) => tier.quarantine(key),
      list: () => tier.list(),
      stats: () => tier.stats(),
      close: () => tier.close(),
    }));
    expect(violations.length).toBeGreaterThan(0);
  });
});
