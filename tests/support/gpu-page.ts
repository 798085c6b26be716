// A page in a browser that has a WebGPU adapter in software, for the tests of one file: what they all do before and
// after. Says nothing about speed.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { Browser, buildAndServe, type Site, WEBGPU_ARGUMENTS } from "../browser/browser.js";

/**
 * Builds a page, opens it, and skips the tests where there is no adapter. After each of them nobody may have complained.
 *
 * @returns Filled before the first test.
 */
export function useGpuPage(
  source: Parameters<typeof buildAndServe>[0],
  hasAdapter: (page: Page) => Promise<boolean>,
): { site: Site; browser: Browser; page: Page } {
  const given = {} as { site: Site; browser: Browser; page: Page };
  let isOffered = false;

  beforeAll(async () => {
    given.site = await buildAndServe(source);
    given.browser = await Browser.launch(WEBGPU_ARGUMENTS);
    given.page = await given.browser.open(given.site.url);
    isOffered = await hasAdapter(given.page);
  });

  afterAll(async () => {
    await given.browser?.close();
    await given.site?.close();
  });

  beforeEach((context) => {
    if (!isOffered) context.skip("this browser has no WebGPU adapter");
  });

  afterEach(() => {
    // The adapter says on the console that it is one in software.
    const complaints = given.browser.complaints
      .splice(0)
      .filter((text) => !/software|fallback/i.test(text));
    expect(complaints).toEqual([]);
  });

  return given;
}
