// What the scenarios of gpu-scenarios.ts must have seen, wherever they ran.
import { expect, it } from "vitest";
import type { GpuRuns } from "./gpu-scenarios.js";

/** One test for each scenario. */
export function expectGpuLevel(run: GpuRuns, seed: number): void {
  it("makes no buffer in a steady state (INV-GPU-1)", async () => {
    const result = await run.steadyState(seed);
    expect(result.createdBy.at(-1)).toBe(result.createdBy[1]);
    expect(result.wrong).toEqual([]);
    expect(result.stats?.evictedCount).toBeGreaterThan(50);
    expect(result.stats?.demotedCount).toBeGreaterThan(20);
    expect(result.stats?.physicalBytes).toBeLessThanOrEqual(2 ** 20);
    expect(result.levels).toEqual(["gpu", "ram", "ssd"]);
    expect(result.usedAfterClose).toBe(16);
  });

  it("gives back what the GPU has written, by every way down", async () => {
    const { found } = await run.writeBack();
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
      "overwritten, cold": true,
      "overwritten, on the GPU": true,
      "uploads for results": 0,
      unknown: null,
      problems: [],
    });
  });

  it("moves through GPU, RAM and SSD what none of them holds alone", async () => {
    const result = await run.pressure();
    expect(result.wrong).toEqual([]);
    expect(result.demotedCount).toBeGreaterThan(10);
    expect(result.swapOutCount).toBeGreaterThan(5);
    expect(result.isInBudget).toBe(true);
    expect(result.peak).toBeLessThanOrEqual(4 * 2 ** 20);
  });

  it("loses nothing that has a colder copy with a device, a hundred times", async () => {
    const result = await run.loseDevices(100);
    expect(result.wrong).toEqual([]);
    expect(result.refused).toEqual({ "device-lost": 400 });
    expect(result.stats).toMatchObject({ lossCount: 100, lostCount: 100 });
    expect(result).toMatchObject({ eventCount: 100, lostCount: 100, opened: 101 });
    expect(result.problems).toEqual([]);
  });

  it("goes on without a device", async () => {
    expect(await run.loseOnlyDevice()).toEqual({
      kept: true,
      lost: "device-lost",
      again: "device-lost",
      arena: "device-lost",
      device: null,
      problems: [],
    });
  });

  it("cuts one buffer into parts that kernels bind", async () => {
    expect(await run.arenas()).toEqual({
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

  it("refuses misuse by a code (INV-GPU-2, INV-GPU-3)", async () => {
    const { rows, isBack } = await run.misuses();
    expect(rows).toEqual({
      "write what is read": "pinned",
      "overwrite what is read": "pinned",
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
      "overwrite what is pinned": "pinned",
      "no id": "bad-id",
      "an unknown option": "bad-option",
      "an unknown access": "bad-option",
      "an arena of nothing": "bad-size",
      aborted: "aborted",
      closed: "closed",
    });
    expect(isBack).toBe(true);
  });

  it("serves callers in turn that want the same room", async () => {
    const { outcomes, wrong, problems } = await run.contend();
    const { "no error: undefined": served = 0, "out-of-memory": refused = 0, ...others } = outcomes;
    expect(others).toEqual({});
    expect(served + refused).toBe(120);
    expect(served).toBeGreaterThan(30);
    expect(wrong).toEqual([]);
    expect(problems).toEqual([]);
  });

  it("lets what has come up for one caller stay until that one has it", async () => {
    expect(await run.meetInOneBuffer()).toEqual({
      first: "a: no error: undefined",
      last: "b: no error: undefined",
      uploadCount: 2,
      problems: [],
    });
  });

  it("holds what callers at random put there, and loses only what it must", async () => {
    const { wrong, outcomes, problems, stats } = await run.churn(seed);
    expect(wrong, `seed ${seed}`).toEqual([]);
    expect(problems).toEqual([]);
    expect(outcomes["write on the GPU"]).toBeGreaterThan(100);
    expect(outcomes["read in RAM"]).toBeGreaterThan(50);
    expect(stats?.lossCount).toBeGreaterThan(0);
    expect(stats).toMatchObject({ leaseCount: 0, copyCount: 0 });
  });
}
