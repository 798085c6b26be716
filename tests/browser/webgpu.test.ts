// The GPU level in a real browser, on an adapter in software: the tiers' suite, steady state, loss of devices, and
// the end of the GPU's process. Says nothing about speed.
import { describe, expect, it } from "vitest";
import { expectGpuLevel } from "../support/gpu-expectations.js";
import { useGpuPage } from "../support/gpu-page.js";
import { type GpuRuns, gpuConformance, gpuRuns } from "../support/gpu-scenarios.js";
import { Browser, GPU_PAGE, WEBGPU_ARGUMENTS } from "./browser.js";
import type {} from "./gpu-page/main.js";

const SEED = 20240229;
const given = useGpuPage(GPU_PAGE, (page) => page.evaluate(() => window.gpu.hasAdapter()));

const nowhere = () => {
  throw new Error("scenarios run in the page");
};

describe("conformance", () => {
  for (const { name, skip } of gpuConformance(nowhere)) {
    it(name, async (context) => {
      if (skip !== undefined) return context.skip(skip);
      expect(await given.page.evaluate((each) => window.gpu.runCase(each), name)).toBeNull();
    });
  }
});

const inPage = Object.fromEntries(
  Object.keys(gpuRuns(nowhere as never)).map((name) => [
    name,
    (argument: number) =>
      given.page.evaluate(
        ([run, value]) => (window.gpu[run] as (value: number) => unknown)(value),
        [name as keyof GpuRuns, argument] as const,
      ),
  ]),
) as unknown as GpuRuns;

expectGpuLevel(inPage, SEED);

it("loses only what only the GPU had when its process ends, and goes on", async () => {
  const doomed = await Browser.launch(WEBGPU_ARGUMENTS);
  try {
    const own = await doomed.open(given.site.url);
    await own.evaluate(() => window.gpu.beforeCrash());
    await doomed.crashGpu();
    const result = await own.evaluate(() => window.gpu.afterCrash());
    expect(result).toMatchObject({ lostCount: 8, keptCount: 16, problems: [] });
    expect(result?.outcomes).toEqual({ "device-lost": 16, "equal, no error: undefined": 16 });
  } finally {
    await doomed.close();
  }
});
