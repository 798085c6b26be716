// The proofs must find what is planted: control planes that lie, each in one way. The proofs
// themselves are scripts/proof.mjs, which `npm test` runs.
import { describe, expect, it } from "vitest";
import type { ControlPlane } from "../../src/core/control-plane.js";
import { BUILDS } from "../proof/builds.mjs";
import { runMisuse } from "../proof/misuse-run.mjs";
import { runModel } from "../proof/model-run.mjs";
import { SEED } from "../support/oracle.js";

type Lie = (plane: ControlPlane) => Partial<ControlPlane>;

/** Calls count from 1; every `period`th one is answered with the lie. */
function every(period: number): () => boolean {
  let count = 0;
  return () => ++count % period === 0;
}

/** The plane, with the methods of `lie` in place of its own. */
function wrapped(lie: Lie) {
  return (plane: ControlPlane): ControlPlane => {
    const lies = lie(plane);
    return new Proxy(plane, {
      get(target, name) {
        const own = Reflect.get(lies, name) ?? Reflect.get(target, name, target);
        return typeof own === "function" ? own.bind(target) : own;
      },
    });
  };
}

const swallow = (call: () => void): void => {
  try {
    call();
  } catch {
    // The planted lie: what was refused looks accepted.
  }
};

const LIES: Record<string, Lie> = {
  "two blocks in one place": (plane) => {
    const lies = every(500);
    return { offsetOf: (slot) => (lies() ? 0 : plane.offsetOf(slot)) };
  },
  "a block that is too short": (plane) => {
    const lies = every(500);
    return { grantedBytesOf: (slot) => plane.grantedBytesOf(slot) - (lies() ? 64 : 0) };
  },
  "a refusal in spite of room": (plane) => {
    const lies = every(3000);
    return { allocate: (...given) => (lies() ? 0 : plane.allocate(...given)) };
  },
  "a block that is not freed": (plane) => {
    const lies = every(5000);
    return {
      free: (slot, generation) => {
        if (!lies()) plane.free(slot, generation);
      },
    };
  },
  "a stale handle that is accepted": (plane) => ({
    free: (slot, generation) => swallow(() => plane.free(slot, generation)),
  }),
  "a pin that is not counted": (plane) => {
    const lies = every(100);
    return { pin: (slot, generation) => (lies() ? 1 : plane.pin(slot, generation)) };
  },
  "a move that is not made": (plane) => {
    const lies = every(20);
    return {
      commitMove: () => {
        if (!lies()) return plane.commitMove();
        plane.vetoMove();
        return true;
      },
    };
  },
  "a counter that is off by one": (plane) => ({
    poolCounters: (pool) => {
      const counters = plane.poolCounters(pool);
      return { ...counters, freeCount: counters.freeCount + (counters.freeCount > 5000 ? 1 : 0) };
    },
  }),
  "a broken invariant": (plane) => {
    const lies = every(50);
    return { check: () => (lies() ? 101 : plane.check()) };
  },
};

describe("the model", () => {
  it.each(BUILDS)("agrees with %s", async (build) => {
    const counts = await runModel({ build, seed: SEED, operationCount: 60_000 });
    expect(counts["operations"]).toBe(60_000);
  });

  it.each(Object.keys(LIES))("finds %s", async (name) => {
    const wrap = wrapped(LIES[name] as Lie);
    const options = { build: "core", seed: SEED, operationCount: 500_000, shrinkTrialCount: 0 };
    const run = runModel({ ...options, wrap });
    await expect(run).rejects.toThrowError(/episode seed \d+, step \d+/);
  });

  it("shrinks what it finds to a few steps", async () => {
    const wrap = wrapped((plane) => ({
      offsetOf: (slot) => (slot === 3 ? 0 : plane.offsetOf(slot)),
    }));
    const run = runModel({ build: "core", seed: SEED, operationCount: 20_000, wrap });
    const { message } = (await run.catch((error: unknown) => error)) as Error;
    expect(Number(/(\d+) steps show it/.exec(message)?.[1])).toBeLessThan(10);
  });
});

describe("misuse", () => {
  it.each(["core", "plane", "buddy"])("is refused through %s", async (through) => {
    const counts = await runMisuse({ build: "core", through, seed: SEED, badCount: 20_000 });
    expect(Math.min(...Object.values(counts))).toBeGreaterThan(100);
  });

  it("that is accepted once is found", async () => {
    const lies = every(5000);
    const wrap = wrapped((plane) => ({
      pin: (slot, generation) => (lies() ? 1 : plane.pin(slot, generation)),
    }));
    const run = runMisuse({ build: "core", through: "plane", seed: SEED, badCount: 60_000, wrap });
    await expect(run).rejects.toThrowError(/was accepted/);
  });
});
