// The GPU level in Node, on whatever adapter the machine has; where it has none, the tests say so and are skipped.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, it } from "vitest";
import type { GpuEnvironment } from "../support/gpu-environment.js";
import { expectGpuLevel } from "../support/gpu-expectations.js";
import { gpuConformance, gpuRuns } from "../support/gpu-scenarios.js";
import { openNodeGpu } from "../support/node-gpu.js";
import { closeMemory, openMemory, SEED } from "../support/oracle.js";

const { gpu, reason } = await openNodeGpu();
const directories: string[] = [];
const devices: GPUDevice[] = [];

const environment: GpuEnvironment = {
  openAdapter: async () => {
    const adapter = await gpu?.requestAdapter();
    if (adapter == null) throw new Error("there is no adapter any more");
    return adapter;
  },
  openDevice: async () => {
    const device = await (await environment.openAdapter()).requestDevice();
    devices.push(device);
    return device;
  },
  openMemory: async (options) => {
    const directory = await mkdtemp(join(tmpdir(), "tierheap-gpu-"));
    directories.push(directory);
    const budgets = { ssd: "256MiB", ...options.budgets } as const;
    return openMemory({ ...options, budgets, ssd: { directory } });
  },
  closeMemory,
  settle: () => new Promise((resolve) => setImmediate(resolve)),
};

beforeAll(() => {
  if (gpu === null) console.warn(`skipped: ${reason}`);
});

afterAll(async () => {
  // An open device keeps the process alive.
  for (const device of devices) device.destroy();
  for (const directory of directories) await rm(directory, { recursive: true, force: true });
});

describe.skipIf(gpu === null)(gpu === null ? `WebGPU (${reason})` : "WebGPU", () => {
  describe("conformance", () => {
    for (const { name, skip, run } of gpuConformance(() => environment)) {
      if (skip === undefined) it(name, run);
      else it.skip(`${name} (${skip})`, () => {});
    }
  });

  expectGpuLevel(gpuRuns(environment), SEED);
});
