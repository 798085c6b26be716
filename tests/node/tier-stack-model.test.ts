// Several tiers as one against a model, whatever fails, and through power cuts on two devices.
import { describe, expect, it } from "vitest";
import { TierError } from "../../src/errors.js";
import {
  crashStates,
  type Disk,
  type FileOperation,
  type MemoryFileSystem,
  memoryFileSystem,
  seededRandom,
} from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { FsTier } from "../../src/tier/fs.js";
import type { Tier } from "../../src/tier/tier.js";
import { withSeed } from "../support/oracle.js";
import { DURABLE, failing, SAVED, store, warm } from "../support/stack-levels.js";
import { keyOf, objectOf, put, SWAPPED, stackOf, versionAt } from "../support/stacks.js";

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
