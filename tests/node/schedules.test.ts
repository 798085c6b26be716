// Interleavings of the shared core, access by access: scripts/explore-schedules.mjs in short.
import { expect, it } from "vitest";
import { compileModules, explore } from "../schedules/explorer.mjs";
import { SEED, withSeed } from "../support/oracle.js";

it("lanes that take turns at any access never break anything", () =>
  withSeed("schedules", async (seed) => {
    const counts = explore(await compileModules(), { scheduleCount: 10_000, seed });
    expect(counts.violation).toBeNull();
    expect(counts.schedules).toBeGreaterThanOrEqual(10_000);
    expect(counts.systematic).toBeGreaterThanOrEqual(1000);
    expect(counts.busy).toBeGreaterThan(100);
  }));

it("a lock whose compare and exchange is none is found", async () => {
  const modules = await compileModules({ isBroken: true });
  const counts = explore(modules, { scheduleCount: 1000, seed: SEED });
  expect(counts.violation).not.toBeNull();
});
