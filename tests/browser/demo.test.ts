// The demo, built, in a real browser: what a visitor does, by the names a visitor sees.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { Browser, buildAndServe, DEMO, type Site } from "./browser.js";

let site: Site;
let browser: Browser;

beforeAll(async () => {
  site = await buildAndServe(DEMO);
  browser = await Browser.launch();
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

afterEach(() => {
  expect(browser.complaints.splice(0)).toEqual([]);
});

async function press(page: Page, name: string): Promise<void> {
  await page.getByRole("button", { name, exact: true }).click();
}

async function expectStatus(page: Page, text: RegExp): Promise<void> {
  await page.getByRole("status").filter({ hasText: text }).waitFor({ timeout: 30_000 });
}

async function allocate(page: Page, megabytes: string, count: number): Promise<void> {
  await page.getByLabel("Size of each").selectOption(megabytes);
  await page.getByLabel("How many").fill(`${count}`);
  await press(page, "Allocate");
  await expectStatus(page, new RegExp(`^Allocated ${count} tensors`));
}

it("keeps saved tensors over a reload, byte for byte", async () => {
  const page = await browser.open(site.url);
  await expectStatus(page, /^Ready/);
  await allocate(page, "1 MiB", 6);
  await press(page, "Pin and write pattern");
  await expectStatus(page, /^Pattern: 6 written/);
  await press(page, "Save");
  await expectStatus(page, /^Save: 6 stored/);
  await page.reload();
  await expectStatus(page, /^Restored 6 tensors; every byte is equal/);
  expect(await page.getByRole("cell", { name: "pattern, equal" }).count()).toBe(6);
  await press(page, "Delete all");
  await expectStatus(page, /^Delete: 6 deleted/);
  await page.reload();
  await expectStatus(page, /^Ready\. Nothing was saved/);
  await page.close();
});

it("holds more than its RAM budget, moves it out and brings it back", async () => {
  const page = await browser.open(`${site.url}?ram=16MiB&ssd=128MiB`);
  await expectStatus(page, /^Ready/);
  await allocate(page, "4 MiB", 12);
  await press(page, "Pin and write pattern");
  await expectStatus(page, /^Pattern: 12 written/);
  await press(page, "Verify bytes");
  await expectStatus(page, /^Verified: 12 pattern/);
  await press(page, "Swap out");
  await expectStatus(page, /^Swap out: 12 stored/);
  expect(await page.getByRole("button", { name: /^Bring in demo/ }).count()).toBe(12);
  await page
    .getByRole("button", { name: /^Bring in demo/ })
    .first()
    .click();
  await expectStatus(page, /brought in/);
  await press(page, "Compact");
  await expectStatus(page, /^Compacted/);
  await press(page, "Trim");
  await expectStatus(page, /^Trimmed/);
  await press(page, "Verify bytes");
  await expectStatus(page, /^Verified: 12 pattern/);
  await press(page, "Delete all");
  await expectStatus(page, /^Delete: 12 deleted/);
  await page.close();
});

it("is isolated where it is served, and fits a phone", async () => {
  const page = await browser.open(site.url);
  await expectStatus(page, /^(Ready|Restored)/);
  expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  await page.setViewportSize({ width: 360, height: 720 });
  await allocate(page, "64 KiB", 2);
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Allocate");
  const overflowPixels = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  expect(overflowPixels).toBeLessThanOrEqual(0);
  await page.close();
});
