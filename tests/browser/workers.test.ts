// Web Workers on one shared heap, in a page that is isolated.
import { afterAll, beforeAll, expect, it } from "vitest";
import { Browser, buildAndServe, ISOLATED_PAGE, type Site } from "./browser.js";
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
