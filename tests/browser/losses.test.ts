// The store goes away under a page: deleted, upgraded, cleared by the user, held by another page. What is in
// RAM stays, what is gone is said to be, nothing hangs, and a new memory works.
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { serve, TEST_PAGE, withIsolation } from "./browser.js";
import type { Patience } from "./page/losses.js";
import type { Store } from "./page/main.js";
import { useBrowser } from "./suite.js";

const suite = useBrowser();
let directoryCount = 0;

const GONE = /^(missing|TierError (closed|io|busy)|untyped CorruptionError.*)$/;

/** What every page must find: tensors in RAM as they were, the others intact or said to be gone. */
async function expectTold(
  page: Page,
): Promise<Awaited<ReturnType<typeof window.losses.lookAround>>> {
  const found = await page.evaluate(() => window.losses.lookAround());
  expect(found.hot).toEqual(["intact", "intact", "intact"]);
  expect(found.kept).toEqual(["intact", "intact", "intact"]);
  for (const word of found.cold) if (word !== "intact") expect(word).toMatch(GONE);
  for (const word of found.stored)
    expect(word).toMatch(/^(stored|no-space|TierError (closed|io|busy))$/);
  expect(found.problems).toEqual([]);
  return found;
}

/** Who listens is told that the store has gone, and every late-comer too. */
async function expectHeard(page: Page, reason: RegExp): Promise<void> {
  for (const waitMs of [40_000, 1000]) {
    const heard = await page.evaluate((given) => window.losses.heard(given), waitMs);
    expect(heard).toEqual([expect.stringMatching(reason)]);
  }
}

const DATABASE_GONE = /^ssd closed: the database was deleted, upgraded or cleared/;
const FILES_GONE = /^ssd closed: the private file system's store has gone/;

async function expectNewWorks(page: Page, store: Store, directory: string): Promise<void> {
  expect(await page.evaluate(() => window.losses.close())).toBe("closed");
  const open = await page.evaluate(([given, name]) => window.losses.openMemory(given, name), [
    store,
    directory,
  ] as const);
  expect(open).toBe("open");
  expect(await page.evaluate(() => window.losses.works())).toBe("stored intact");
  expect(await page.evaluate(() => window.losses.close())).toBe("closed");
}

async function withPages<T>(
  store: Store,
  use: (page: Page, other: Page, directory: string) => Promise<T>,
): Promise<T> {
  directoryCount += 1;
  const directory = `losses-${directoryCount}`;
  const fresh = await serve(TEST_PAGE);
  const page = await suite.browser.open(fresh.url);
  const other = await suite.browser.open(fresh.url);
  try {
    await page.evaluate(([given, name]) => window.losses.prepare(given, name), [
      store,
      directory,
    ] as const);
    return await use(page, other, directory);
  } finally {
    await page.close();
    await other.close();
    await fresh.close();
    suite.browser.complaints.splice(0);
  }
}

describe("a database", () => {
  it("that another page deletes is given up at once", async () => {
    await withPages("indexeddb", async (page, other, directory) => {
      expect(await other.evaluate((name) => window.losses.deleteDatabase(name), directory)).toBe(
        "deleted",
      );
      // Nobody has asked the memory for anything since.
      await expectHeard(page, DATABASE_GONE);
      const { cold, stored } = await expectTold(page);
      expect(new Set([...cold, ...stored])).toEqual(new Set(["TierError closed"]));
      await expectNewWorks(page, "indexeddb", directory);
    });
  });

  it("that a later release upgrades is given up, and refused from then on", async () => {
    await withPages("indexeddb", async (page, other, directory) => {
      const upgrade = (name: string) => window.losses.openForeign(name, 2);
      expect(await other.evaluate(upgrade, directory)).toBe("open");
      await expectHeard(page, DATABASE_GONE);
      await expectTold(page);
      expect(await page.evaluate(() => window.losses.close())).toBe("closed");
      const again = (name: string) => window.losses.openMemory("indexeddb", name);
      expect(await page.evaluate(again, directory)).toBe("TierError incompatible");
    });
  });

  it("that is somebody else's is refused", async () => {
    await withPages("indexeddb", async (page, other) => {
      expect(await other.evaluate(() => window.losses.openForeign("foreign", 1))).toBe("open");
      await other.evaluate(() => window.losses.closeForeign());
      const open = () => window.losses.openMemory("indexeddb", "foreign");
      expect(await page.evaluate(open)).toBe("TierError incompatible");
    });
  });

  it("whose deletion somebody holds up is busy, and opens later", async () => {
    await withPages("indexeddb", async (page, other, directory) => {
      expect(await page.evaluate(() => window.losses.close())).toBe("closed");
      expect(await other.evaluate((name) => window.losses.openForeign(name, 1), directory)).toBe(
        "open",
      );
      // The foreign page does not give its connection up: the deletion waits, and so does who comes after it.
      expect(await page.evaluate((name) => window.losses.deleteDatabase(name), directory)).toBe(
        "blocked",
      );
      const open = (name: string) => window.losses.openMemory("indexeddb", name, "short");
      expect(await page.evaluate(open, directory)).toBe("TierError busy");
      await other.evaluate(() => window.losses.closeForeign());
      await expectNewWorks(page, "indexeddb", directory);
    });
  });
});

describe("files", () => {
  it("that another page deletes are missed, and nothing else", async () => {
    await withPages("opfs", async (page, other, directory) => {
      const count = await other.evaluate((name) => window.losses.deleteFiles(name), directory);
      const { cold } = await expectTold(page);
      // Those that are open cannot be deleted.
      expect(cold.filter((word) => word !== "intact").length).toBeLessThanOrEqual(count);
      expect(await page.evaluate(() => window.losses.heard(200))).toEqual([]);
      await expectNewWorks(page, "opfs", directory);
    });
  });

  it("whose directory another page deletes are missed with the next one", async () => {
    await withPages("opfs", async (page, other) => {
      const directory = "losses-directory";
      expect(await page.evaluate(() => window.losses.close())).toBe("closed");
      const open = (name: string) => window.losses.openMemory("opfs", name);
      expect(await page.evaluate(open, directory)).toBe("open");
      expect(await other.evaluate((name) => window.losses.deleteDirectory(name), directory)).toBe(
        "deleted",
      );
      expect(await page.evaluate(() => window.losses.works())).toMatch(/^TierError/);
      await expectHeard(page, FILES_GONE);
      await expectNewWorks(page, "opfs", directory);
    });
  });
});

describe.each<Store>(["opfs", "indexeddb"])("%s", (store) => {
  it("goes to the second page when the first one is closed", async () => {
    await withPages(store, async (page, other, directory) => {
      const open = (patience: Patience) =>
        other.evaluate(([given, name, each]) => window.losses.openMemory(given, name, each), [
          store,
          directory,
          patience,
        ] as const);
      expect(await open("short")).toBe("TierError busy");
      const waiting = open("endless");
      const isWaiting = await Promise.race([
        waiting.then(() => false),
        new Promise((resolve) => setTimeout(() => resolve(true), 500)),
      ]);
      expect(isWaiting).toBe(true);
      await page.close();
      expect(await waiting).toBe("open");
      const { works, close } = await other.evaluate(async () => ({
        works: await window.losses.works(),
        close: await window.losses.close(),
      }));
      expect({ works, close }).toEqual({ works: "stored intact", close: "closed" });
    });
  });
});

describe.each([
  ["plain", false],
  ["shared", true],
] as const)("in a page whose memory is %s", (_name, isShared) => {
  it.each<Store>(["opfs", "indexeddb"])("%s is given private copies only", async (store) => {
    const own = await serve(isShared ? withIsolation(TEST_PAGE) : TEST_PAGE);
    const page = await suite.browser.open(own.url);
    const found = await page.evaluate(([given, kind]) => window.losses.watchBytes(given, kind), [
      store,
      isShared,
    ] as const);
    expect(found.wrong).toEqual([]);
    expect(found.seen).toBeGreaterThanOrEqual(3);
    expect(found.intact).toEqual(["intact", "intact", "intact"]);
    await page.close();
    await own.close();
  });
});

// Last: afterwards Chromium's private file system answers nobody for some seconds, on any origin.
describe.each<Store>(["indexeddb", "opfs"])("%s", (store) => {
  it("that the user clears is gone, and a new memory works", async () => {
    await withPages(store, async (page, _other, directory) => {
      // Whatever looks only once in a while has just looked.
      expect(await page.evaluate(() => window.losses.works())).toBe("stored intact");
      await suite.browser.clearData(page);
      if (store === "indexeddb") await expectHeard(page, DATABASE_GONE);
      const { stored } = await expectTold(page);
      expect(stored).not.toContain("stored");
      if (store === "opfs") await expectHeard(page, FILES_GONE);
      await expectNewWorks(page, store, directory);
    });
  });
});
