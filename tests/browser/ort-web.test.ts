// onnxruntime-web's wasm provider in a real browser, on delta rows in the heap: equal tokens, in a page
// that is isolated, where the runtime has threads, and in one that is not.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { FAMILIES, SEEDS } from "../support/decoder-families.js";
import { Browser, buildAndServe, ORT_PAGE, type Site, serve, withIsolation } from "./browser.js";
import type {} from "./ort-page/main.js";

let browser: Browser;

beforeAll(async () => {
  await (await buildAndServe(ORT_PAGE)).close();
  browser = await Browser.launch();
});

afterAll(() => browser?.close());

describe.each([
  { name: "a page without isolation", config: ORT_PAGE, isIsolated: false },
  { name: "an isolated page", config: withIsolation(ORT_PAGE), isIsolated: true },
])("$name", ({ config, isIsolated }) => {
  let site: Site;
  let page: Page;

  beforeAll(async () => {
    site = await serve(config);
    page = await browser.open(site.url);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(isIsolated);
  });

  afterAll(async () => {
    await page?.close();
    await site?.close();
  });

  afterEach(() => {
    expect(browser.complaints.splice(0)).toEqual([]);
  });

  describe.each(FAMILIES.map(({ name }, index) => ({ name, index })))("$name", ({ index }) => {
    it.each(SEEDS)("seed %i answers as the bare runtime", async (seed) => {
      const result = await page.evaluate(
        ([family, number]) => window.ortWeb.runWasm(family, number),
        [index, seed] as const,
      );
      expect(result.answers).toEqual(result.expected);
      expect(new Set(result.expected.flat()).size).toBeGreaterThan(5);
      expect(result.stats).toMatchObject({ mode: "delta", checkedTokens: 8, presentBytes: 0 });
      expect(result.problems).toEqual([]);
      expect(result.threads).toBe(isIsolated ? 2 : 1);
    });
  });
});
