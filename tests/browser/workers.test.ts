// Web Workers: on one shared heap, in a page that is isolated; and as coding workers, in any page.
import { expect, it } from "vitest";
import { serve, TEST_PAGE, withIsolation } from "./browser.js";
import type {} from "./page/main.js";
import { useBrowser } from "./suite.js";

const DEATH_COUNT = 4;

const suite = useBrowser(withIsolation(TEST_PAGE));

it("hand tensors round, and leave nothing behind when they are killed while they allocate", async () => {
  const page = await suite.browser.open(suite.site.url);
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  const result = await page.evaluate((count) => window.tierheap.killWorkers(count), DEATH_COUNT);
  expect(result).toEqual({ doubled: DEATH_COUNT, liveBytes: 0, problems: [] });
  expect(suite.browser.complaints).toEqual([]);
});

it("code what moves, in a page that is isolated and in one that is not", async () => {
  const plain = await serve(TEST_PAGE);
  try {
    for (const [url, isIsolated] of [
      [suite.site.url, true],
      [plain.url, false],
    ] as const) {
      const page = await suite.browser.open(url);
      expect(await page.evaluate(() => crossOriginIsolated)).toBe(isIsolated);
      const result = await page.evaluate(() => window.tierheap.codeInWorkers());
      expect(result).toMatchObject({ isIntact: true, failureCount: 0, isShared: isIsolated });
      expect(result.jobCount).toBeGreaterThan(10);
      await page.close();
    }
  } finally {
    await plain.close();
  }
  expect(suite.browser.complaints).toEqual([]);
});
