// Buffers that are made in decode steps on WebGPU, in a real Chromium on an adapter in software: counted on the
// device, so those of the runtime are seen too. Says nothing about speed.
import { join } from "node:path";
import { runnerImport } from "vite";
import { findChromium } from "../../scripts/browser.mjs";
import { root } from "../../scripts/steps.mjs";

/** Places in the list of models that the page has. */
const MODELS = { concat: 0, gqa: 2 };
const STEPS = 12;

/** @returns Rows by model, or a reason why there are none. */
export async function countBuffers() {
  if (findChromium() === undefined) return "no Chromium is installed";
  const { module } = await runnerImport(join(root, "tests", "browser", "browser.ts"));
  const { Browser, buildAndServe, ORT_PAGE, WEBGPU_ARGUMENTS } = module;
  const site = await buildAndServe(ORT_PAGE);
  const browser = await Browser.launch(WEBGPU_ARGUMENTS);
  try {
    const page = await browser.open(site.url);
    if (!(await page.evaluate(() => window.ortWeb.hasAdapter()))) return "there is no adapter";
    const rows = [];
    for (const [style, index] of Object.entries(MODELS)) {
      const { own, plain } = await page.evaluate((at) => window.ortWeb.countCreated(at), index);
      rows.push({
        style,
        steps: STEPS,
        byTierheap: own.byTierheap,
        byRuntime: own.byRuntime,
        byRuntimeAlone: plain.byRuntime,
      });
    }
    return rows;
  } finally {
    await browser.close();
    await site.close();
  }
}
