// The scenarios of a memory with a GPU level, in a page.
import { createTensorMemory } from "../../../src/browser.js";
import type { GpuEnvironment } from "../../support/gpu-environment.js";
import { beforeCrash, gpuConformance, gpuRuns } from "../../support/gpu-scenarios.js";

let directoryCount = 0;

const environment: GpuEnvironment = {
  openAdapter: async () => {
    const adapter = await navigator.gpu?.requestAdapter();
    if (adapter == null) throw new Error("this browser has no WebGPU adapter");
    return adapter;
  },
  openDevice: async () => (await environment.openAdapter()).requestDevice(),
  openMemory: (options) => {
    directoryCount += 1;
    const directory = `gpu-${directoryCount}`;
    return createTensorMemory({
      ...options,
      budgets: { ssd: "256MiB", ...options.budgets },
      ssd: { directory, browser: { store: "indexeddb" } },
    });
  },
  closeMemory: (memory) => memory.close(),
  settle: () => new Promise((resolve) => setTimeout(resolve)),
};

let afterCrash: Awaited<ReturnType<typeof beforeCrash>> | null = null;

const api = {
  ...gpuRuns(environment),
  hasAdapter: async () => ((await navigator.gpu?.requestAdapter()) ?? null) !== null,
  /** Runs one case of the tiers' suite; says what broke, or null. */
  runCase: async (name: string): Promise<string | null> => {
    const found = gpuConformance(() => environment).find((each) => each.name === name);
    if (found === undefined) return `no case ${name}`;
    try {
      await found.run();
      return null;
    } catch (error) {
      return String(error);
    }
  },
  beforeCrash: async () => {
    afterCrash = await beforeCrash(environment);
  },
  afterCrash: () => afterCrash?.(),
};

declare global {
  interface Window {
    gpu: typeof api;
  }
}

window.gpu = api;
