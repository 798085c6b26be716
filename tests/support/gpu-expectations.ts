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

  it("gives runtimes whole buffers out of the same budget", async () => {
    expect(await run.heldBuffers()).toEqual({
      "the same again": true,
      "tensors that left": 1,
      held: true,
      "over the budget": "out-of-memory",
      "longer than the budget": "out-of-memory",
      "no number of bytes": "bad-size",
      "changed by refusals": [],
      "a tensor beside them": "out-of-memory",
      "what is read": true,
      "refused inside a guard": "io",
      "made for fifty uses of one class": 1,
      "read what was given back": "freed",
      "held at last": 0,
      "the tensor": true,
      "after a loss": ["device-lost", "device-lost", 0],
      "on the next device": true,
      "after the close": "closed",
    });
  });

  it("brings up what is foretold, and counts what became of it", async () => {
    expect(await run.foretell()).toEqual({
      "issued, used, late, wasted, outstanding": "3 0 0 0 3",
      "uploads for what was foretold": 0,
      hits: 3,
      used: "3 3 0 0 0",
      late: "4 3 1 0 0",
      "wasted by eviction": "5 3 1 1 0",
      "wasted by a write, then used": "7 4 1 2 0",
      unknown: "8 4 1 3 0",
      aborted: "8 4 1 3 0",
      "no room beside leases": "9 4 1 4 0",
      "lost with the device": "10 4 1 5 0",
      freed: "14 4 1 6 3",
      "in its budget": true,
      "adds up": true,
      t0: true,
      t1: true,
      misuse: ["bad-id", "bad-option"],
      problems: [],
      closed: "closed",
    });
  });

  it("asks the device once for uploads that begin together", async () => {
    expect(await run.shareAnswers()).toEqual({
      together: ["no error: undefined"],
      "few answers": true,
      "with no memory": ["out-of-memory"],
      "leased after that": 0,
      "with memory again": ["no error: undefined"],
      wrong: [],
      problems: [],
    });
  });

  it("makes a device from an adapter of the caller's choice", async () => {
    expect(await run.fromAdapter()).toEqual({
      equal: true,
      "the adapter's limits": true,
      "after the close": "destroyed",
      "after a loss": true,
      "without an adapter": "device-lost",
      "with one again": "no error: object",
      asked: 4,
      misuse: ["bad-option", "bad-option"],
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
