// The stores of a real browser: the shared suites, reload, crash, two pages.
import { afterEach, describe, expect, it } from "vitest";
import { fileSystemConformance, tierConformance } from "../../src/testing/index.js";
import { CONTENT_SECURITY_POLICY, serve, TEST_PAGE, withHeaders } from "./browser.js";
import type { Suite as Conformance, Store } from "./page/main.js";
import { useBrowser } from "./suite.js";

const suite = useBrowser();

afterEach(() => {
  expect(suite.browser.complaints.splice(0)).toEqual([]);
});

const inPage = () => Promise.reject(new Error("cases run in the page"));

describe.each<[Conformance, () => ReturnType<typeof tierConformance>]>([
  ["indexeddb", () => tierConformance(inPage)],
  ["opfs", () => tierConformance(inPage)],
  ["files", () => fileSystemConformance(inPage)],
])("conformance of %s", (kind, casesOf) => {
  for (const { name, skip } of casesOf()) {
    it(name, async (context) => {
      if (skip !== undefined) return context.skip(skip);
      const run = ([given, each]: readonly [Conformance, string]) =>
        window.tierheap.runCase(given, each);
      expect(await suite.page.evaluate(run, [kind, name] as const)).toBeNull();
    });
  }
});

describe.each<Store>(["opfs", "indexeddb"])("%s", (store) => {
  it("restores what was saved after a reload that closed nothing", async () => {
    const own = await suite.browser.open(suite.site.url);
    const outcomes = await own.evaluate(
      (given) => window.tierheap.saveSome(given, "reload", 5),
      store,
    );
    expect(outcomes).toEqual(Array(5).fill("stored"));
    await own.reload();
    const found = await own.evaluate((given) => window.tierheap.inspect(given, "reload"), store);
    expect(found).toEqual({ intact: 5, damaged: [] });
    await own.close();
  });

  it("restores what was saved after the page crashed in mid-spill", async () => {
    const doomed = await suite.browser.open(suite.site.url);
    await doomed.evaluate((given) => window.tierheap.saveSome(given, "crash", 5), store);
    await doomed.evaluate((given) => window.tierheap.startSpilling(given, "spill"), store);
    await suite.browser.crash(doomed);
    const next = await suite.browser.open(suite.site.url);
    const saved = await next.evaluate((given) => window.tierheap.inspect(given, "crash"), store);
    expect(saved).toEqual({ intact: 5, damaged: [] });
    const spilled = await next.evaluate((given) => window.tierheap.inspect(given, "spill"), store);
    expect(spilled.damaged).toEqual([]);
    await next.close();
  });

  it("does not let a second page damage the first one's tensors", async () => {
    const first = await suite.browser.open(suite.site.url);
    const second = await suite.browser.open(suite.site.url);
    expect(
      await first.evaluate((given) => window.tierheap.openShared(given, "two-pages"), store),
    ).toBe("open");
    expect(await first.evaluate(() => window.tierheap.swapOutShared("same/1", 1))).toBe("stored");
    // Either the second page is refused, or both keep what they wrote.
    const outcome = await second.evaluate(
      ([given, waitMs]) => window.tierheap.openShared(given, "two-pages", waitMs),
      [store, 300] as const,
    );
    expect(["open", "busy"]).toContain(outcome);
    if (outcome === "open") {
      await second.evaluate(() => window.tierheap.swapOutShared("same/1", 2));
      expect(await second.evaluate(() => window.tierheap.isSharedIntact("same/1", 2))).toBe(true);
    }
    expect(await first.evaluate(() => window.tierheap.isSharedIntact("same/1", 1))).toBe(true);
    await first.evaluate(() => window.tierheap.closeShared());
    expect(
      await second.evaluate((given) => window.tierheap.openShared(given, "two-pages"), store),
    ).toBe("open");
    await first.close();
    await second.close();
  });

  it("gives two pages with databases of their own no reason to meet", async () => {
    const first = await suite.browser.open(suite.site.url);
    const second = await suite.browser.open(suite.site.url);
    const pages = [first, second];
    const outcomes = await Promise.all(
      pages.map((each, index) =>
        each.evaluate(
          async ([kept, given]) => {
            const { openShared, swapOutShared, isSharedIntact } = window.tierheap;
            await openShared(kept, `apart-${given}`);
            await swapOutShared("same/1", given);
            return isSharedIntact("same/1", given);
          },
          [store, index] as const,
        ),
      ),
    );
    expect(outcomes).toEqual([true, true]);
    await first.close();
    await second.close();
  });
});

describe("a store that is left to the page", () => {
  const saved = { outcome: "stored", isBack: true };

  it("is the private file system", async () => {
    const own = await suite.browser.open(suite.site.url);
    const found = await own.evaluate(() =>
      window.tierheap.saveSomewhere({ directory: "auto", persist: true }),
    );
    expect(found).toMatchObject({ ...saved, hasFolder: true, hasDatabase: false });
    // Whether data may be kept is the browser's answer, and a headless one mostly says no.
    expect(found.told.filter((text) => !text.includes("evict"))).toEqual([]);
    await own.close();
  });

  it("is a database where files do not work, and is found again", async () => {
    const own = await suite.browser.open(suite.site.url);
    const save = (isBroken: boolean) =>
      own.evaluate(
        (given) => window.tierheap.saveSomewhere({ directory: "fallback", isBroken: given }),
        isBroken,
      );
    const told = [expect.stringContaining("does not work here")];
    expect(await save(true)).toEqual({ ...saved, told, hasFolder: false, hasDatabase: true });
    await own.reload();
    expect(await save(false)).toEqual({ ...saved, told: [], hasFolder: false, hasDatabase: true });
    await own.close();
    suite.browser.complaints.splice(0);
  });

  it("works under a strict security policy, with files where the page brings the worker", async () => {
    const strict = await serve(withHeaders(TEST_PAGE, CONTENT_SECURITY_POLICY));
    const own = await suite.browser.open(strict.url);
    const without = await own.evaluate(() => window.tierheap.saveSomewhere({ directory: "none" }));
    expect(without).toMatchObject({ ...saved, hasFolder: false, hasDatabase: true });
    const withOwn = await own.evaluate(() =>
      window.tierheap.saveSomewhere({ directory: "own", hasOwnWorker: true }),
    );
    expect(withOwn).toEqual({ ...saved, told: [], hasFolder: true, hasDatabase: false });
    await own.close();
    await strict.close();
    expect(suite.browser.complaints.splice(0).join()).toContain("blob:");
  });
});
