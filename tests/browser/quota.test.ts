// The browser refuses: at its quota, and at every single call that changes a store. What is refused stays in
// RAM, what was stored is intact, and all works again afterwards.
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Browser, buildAndServe, type Site, serve, TEST_PAGE } from "./browser.js";
import type {} from "./page/faults.js";
import type { FaultPlan } from "./page/faulty-calls.js";
import type { Store } from "./page/main.js";

const KIB = 1024;
const MIB = 2 ** 20;

let site: Site;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  site = await buildAndServe(TEST_PAGE);
  browser = await Browser.launch();
  page = await browser.open(site.url);
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

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

describe.each(STORES)("%s fails at every call that changes it", (store, lengths, kinds) => {
  const failed = new Set<string>();

  describe.each(lengths)("%i bytes", (byteLength, floor) => {
    it.each(FAULTS)("%s", async (_name, fault) => {
      let pointCount = 0;
      for (let at = 1; at <= POINTS_MAX; at++) {
        const plan = { ...fault, at };
        const { report, told, wrong } = await page.evaluate(
          ([given, length, each]) => window.faults.runFaults(given, length, each),
          [store, byteLength, plan] as const,
        );
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
      const fresh = await serve(TEST_PAGE);
      const own = await browser.open(fresh.url);
      try {
        await browser.limitQuota(own, quotaBytes);
        const countMax = Math.ceil((2 * quotaBytes) / byteLength);
        const { storedCount, told, wrong } = await own.evaluate(
          ([given, length, count]) => window.faults.fillUp(given, length, count),
          [store, byteLength, countMax] as const,
        );
        expect(told[0]).toBe("no-space");
        expect(["stored", "no-space"]).toContain(told[1]);
        expect(storedCount).toBeGreaterThanOrEqual(countMin);
        expect(wrong).toEqual([]);
        if (!isDeleting) await browser.limitQuota(own, 16 * quotaBytes);
        const outcome = await own.evaluate(
          ([given, count]) => window.faults.goOnFilling(given, count),
          [isDeleting, storedCount] as const,
        );
        expect(outcome).toBe("works");
        await own.evaluate(() => window.faults.endFilling());
      } finally {
        await own.close();
        await fresh.close();
      }
    });
  });
});
