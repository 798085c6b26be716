// Several clients on few tensors, in any order, on files that fail: what they see could have happened one
// operation after the other. `scripts/histories.mjs` runs many more.
import { describe, expect, it } from "vitest";
import { createTensorMemory } from "../../src/node.js";
import {
  isLinearizable,
  OPERATION_COUNT_MAX,
  PLANTED_HISTORY_BUGS,
  type RegisterOperation,
  runHistories,
  runJoinedGets,
  seededRandom,
} from "../../src/testing/index.js";
import { withSeed } from "../support/oracle.js";

const createMemory = createTensorMemory;

/** `W1 0-5` writes 1 between 0 and 5, `R- 6-7` reads that nothing is there, `W2? 8-9` may have failed. */
function history(text: string): RegisterOperation[] {
  return text.split(", ").map((each) => {
    const [, type, value, doubt, calledAt, returnedAt] =
      /^([RW])(\d+|-)(\??) (\d+)-(\d+)$/.exec(each) ?? [];
    return {
      type: type === "R" ? "read" : "write",
      value: value === "-" ? null : Number(value),
      calledAt: Number(calledAt),
      returnedAt: Number(returnedAt),
      isUncertain: doubt === "?",
    };
  });
}

describe("the check of a history", () => {
  it.each([
    ["nothing is there at first", "R- 0-1"],
    ["one after the other", "W1 0-1, R1 2-3, W2 4-5, R2 6-7, W- 8-9, R- 10-11"],
    ["a write that overlaps a read may come before it", "W1 0-5, R1 1-2"],
    ["or after it", "W1 0-5, R- 1-2, R1 3-4"],
    ["two writes that overlap, in either order", "W1 0-5, W2 1-6, R1 7-8"],
    ["a read that began before the write it sees", "R1 0-9, W1 1-2, W2 3-4"],
    ["a failed write that has happened", "W1 0-1, W2? 2-3, R2 4-5"],
    ["a failed write that has not", "W1 0-1, W2? 2-3, R1 4-5"],
    ["a failed write that happens late", "W1 0-1, W2? 2-3, R1 4-5, R2 6-7"],
  ])("accepts: %s", (_what, text) => {
    expect(isLinearizable(history(text))).toBe(true);
  });

  it.each([
    ["a value that nobody wrote", "W1 0-1, R2 2-3"],
    ["a lost write", "W1 0-1, W2 2-3, R1 4-5"],
    ["a stale read", "W1 0-1, W2 2-3, R2 4-5, R1 6-7"],
    ["a write seen before it began", "R1 0-1, W1 2-3"],
    ["two readers who see two orders", "W1 0-9, W2 1-8, R1 10-11, R2 12-13, R1 14-15"],
    ["what was deleted", "W1 0-1, W- 2-3, R1 4-5"],
    ["a failed write that happens and is undone", "W1 0-1, W2? 2-3, R2 4-5, R1 6-7"],
    ["new then old by readers that do not overlap", "W1 0-1, W2 2-9, R2 3-4, R1 5-6"],
  ])("refuses: %s", (_what, text) => {
    expect(isLinearizable(history(text))).toBe(false);
  });

  it("agrees with every order tried, on short histories drawn at random", async () => {
    await withSeed("histories of a register", (seed) => {
      const random = seededRandom(seed);
      const counts = { accepted: 0, refused: 0 };
      for (let round = 0; round < 3000; round++) {
        const moments = Array.from({ length: 10 }, (_, at) => ({ at, order: random.uint32() }))
          .sort((left, right) => left.order - right.order)
          .map(({ at }) => at);
        const operations = Array.from({ length: 5 }, (_, index): RegisterOperation => {
          const [first = 0, second = 0] = moments.slice(2 * index, 2 * index + 2);
          return {
            type: random.uint32() % 2 === 0 ? "read" : "write",
            value: random.uint32() % 3 || null,
            calledAt: Math.min(first, second),
            returnedAt: Math.max(first, second),
          };
        });
        const found = isLinearizable(operations);
        expect(found).toBe(hasOrder(operations, null));
        counts[found ? "accepted" : "refused"] += 1;
      }
      expect(Math.min(counts.accepted, counts.refused)).toBeGreaterThan(300);
    });
  });

  it("refuses to judge what is too long", () => {
    const long = history(
      Array(OPERATION_COUNT_MAX + 1)
        .fill("R- 0-1")
        .join(", "),
    );
    expect(() => isLinearizable(long)).toThrow(RangeError);
  });
});

/** Tries every order, without remembering any. */
function hasOrder(rest: readonly RegisterOperation[], value: number | null): boolean {
  return (
    rest.length === 0 ||
    rest.some((operation) => {
      if (rest.some((other) => other.returnedAt < operation.calledAt)) return false;
      if (operation.type === "read" && operation.value !== value) return false;
      const others = rest.filter((other) => other !== operation);
      return hasOrder(others, operation.value);
    })
  );
}

describe("a memory used by several clients on files that fail", () => {
  it("is a set of registers", { timeout: 240_000 }, async () => {
    await withSeed("histories", async (seed) => {
      const report = await runHistories({ seed, historyCount: 2000, createMemory });
      expect(report.violations).toEqual([]);
      expect(report.operationCount).toBeGreaterThan(20_000);
      expect(report.overlapCount).toBeGreaterThan(2000);
      expect(report.faultCount).toBeGreaterThan(200);
      expect(report.failedCount).toBeGreaterThan(200);
      expect(report.evictionCount).toBeGreaterThan(2000);
      expect(report.loadCount).toBeGreaterThan(2000);
    });
  });

  it.each([...PLANTED_HISTORY_BUGS])("is caught where %s (canary)", async (_bug, plant) => {
    await withSeed("planted bugs", async (seed) => {
      const planted = plant();
      try {
        const { violations } = await runHistories({
          seed,
          historyCount: 200,
          createMemory: async (options) => planted.decorate(await createTensorMemory(options)),
        });
        expect(violations.length).toBeGreaterThan(5);
      } finally {
        planted.remove();
      }
    });
  });

  it("loads once for 1,000 gets, and fails for all of them or for none", async () => {
    await withSeed("joined gets", async (seed) => {
      const report = await runJoinedGets({ seed, getCount: 1000, createMemory });
      expect(report).toMatchObject({ loadCount: 1, wrongCount: 0 });
      expect(report.faultCount).toBeGreaterThan(0);
    });
  });
});
