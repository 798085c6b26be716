// The GPU level in Node, on whatever adapter the machine has; where it has none, the tests say so and are skipped.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  arenas,
  type GpuEnvironment,
  gpuConformance,
  loseDevices,
  loseOnlyDevice,
  misuses,
  pressure,
  steadyState,
  writeBack,
} from "../support/gpu-scenarios.js";
import { openNodeGpu } from "../support/node-gpu.js";
import { closeMemory, openMemory, SEED } from "../support/oracle.js";

const { gpu, reason } = await openNodeGpu();
const directories: string[] = [];
const devices: GPUDevice[] = [];

const environment: GpuEnvironment = {
  openDevice: async () => {
    const adapter = await gpu?.requestAdapter();
    if (adapter == null) throw new Error("there is no adapter any more");
    const device = await adapter.requestDevice();
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

  it("makes no buffer in a steady state", async () => {
    const result = await steadyState(environment, SEED);
    expect(result.createdBy.at(-1)).toBe(result.createdBy[1]);
    expect(result.wrong).toEqual([]);
    expect(result.stats?.evictedCount).toBeGreaterThan(50);
    expect(result.stats?.demotedCount).toBeGreaterThan(20);
    expect(result.stats?.physicalBytes).toBeLessThanOrEqual(2 ** 20);
    expect(result.levels).toEqual(["gpu", "ram", "ssd"]);
    expect(result.usedAfterClose).toBe(16);
  });

  it("gives back what the GPU has written, by every way down", async () => {
    const { found } = await writeBack(environment);
    expect(found).toEqual({
      "its block is given up": false,
      "in RAM": true,
      "uploads for the second write": 0,
      "swapped out": "stored",
      "from the SSD": true,
      saved: "stored",
      "from the saved record": true,
      demoted: true,
      "demoted again": false,
      "after that": true,
      "after a write in RAM": true,
      "the other one": true,
      "the one that was written": true,
      "odd bytes": 4 * 2 ** 17 + 3,
      odd: true,
      unknown: null,
      problems: [],
    });
  });

  it("moves through GPU, RAM and SSD what none of them holds alone", async () => {
    const result = await pressure(environment);
    expect(result.wrong).toEqual([]);
    expect(result.demotedCount).toBeGreaterThan(10);
    expect(result.swapOutCount).toBeGreaterThan(5);
    expect(result.isInBudget).toBe(true);
    expect(result.peak).toBeLessThanOrEqual(4 * 2 ** 20);
  });

  it("loses nothing that has a colder copy with a device, a hundred times", async () => {
    const result = await loseDevices(environment, 100);
    expect(result.wrong).toEqual([]);
    expect(result.refused).toEqual({ "device-lost": 400 });
    expect(result.stats).toMatchObject({ lossCount: 100, lostCount: 100 });
    expect(result).toMatchObject({ eventCount: 100, lostCount: 100, opened: 101 });
    expect(result.problems).toEqual([]);
  });

  it("goes on without a device", async () => {
    expect(await loseOnlyDevice(environment)).toEqual({
      kept: true,
      lost: "device-lost",
      again: "device-lost",
      arena: "device-lost",
      device: null,
      problems: [],
    });
  });

  it("cuts one buffer into parts that kernels bind", async () => {
    expect(await arenas(environment)).toEqual({
      distinct: 40,
      isAligned: true,
      wrong: 0,
      bufferCount: 1,
      liveCount: 0,
      isBack: true,
      refusals: {
        isRefused: true,
        twice: "stale-handle",
        tooLong: "out-of-memory",
        destroyed: "freed",
        after: "no error: object",
      },
    });
  });

  it("refuses misuse by a code", async () => {
    const { rows, isBack } = await misuses(environment);
    expect(rows).toEqual({
      "write what is read": "pinned",
      "free what is leased": "pinned",
      "demote what is leased": "pinned",
      "no room beside what is leased": "out-of-memory",
      "longer than the budget": "out-of-memory",
      "use what was disposed": "unpinned",
      "acquire what is written": "busy",
      "read what is written": "busy",
      "pin what is written": "not-resident",
      "save what is written": "pinned",
      "swap out what is written": "busy",
      "upload what is written in RAM": "busy",
      "write what is pinned": "pinned",
      "no id": "bad-id",
      "an unknown option": "bad-option",
      "an unknown access": "bad-option",
      "an arena of nothing": "bad-size",
      aborted: "aborted",
      closed: "closed",
    });
    expect(isBack).toBe(true);
  });
});
