// The GPU level in a real browser, on an adapter in software: the tiers' suite, steady state, loss of devices, and
// the end of the GPU's process. Says nothing about speed.
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { expectGpuLevel } from "../support/gpu-expectations.js";
import { gpuConformance } from "../support/gpu-scenarios.js";
import { Browser, buildAndServe, GPU_PAGE, type Site, WEBGPU_ARGUMENTS } from "./browser.js";
import type {} from "./gpu-page/main.js";

const SEED = 20240229;
let site: Site;
let browser: Browser;
let page: Page;
let hasAdapter = false;

beforeAll(async () => {
  site = await buildAndServe(GPU_PAGE);
  browser = await Browser.launch(WEBGPU_ARGUMENTS);
  page = await browser.open(site.url);
  hasAdapter = await page.evaluate(() => window.gpu.hasAdapter());
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

beforeEach((context) => {
  if (!hasAdapter) context.skip("this browser has no WebGPU adapter");
});

afterEach(() => {
  // The adapter says on the console that it is one in software.
  const complaints = browser.complaints
    .splice(0)
    .filter((text) => !/software|fallback/i.test(text));
  expect(complaints).toEqual([]);
});

describe("conformance", () => {
  const inPage = () => {
    throw new Error("cases run in the page");
  };
  for (const { name, skip } of gpuConformance(inPage)) {
    it(name, async (context) => {
      if (skip !== undefined) return context.skip(skip);
      expect(await page.evaluate((given) => window.gpu.runCase(given), name)).toBeNull();
    });
  }
});

expectGpuLevel(
  {
    steadyState: (seed) => page.evaluate((given) => window.gpu.steadyState(given), seed),
    writeBack: () => page.evaluate(() => window.gpu.writeBack()),
    pressure: () => page.evaluate(() => window.gpu.pressure()),
    loseDevices: (count) => page.evaluate((given) => window.gpu.loseDevices(given), count),
    loseOnlyDevice: () => page.evaluate(() => window.gpu.loseOnlyDevice()),
    arenas: () => page.evaluate(() => window.gpu.arenas()),
    misuses: () => page.evaluate(() => window.gpu.misuses()),
    contend: () => page.evaluate(() => window.gpu.contend()),
    churn: (seed) => page.evaluate((given) => window.gpu.churn(given), seed),
  },
  SEED,
);

it("loses only what only the GPU had when its process ends, and goes on", async () => {
  const doomed = await Browser.launch(WEBGPU_ARGUMENTS);
  try {
    const own = await doomed.open(site.url);
    await own.evaluate(() => window.gpu.beforeCrash());
    await doomed.crashGpu();
    const result = await own.evaluate(() => window.gpu.afterCrash());
    expect(result).toMatchObject({ lostCount: 8, keptCount: 16, problems: [] });
    expect(result?.outcomes).toEqual({ "device-lost": 16, "equal, no error: undefined": 16 });
  } finally {
    await doomed.close();
  }
});
