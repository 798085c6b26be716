// The browser refuses: at its quota, and at every single call that changes a store. What is refused stays in
// RAM, what was stored is intact, and all works again afterwards.
import { describe, expect, it } from "vitest";
import type {} from "./page/faults.js";
import type { FaultPlan } from "./page/faulty-calls.js";
import type { Store } from "./page/main.js";
import { useBrowser, withFreshPage } from "./suite.js";

const KIB = 1024;
const MIB = 2 ** 20;

const suite = useBrowser();

const QUOTA = "QuotaExceededError";
const FAULTS: readonly [string, Omit<FaultPlan, "at">][] = [
  ["the quota, once", { error: QUOTA, isForEver: false, isShort: false }],
  ["the quota, until there is room", { error: QUOTA, isForEver: true, isShort: false }],
  ["the quota, after a part was written", { error: QUOTA, isForEver: false, isShort: true }],
  ["the device, once", { error: "UnknownError", isForEver: false, isShort: false }],
];
/** Lengths with how many points have to fail at least, and the kinds of calls that have to be among them. */
const STORES: readonly [Store, readonly [number, number][], readonly string[]][] = [
  [
    "opfs",
    [
      [3000, 5],
      [2.25 * MIB, 8],
    ],
    ["write", "flush", "getFileHandle", "createSyncAccessHandle", "move", "removeEntry"],
  ],
  [
    "indexeddb",
    [
      [3000, 6],
      [2.25 * MIB, 6],
    ],
    ["put", "delete", "transaction"],
  ],
];
const POINTS_MAX = 60;
const allowed = /^(stored|no-space|true|false|TierError (io|busy))$/;

/** Results of `run(1)`, `run(2)`, …, so many at once, until nobody asks for more. */
async function* inTurn<T>(run: (at: number) => Promise<T>, atOnce: number) {
  for (let first = 1; first <= POINTS_MAX; first += atOnce) {
    const points = Array.from({ length: atOnce }, (_, index) => first + index);
    const results = await Promise.all(points.map(run));
    for (const [index, result] of results.entries()) yield [first + index, result] as const;
  }
}

describe.each(STORES)("%s fails at every call that changes it", (store, lengths, kinds) => {
  // Each worker of files has faults of its own; a page has those of databases.
  const atOnce = store === "opfs" ? 4 : 1;
  const failed = new Set<string>();

  describe.each(lengths)("%i bytes", (byteLength, floor) => {
    it.each(FAULTS)("%s", async (_name, fault) => {
      let pointCount = 0;
      const run = (at: number) =>
        suite.page.evaluate(
          ([given, length, each]) => window.faults.runFaults(given, length, each),
          [store, byteLength, { ...fault, at }] as const,
        );
      for await (const [at, { report, told, wrong }] of inTurn(run, atOnce)) {
        const where = `${store} ${byteLength} ${fault.error} at ${at}: ${report.hits}; ${told}`;
        expect(wrong, where).toEqual([]);
        for (const word of told) expect(word, where).toMatch(allowed);
        // Where there is no space, that is what everybody is told.
        if (fault.error === QUOTA) {
          for (const word of told.slice(0, 2)) expect(word, where).toMatch(/^(stored|no-space)$/);
        }
        if (report.hits.length === 0) break;
        for (const call of report.hits) failed.add(call);
        pointCount += 1;
      }
      expect(pointCount).toBeGreaterThanOrEqual(floor);
      expect(pointCount).toBeLessThan(POINTS_MAX);
    });
  });

  it("and every kind of call was among them", () => {
    expect([...failed].sort()).toEqual([...kinds].sort());
  });
});

/** From here on Chromium keeps what IndexedDB stores in files of their own. */
const BLOB_BYTES = 64 * KIB;
/** Lengths with a quota that some of them fit. */
const QUOTAS: readonly [number, number, number][] = [
  [20 * KIB, 4 * MIB, 3],
  [80 * KIB, 8 * MIB, 3],
  [MIB, 16 * MIB, 3],
  [3 * MIB, 32 * MIB, 2],
];

describe.each<Store>(["opfs", "indexeddb"])("%s at the browser's own quota", (store) => {
  it("swaps out what has room, and keeps the rest in RAM", async () => {
    await withFreshPage(suite, 12 * MIB, async (own) => {
      const result = await own.evaluate(
        (given) => window.tierheap.fillQuota(given, "quota", 24),
        store,
      );
      const storedCount = result.outcomes.filter((outcome) => outcome === "stored").length;
      expect(new Set(result.outcomes)).toEqual(new Set(["stored", "no-space"]));
      expect(result.objectCount).toBe(storedCount);
      expect(result.noSpaceCount).toBe(24 - storedCount);
      expect(result).toMatchObject({ isRefusedHot: true, intact: 24, problems: [] });
      expect(result).toMatchObject({ later: "stored", isLaterIntact: true });
    });
  });

  describe.each(QUOTAS)("%i bytes", (byteLength, quotaBytes, countMin) => {
    it.for([
      ["tensors are deleted", true],
      ["the quota grows", false],
    ] as const)("refuses, keeps, and works again when %s", async ([, isDeleting], context) => {
      if (store === "indexeddb" && isDeleting && byteLength < BLOB_BYTES) {
        return context.skip(
          "Chromium keeps the place of short rows until it compacts the database",
        );
      }
      await withFreshPage(suite, quotaBytes, async (own) => {
        const countMax = Math.ceil((2 * quotaBytes) / byteLength);
        const { storedCount, told, wrong } = await own.evaluate(
          ([given, length, count]) => window.faults.fillUp(given, length, count),
          [store, byteLength, countMax] as const,
        );
        expect(told[0]).toBe("no-space");
        expect(["stored", "no-space"]).toContain(told[1]);
        expect(storedCount).toBeGreaterThanOrEqual(countMin);
        expect(wrong).toEqual([]);
        if (!isDeleting) await suite.browser.limitQuota(own, 16 * quotaBytes);
        const outcome = await own.evaluate(
          ([given, count]) => window.faults.goOnFilling(given, count),
          [isDeleting, storedCount] as const,
        );
        expect(outcome).toBe("works");
        await own.evaluate(() => window.faults.endFilling());
      });
    });
  });
});
