// The governor by itself: when a feature is switched off, how long it rests, and what is concluded of what
// cannot be told.
import { describe, expect, it } from "vitest";
import type { FeatureChange, FeatureMode } from "../../src/stats/feature.js";
import { Governor } from "../../src/stats/governor.js";

const JUDGED = 32;
const REST = 1000;

function governed(mode: FeatureMode = "auto") {
  const changes: FeatureChange[] = [];
  const governor = new Governor({
    modes: { prefetch: mode },
    onSwitch: (change) => changes.push(change),
  });
  const feature = governor.feature("prefetch");
  const settle = (count: number, costMs: number, gainMs: number | null) => {
    for (let index = 0; index < count; index++) feature.settle(costMs, gainMs);
  };
  /** Occasions until it is on, at most `limit`. */
  const occasionsUntilOn = (limit: number) => {
    let count = 0;
    while (count < limit && !feature.isOn) {
      feature.allows();
      count += 1;
    }
    return count;
  };
  const stats = () => governor.stats()[0];
  return { feature, settle, occasionsUntilOn, stats, changes };
}

describe("a governed feature", () => {
  it("is switched off by as many outcomes as are judged together, with an event", () => {
    const { feature, settle, stats, changes } = governed();
    settle(JUDGED - 1, 2, 1);
    expect(feature.isOn).toBe(true);
    settle(1, 2, 1);
    expect(feature.allows()).toBe(false);
    expect(stats()).toMatchObject({ isOn: false, governedBy: "governor", switchedOffCount: 1 });
    const balance = { costMs: 2 * JUDGED, gainMs: JUDGED };
    expect(changes).toEqual([{ feature: "prefetch", isOn: false, ...balance }]);
  });

  it("stays on while it pays, and a little beyond", () => {
    const { feature, settle, changes } = governed();
    settle(10 * JUDGED, 1, 2);
    settle(10 * JUDGED, 1.2, 1);
    expect(feature.isOn).toBe(true);
    expect(changes).toEqual([]);
  });

  it("is soon switched off when what paid does not any more", () => {
    const { feature, settle } = governed();
    settle(100 * JUDGED, 1, 2);
    settle(4 * JUDGED, 2, 0);
    expect(feature.isOn).toBe(false);
  });

  it("is tried again after a rest that doubles with each failure, and ends with a success", () => {
    const { settle, occasionsUntilOn, stats, changes } = governed();
    for (const rest of [REST, 2 * REST, 4 * REST]) {
      settle(JUDGED, 2, 1);
      // Outcomes of what was under way say nothing.
      settle(JUDGED, 0, 100);
      expect(occasionsUntilOn(10 * REST)).toBe(rest);
    }
    expect(changes.map(({ isOn }) => isOn)).toEqual([false, true, false, true, false, true]);
    settle(JUDGED, 1, 2);
    settle(8 * JUDGED, 2, 0);
    expect(occasionsUntilOn(10 * REST)).toBe(REST);
    expect(stats()).toMatchObject({ isOn: true, switchedOffCount: 4 });
  });

  it("rests no longer than a bound", () => {
    const { settle, occasionsUntilOn } = governed();
    for (let trial = 0; trial < 12; trial++) {
      settle(JUDGED, 1, 0);
      occasionsUntilOn(Number.POSITIVE_INFINITY);
    }
    settle(JUDGED, 1, 0);
    expect(occasionsUntilOn(2 ** 11 * REST)).toBe(2 ** 10 * REST);
  });

  it("concludes nothing of what cannot be told", () => {
    const { feature, settle } = governed();
    for (let round = 0; round < 10; round++) {
      settle(JUDGED - 1, 5, 0);
      settle(1, 5, null);
    }
    expect(feature.isOn).toBe(true);
    settle(2 * JUDGED, 5, 0);
    expect(feature.isOn).toBe(false);
  });

  it("is on or off for good when the caller says so", () => {
    const kept = governed(true);
    kept.settle(10 * JUDGED, 5, 0);
    expect(kept.stats()).toMatchObject({ isOn: true, governedBy: "option", switchedOffCount: 0 });
    const refused = governed(false);
    expect(refused.occasionsUntilOn(10 * REST)).toBe(10 * REST);
    expect(refused.stats()).toMatchObject({ isOn: false, governedBy: "option" });
    expect([...kept.changes, ...refused.changes]).toEqual([]);
  });

  it("says in nanoseconds, bytes and times what it took and gave", () => {
    const { feature, stats } = governed();
    feature.spend(2, 100);
    feature.spend(1, 50);
    feature.earn(0.5, 70);
    feature.earn(null, 30);
    expect(stats()).toMatchObject({
      cost: { ns: 3e6, bytes: 150, count: 2 },
      gain: { ns: 5e5, bytes: 100, count: 2 },
    });
  });
});
