// transformers.js in a real browser over KV in the heap, on wasm and on WebGPU, and its model files in the
// tier.
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Browser, buildAndServe, type Site, WEBGPU_ARGUMENTS } from "./browser.js";
import type {} from "./transformers-page/main.js";
import { modelServer, TRANSFORMERS_PAGE } from "./transformers-site.js";

const SEEDS = [1, 2, 3, 4, 5];
const FAMILIES = ["llama", "gpt2"] as const;
/** Tokens of the first prompt, its answer, and the second turn. */
const LENGTHS = { wasm: [55, 12, 4 + 9], webgpu: [15, 6, 4 + 5] } as const;

let site: Site;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  site = await buildAndServe(TRANSFORMERS_PAGE);
  browser = await Browser.launch(WEBGPU_ARGUMENTS);
  page = await browser.open(site.url);
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

describe.each(["wasm", "webgpu"] as const)("on %s", (device) => {
  describe.each(FAMILIES)("%s", (family) => {
    it.each(SEEDS)("seed %i answers two turns as the library by itself", async (seed) => {
      const result = await page.evaluate(
        ([name, number, where]) => window.transformersPage.chat(name, number, where),
        [`${family}-${seed}`, seed, device] as const,
      );
      expect(result.kept).toEqual(result.bare);
      const [promptTokens, answerTokens, nextTokens] = LENGTHS[device];
      expect(result.kept).toHaveLength(promptTokens + answerTokens + nextTokens);
      expect(new Set(result.kept.slice(promptTokens)).size).toBeGreaterThan(5);
      expect(result).toMatchObject({ swapInCount: 4, problems: [] });
      expect(result.stats).toMatchObject({
        reusedTokens: promptTokens + answerTokens - 1,
        lostCount: 0,
      });
      // On a GPU the KV stays there during a call.
      if (device === "webgpu") expect(result.stats.heldCount).toBeGreaterThan(0);
      else expect(result.stats.heldCount).toBe(0);
    });
  });
});

describe("model files", () => {
  const MODEL = "/models/llama-1/onnx/model.onnx";
  const load = () => page.evaluate(() => window.transformersPage.loadThroughCache("llama-1"));

  it("go on after a cut, and are there without a network after a reload", async () => {
    modelServer.cutAfterBytes = 100_000;
    const cut = await load();
    expect(cut.answer).toBeTypeOf("string");
    modelServer.cutAfterBytes = Number.POSITIVE_INFINITY;
    modelServer.requests.length = 0;
    const whole = await load();
    expect(whole.answer).toHaveLength(3 + 9);
    expect(modelServer.requests.filter((each) => each.startsWith(MODEL))).toEqual([
      expect.stringMatching(/ bytes=\d{5}-$/),
    ]);
    modelServer.isOffline = true;
    await page.reload();
    const offline = await load();
    modelServer.isOffline = false;
    expect(offline.answer).toEqual(whole.answer);
    expect(offline.stats).toMatchObject({ resumedBytes: 0, damagedCount: 0 });
  });
});
