// What a real browser measures of its stores, and where it keeps that.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Browser, buildAndServe, type Site, TEST_PAGE, WEBGPU_ARGUMENTS } from "./browser.js";
import type { Store } from "./page/main.js";

let site: Site;
let browser: Browser;

beforeAll(async () => {
  site = await buildAndServe(TEST_PAGE);
  browser = await Browser.launch(WEBGPU_ARGUMENTS);
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

afterEach(() => {
  expect(browser.complaints.splice(0)).toEqual([]);
});

describe.each<Store>(["opfs", "indexeddb"])("calibration of %s", (store) => {
  it("is measured when asked for, kept, used after, and leaves nothing else", async () => {
    const page = await browser.open(site.url);
    const directory = `calibrated-${store}`;
    const run = ([given, name]: readonly [Store, string]) =>
      window.tierheap.calibrateStore(given, name);
    const { profiles, texts, names, hasGpu } = await page.evaluate(run, [
      store,
      directory,
    ] as const);
    expect(profiles).toEqual(["browser", "browser, calibrated", "browser, calibrated"]);
    expect(texts).toHaveLength(1);
    const { calibration } = JSON.parse(texts[0] as string);
    expect(calibration.copyBytesPerSecond).toBeGreaterThan(0);
    expect(calibration.machine).toContain("Chrome");
    // What a busy machine has no time for stays unknown, and is nothing else.
    if (!hasGpu) expect(calibration.gpuUploadBytesPerSecond).toBeNull();
    else expect(calibration.gpuUploadBytesPerSecond).not.toBe(0);
    expect(names).toEqual([]);
    await page.close();
  });
});
