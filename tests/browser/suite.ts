// What every file of browser tests begins with: one built page, one browser, and both ended after the last test.
import type { Page } from "playwright-core";
import { afterAll, beforeAll } from "vitest";
import { Browser, buildAndServe, type Site, serve, TEST_PAGE } from "./browser.js";

export interface Suite {
  /** The page as it is served to all tests of the file. */
  readonly site: Site;
  readonly browser: Browser;
  /** A page of the site that stays open. */
  readonly page: Page;
}

/**
 * Builds a page and starts a browser before the first test of the file.
 *
 * @param config The page. Default: the one of the stores.
 * @param args More arguments for the browser.
 * @returns Not to be read before a hook or a test runs.
 */
export function useBrowser(config = TEST_PAGE, args: readonly string[] = []): Suite {
  let site: Site;
  let browser: Browser;
  let page: Page;
  beforeAll(async () => {
    site = await buildAndServe(config);
    browser = await Browser.launch(args);
    page = await browser.open(site.url);
  });
  afterAll(async () => {
    await browser?.close();
    await site?.close();
  });
  return {
    get site() {
      return site;
    },
    get browser() {
      return browser;
    },
    get page() {
      return page;
    },
  };
}

/** Opens the page on an origin of its own, where nothing is stored and a quota counts at once. */
export async function withFreshPage(
  { browser }: Suite,
  quotaBytes: number,
  use: (page: Page) => Promise<void>,
): Promise<void> {
  const fresh = await serve(TEST_PAGE);
  const page = await browser.open(fresh.url);
  try {
    await browser.limitQuota(page, quotaBytes);
    await use(page);
  } finally {
    await page.close();
    await fresh.close();
  }
}
