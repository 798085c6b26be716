// Plans of a step: places are disjoint in time and close to the lower bound; replay gives constant
// views and refuses another step.
import { describe, expect, it } from "vitest";
import { planOffsets } from "../../src/cache/plan-offsets.js";
import { seededRandom } from "../../src/random.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

describe("planOffsets", () => {
  it("never gives bytes to two tensors at once", async () => {
    await withSeed(
      "the plan fuzzer",
      (seed) => {
        const random = seededRandom(seed);
        const below = (bound: number) => random.uint32() % bound;
        for (let round = 0; round < 200; round++) {
          const lifetimes = Array.from({ length: 1 + below(60) }, () => {
            const start = below(50);
            return { bytes: 1 + below(5000), start, end: start + 1 + below(20) };
          });
          const { offsets, byteLength, lowerBoundBytes } = planOffsets(lifetimes, 64);
          expect(byteLength).toBeGreaterThanOrEqual(lowerBoundBytes);
          for (const [left, a] of lifetimes.entries()) {
            const from = offsets[left] as number;
            expect(from % 64).toBe(0);
            expect(from + a.bytes).toBeLessThanOrEqual(byteLength);
            for (const [right, b] of lifetimes.entries()) {
              const other = offsets[right] as number;
              const isApart = a.end <= b.start || b.end <= a.start;
              const isDisjoint = from + a.bytes <= other || other + b.bytes <= from;
              if (left !== right && !isApart && !isDisjoint) throw new Error("two tensors overlap");
            }
          }
        }
      },
      SEED,
    );
  });

  it("reaches the lower bound where tensors follow one another", () => {
    const lifetimes = Array.from({ length: 10 }, (_, start) => ({
      bytes: 64 * (1 + (start % 3)),
      start,
      end: start + 1,
    }));
    expect(planOffsets(lifetimes, 64)).toMatchObject({ byteLength: 192, lowerBoundBytes: 192 });
  });
});

describe("a step plan", () => {
  async function recorded() {
    const memory = await openMemory();
    const recorder = memory.recordPlan({ kind: "ACTIVATIONS" });
    const normed = recorder.allocate({ shape: [16, 64], dtype: "f32" });
    const query = recorder.allocate({ shape: [16, 64], dtype: "f32" });
    {
      using pin = normed.pin();
      pin.view.fill(1);
    }
    normed.free();
    const scores = recorder.allocate({ shape: [8, 16], dtype: "f32" });
    query[Symbol.dispose]();
    return { memory, recorder, scores };
  }

  it("replays the step with the same views and no allocation", async () => {
    const { memory, recorder, scores } = await recorded();
    const plan = recorder.finish();
    expect(plan).toMatchObject({ kind: "ACTIVATIONS", tensorCount: 3, byteLength: 8192 });
    expect(plan.lowerBoundBytes).toBe(8192);
    const step = () => {
      plan.begin();
      const views = [
        plan.next([16, 64], "f32"),
        plan.next([16, 64], "f32"),
        plan.next([8, 16], "f32"),
      ];
      plan.end();
      return views;
    };
    const views = step();
    const { allocationCount } = memory.stats().pools[0] as { allocationCount: number };
    expect(step().map((view, index) => view === views[index])).toEqual([true, true, true]);
    expect(memory.stats().pools[0]?.allocationCount).toBe(allocationCount);
    const [normed, query, late] = views as [Float32Array, Float32Array, Float32Array];
    expect(late.byteOffset).toBe(normed.byteOffset);
    expect(query.byteOffset).not.toBe(normed.byteOffset);
    scores.free();
    plan[Symbol.dispose]();
    expect(memory.stats().pools[0]?.liveCount).toBe(0);
    plan[Symbol.dispose]();
  });

  it("refuses another step, which then runs without it", async () => {
    const { memory, recorder, scores } = await recorded();
    const plan = recorder.finish();
    scores.free();
    const mismatch = expect.objectContaining({ code: "plan-mismatch" });
    expect(() => plan.next([16, 64], "f32")).toThrowError("no step has begun");
    plan.begin();
    expect(() => plan.next([16, 65], "f32")).toThrow(mismatch);
    expect(() => plan.next([16], "f32")).toThrow(mismatch);
    expect(() => plan.next([16, 64], "f64")).toThrow(mismatch);
    plan.next([16, 64], "f32");
    plan.next([16, 64], "f32");
    plan.next([8, 16], "f32");
    expect(() => plan.next([8, 16], "f32")).toThrow(mismatch);
    plan.end();
    const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [16, 65], dtype: "f32" });
    tensor.free();
    plan.begin();
    expect(plan.next([16, 64], "f32").length).toBe(1024);
    plan[Symbol.dispose]();
  });

  it("gives its block back under pressure, and takes another one", async () => {
    const memory = await openMemory();
    const recorder = memory.recordPlan({ kind: "ACTIVATIONS" });
    recorder.allocate({ shape: [2 ** 21], dtype: "u8" }).free();
    const plan = recorder.finish();
    plan.begin();
    const view = plan.next([2 ** 21], "u8");
    view.fill(3);
    const fill = () => {
      const tensors = [];
      for (;;) {
        const tensor = memory.tryAllocate({ kind: "GRADIENTS", byteLength: 2 ** 20 });
        if (tensor === null) return tensors;
        tensors.push(tensor);
      }
    };
    const before = fill();
    expect(view.every((value) => value === 3)).toBe(true);
    plan.end();
    const after = fill();
    expect(after.length).toBeGreaterThan(0);
    expect(() => plan.begin()).toThrowError("do not fit");
    for (const tensor of [...before, ...after]) tensor.free();
    plan.begin();
    expect(plan.next([2 ** 21], "u8").length).toBe(2 ** 21);
    plan.end();
    memory.trim();
    expect(memory.verify().isSound).toBe(true);
  });

  it("is recorded once, from something, without resizing", async () => {
    const memory = await openMemory();
    expect(() => memory.recordPlan({ kind: "x" as never })).toThrowError("kind");
    const empty = memory.recordPlan({ kind: "ACTIVATIONS" });
    expect(() => empty.finish()).toThrowError("nothing was recorded");
    const recorder = memory.recordPlan({ kind: "ACTIVATIONS" });
    const tensor = recorder.allocate({ shape: [4], dtype: "u8" });
    expect(() => tensor.resize({ shape: [2] })).toThrowError("recorded");
    expect(() => recorder.allocate({ shape: [4], dtype: "u8", id: "a" } as never)).toThrowError();
    const plan = recorder.finish();
    expect(() => recorder.finish()).toThrowError("finished");
    expect(() => recorder.allocate({ shape: [4], dtype: "u8" })).toThrowError("finished");
    tensor.resize({ shape: [2] });
    tensor.free();
    expect(() => tensor.free()).toThrowError("freed before");
    await memory.close();
    expect(() => plan.begin()).toThrowError("closed");
    plan[Symbol.dispose]();
  });
});
