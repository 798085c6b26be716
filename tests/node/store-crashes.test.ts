// Power cuts under the store itself, at every point of random work; the script of the same name
// explores many more.
import { describe, expect, it } from "vitest";
import { exploreCrashes, PLANTED_BUGS, runStoreWorkload } from "../../src/testing/index.js";
import { withSeed } from "../support/oracle.js";

const STEP_COUNT = 24;

async function explore(seed: number, isDurable: boolean, bug?: string) {
  const decorate = bug === undefined ? undefined : PLANTED_BUGS.get(bug);
  const options = { seed, stepCount: STEP_COUNT, isDurable };
  const workload = await runStoreWorkload(decorate ? { ...options, decorate } : options);
  return exploreCrashes(workload, { stateCountMax: 4000, nestedEvery: 16 });
}

describe("power cuts under a store", () => {
  it.each([true, false])("leave what they may, durable: %s", async (isDurable) => {
    await withSeed("power cuts", async (seed) => {
      let stateCount = 0;
      for (let round = 0; round < 3; round++) {
        const report = await explore(seed + round, isDurable);
        expect(report.violations).toEqual([]);
        stateCount += report.stateCount;
      }
      expect(stateCount).toBeGreaterThan(1500);
    });
  });

  it.each([...PLANTED_BUGS.keys()])("are caught where %s (canary)", async (bug) => {
    await withSeed("planted bugs", async (seed) => {
      const { violations } = await explore(seed, true, bug);
      expect(violations.length).toBeGreaterThan(5);
    });
  });
});
