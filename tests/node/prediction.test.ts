// Predictors beyond their seam, and the window that bounds and counts what they lead to.
import { describe, expect, it } from "vitest";
import { PrefetchWindow } from "../../src/cache/prefetch-window.js";
import { schedulePredictor } from "../../src/predictor/schedule.js";
import { successorPredictor } from "../../src/predictor/successor.js";
import { seededRandom } from "../../src/random.js";

const SEED = Number(process.env["SEED"] ?? 20_262);

describe("the successor predictor", () => {
  it("follows what came next the last time, whatever the stream was", () => {
    const predictor = successorPredictor({ depth: 3 });
    for (const id of ["a", "b", "c", "d", "e"]) predictor.observe("one", id);
    expect(predictor.observe("two", "b")).toEqual(["c", "d", "e"]);
    predictor.observe("two", "x");
    expect(predictor.observe("three", "b")).toEqual(["x"]);
  });

  it("ends where it would go round", () => {
    const predictor = successorPredictor({ depth: 8 });
    for (const id of ["a", "b", "c", "a", "b"]) predictor.observe("one", id);
    expect(predictor.observe("one", "c")).toEqual(["a", "b"]);
  });

  it("forgets the longest unused", () => {
    const predictor = successorPredictor({ memoryCount: 2 });
    for (const id of ["a", "b", "c", "d"]) predictor.observe("one", id);
    expect(predictor.observe("two", "a")).toEqual([]);
    expect(predictor.observe("three", "b")).not.toEqual([]);
  });

  it.each([{ depth: 0 }, { depth: 65 }, { depth: 1.5 }, { memoryCount: 0 }])(
    "refuses %o",
    (bad) => {
      expect(() => successorPredictor(bad)).toThrowError(
        expect.objectContaining({ code: "bad-option" }),
      );
    },
  );
});

describe("the schedule predictor", () => {
  it("knows the order from the start, and goes round", () => {
    const predictor = schedulePredictor(["a", "b", "c"]);
    expect(predictor.observe("", "a")).toEqual(["b", "c"]);
    expect(predictor.observe("", "c")).toEqual(["a", "b"]);
    expect(predictor.observe("", "unknown")).toEqual([]);
    expect(schedulePredictor(["a"]).observe("", "a")).toEqual([]);
  });

  it("refuses an id that comes twice, and no depth", () => {
    for (const make of [() => schedulePredictor(["a", "a"]), () => schedulePredictor(["a"], 0)]) {
      expect(make).toThrowError(expect.objectContaining({ code: "bad-option" }));
    }
  });
});

describe("the prefetch window", () => {
  it(`issued = used + wasted + late + outstanding, within the budget, seed ${SEED}`, () => {
    const random = seededRandom(SEED);
    const window = new PrefetchWindow({ budgetCount: 8 });
    for (let step = 0; step < 5000; step++) {
      const id = () => `${random.uint32() % 30}`;
      const action = random.uint32() % 4;
      if (action === 0) window.want("s", id(), step);
      else if (action === 1) window.arrive(id(), step);
      else if (action === 2) window.waste(id());
      else window.issue([id(), id(), id()], step, () => true);
      const { issuedCount, usedCount, wastedCount, lateCount, outstandingCount } =
        window.counters();
      expect(usedCount + wastedCount + lateCount + outstandingCount).toBe(issuedCount);
      expect(outstandingCount).toBeLessThanOrEqual(8);
    }
    const { usedCount, wastedCount, lateCount } = window.counters();
    expect(Math.min(usedCount, wastedCount, lateCount)).toBeGreaterThan(10);
  });

  it("goes as deep as the time of a transfer needs", () => {
    const depthAt = (transferMs: number) => {
      const window = new PrefetchWindow({ depthMax: 16 });
      for (let step = 0; step < 400; step++) {
        window.want("s", `${step}`, step * 10);
        window.issue([`${step + 1}`], step * 10, () => true);
        window.arrive(`${step + 1}`, step * 10 + transferMs);
      }
      return window.depth;
    };
    expect(depthAt(5)).toBe(2);
    expect(depthAt(45)).toBe(6);
    expect(depthAt(10_000)).toBe(16);
  });

  it("gives the oldest guess up for a new one", () => {
    const window = new PrefetchWindow({ budgetCount: 2 });
    const givenUp: string[] = [];
    for (const id of ["a", "b", "c"]) {
      window.issue(
        [id],
        0,
        () => true,
        (old) => givenUp.push(old),
      );
    }
    expect(givenUp).toEqual(["a"]);
    expect(window.want("s", "a", 1)).toBe("none");
    expect(window.want("s", "b", 1)).toBe("late");
  });
});
