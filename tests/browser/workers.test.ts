// Web Workers: on one shared heap, in a page that is isolated; and as coding workers, in any page.
import { afterAll, beforeAll, expect, it } from "vitest";
import { Browser, buildAndServe, ISOLATED_PAGE, type Site, TEST_PAGE } from "./browser.js";
import type {} from "./page/main.js";

const DEATH_COUNT = 4;

let site: Site;
let browser: Browser;

beforeAll(async () => {
  site = await buildAndServe(ISOLATED_PAGE);
  browser = await Browser.launch();
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

it("hand tensors round, and leave nothing behind when they are killed while they allocate", async () => {
  const page = await browser.open(site.url);
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  const result = await page.evaluate((count) => window.tierheap.killWorkers(count), DEATH_COUNT);
  expect(result).toEqual({ doubled: DEATH_COUNT, liveBytes: 0, problems: [] });
  expect(browser.complaints).toEqual([]);
});

it("code what moves, in a page that is isolated and in one that is not", async () => {
  const plain = await buildAndServe({
    ...TEST_PAGE,
    build: { ...TEST_PAGE.build, outDir: "../../../build/coding-page" },
  });
  try {
    for (const [url, isIsolated] of [
      [site.url, true],
      [plain.url, false],
    ] as const) {
      const page = await browser.open(url);
      expect(await page.evaluate(() => crossOriginIsolated)).toBe(isIsolated);
      const result = await page.evaluate(() => window.tierheap.codeInWorkers());
      expect(result).toMatchObject({ isIntact: true, failureCount: 0, isShared: isIsolated });
      expect(result.jobCount).toBeGreaterThan(10);
      await page.close();
    }
  } finally {
    await plain.close();
  }
  expect(browser.complaints).toEqual([]);
});
