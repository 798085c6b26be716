// Calibration as a page has it: measured once, kept in the cache storage, used from then on.
import { createTensorMemory } from "tierheap/browser";
import type { Store } from "./main.js";

const CACHE = "tierheap-calibration";

async function deviceIfAny(): Promise<GPUDevice | null> {
  const adapter = await (navigator as Partial<Navigator>).gpu?.requestAdapter();
  return (await adapter?.requestDevice()) ?? null;
}

/** Stores that were made to measure. */
async function measuredNames(): Promise<string[]> {
  const names: string[] = [];
  for await (const name of (await navigator.storage.getDirectory()).keys()) names.push(name);
  for (const { name = "" } of await indexedDB.databases()) names.push(name);
  return names.filter((name) => name.includes("calibrating"));
}

/** Profiles of three memories, one after the other: the second may measure. And what is left behind. */
export async function calibrateStore(store: Store, directory: string) {
  const gpu = await deviceIfAny();
  const profiles: string[] = [];
  for (const calibrate of [false, gpu === null ? true : { gpu }, false]) {
    const memory = await createTensorMemory({
      budgets: { ram: "64MiB", ssd: "64MiB" },
      ssd: { directory, browser: { store } },
      calibrate,
    });
    profiles.push(memory.stats().profile);
    await memory.close();
  }
  const cache = await caches.open(CACHE);
  const texts = await Promise.all(
    (await cache.keys())
      .filter(({ url }) => url.endsWith(`/${directory}`))
      .map(async (key) => (await cache.match(key))?.text()),
  );
  // What did not go in time goes a little later.
  let names = await measuredNames();
  for (let attempt = 0; names.length > 0 && attempt < 100; attempt++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    names = await measuredNames();
  }
  gpu?.destroy();
  return { profiles, texts, names, hasGpu: gpu !== null };
}
