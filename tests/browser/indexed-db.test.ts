// The IndexedDB tier in a real browser: the shared suite, quota, reload, crash, two pages.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { tierConformance } from "../../src/testing/index.js";
import { Browser, buildAndServe, type Site, serve, TEST_PAGE } from "./browser.js";
import type {} from "./page/main.js";

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

afterEach(() => {
  expect(browser.complaints.splice(0)).toEqual([]);
});

describe("conformance of indexedDbTier", () => {
  const cases = tierConformance(() => Promise.reject(new Error("cases run in the page")));
  for (const { name, skip } of cases) {
    it(name, async (context) => {
      if (skip !== undefined) return context.skip(skip);
      expect(await page.evaluate((each) => window.tierheap.runTierCase(each), name)).toBeNull();
    });
  }
});

it("restores what was saved after a reload that closed nothing", async () => {
  const own = await browser.open(site.url);
  const outcomes = await own.evaluate(() => window.tierheap.saveSome("reload", 5));
  expect(outcomes).toEqual(Array(5).fill("stored"));
  await own.reload();
  const found = await own.evaluate(() => window.tierheap.inspect("reload"));
  expect(found).toEqual({ intact: 5, damaged: [] });
  await own.close();
});

it("restores what was saved after the page crashed in mid-spill", async () => {
  const doomed = await browser.open(site.url);
  await doomed.evaluate(() => window.tierheap.saveSome("crash", 5));
  await doomed.evaluate(() => window.tierheap.startSpilling("spill"));
  await browser.crash(doomed);
  const next = await browser.open(site.url);
  const saved = await next.evaluate(() => window.tierheap.inspect("crash"));
  expect(saved).toEqual({ intact: 5, damaged: [] });
  const spilled = await next.evaluate(() => window.tierheap.inspect("spill"));
  expect(spilled.damaged).toEqual([]);
  await next.close();
});

it("says no-space at the browser's quota, and nothing is lost", async () => {
  const fresh = await serve(TEST_PAGE);
  const own = await browser.open(fresh.url);
  await browser.limitQuota(own, 12 * 2 ** 20);
  const result = await own.evaluate(() => window.tierheap.fillQuota("quota", 24));
  const storedCount = result.outcomes.filter((outcome) => outcome === "stored").length;
  expect(new Set(result.outcomes)).toEqual(new Set(["stored", "no-space"]));
  expect(result.objectCount).toBe(storedCount);
  expect(result.noSpaceCount).toBe(24 - storedCount);
  expect(result).toMatchObject({ isRefusedHot: true, intact: 24, problems: [] });
  expect(result).toMatchObject({ later: "stored", isLaterIntact: true });
  await own.close();
  await fresh.close();
});

it("does not let a second page damage the first one's tensors", async () => {
  const first = await browser.open(site.url);
  const second = await browser.open(site.url);
  expect(await first.evaluate(() => window.tierheap.openShared("two-pages"))).toBe("open");
  expect(await first.evaluate(() => window.tierheap.swapOutShared("same/1", 1))).toBe("stored");
  // Either the second page is refused, or both keep what they wrote.
  const outcome = await second.evaluate(() => window.tierheap.openShared("two-pages"));
  expect(["open", "busy"]).toContain(outcome);
  if (outcome === "open") {
    await second.evaluate(() => window.tierheap.swapOutShared("same/1", 2));
    expect(await second.evaluate(() => window.tierheap.isSharedIntact("same/1", 2))).toBe(true);
  }
  expect(await first.evaluate(() => window.tierheap.isSharedIntact("same/1", 1))).toBe(true);
  await first.evaluate(() => window.tierheap.closeShared());
  expect(await second.evaluate(() => window.tierheap.openShared("two-pages"))).toBe("open");
  await first.close();
  await second.close();
});

it("gives two pages with databases of their own no reason to meet", async () => {
  const first = await browser.open(site.url);
  const second = await browser.open(site.url);
  const pages = [first, second];
  const outcomes = await Promise.all(
    pages.map((each, index) =>
      each.evaluate(async (given) => {
        const { openShared, swapOutShared, isSharedIntact } = window.tierheap;
        await openShared(`apart-${given}`);
        await swapOutShared("same/1", given);
        return isSharedIntact("same/1", given);
      }, index),
    ),
  );
  expect(outcomes).toEqual([true, true]);
  await first.close();
  await second.close();
});
