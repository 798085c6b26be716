// What the engine has compiled for objects that come and go stays compiled when a collection finds
// none of them alive. It would be thrown away with their layout.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { ViewAllocator } from "../../src/index.js";
import { openMemory } from "../support/oracle.js";

setFlagsFromString("--expose-gc");
setFlagsFromString("--allow-natives-syntax");
const collect = runInNewContext("gc") as () => void;
/** Bit 4 of the status: the function runs optimized code, of whichever compiler. */
const isOptimized = runInNewContext("(work) => (%GetOptimizationStatus(work) & 16) !== 0") as (
  work: () => void,
) => boolean;

/** Runs `work` until it is compiled, then collects as often as makes the engine forget layouts. */
function staysCompiled(work: () => void): boolean {
  for (let turn = 0; turn < 200 && !isOptimized(work); turn++) {
    for (let index = 0; index < 10_000; index++) work();
  }
  expect(isOptimized(work)).toBe(true);
  for (let turn = 0; turn < 4; turn++) {
    collect();
    for (let index = 0; index < 3; index++) work();
  }
  return isOptimized(work);
}

describe("a full collection", () => {
  it("leaves compiled what hands out blocks with views", async () => {
    const allocator = await ViewAllocator.create({
      totalBytes: 2 ** 20,
      blockCountMax: 64,
      dtype: "f32",
    });
    const places: { free(): void }[] = [];
    const work = () => {
      places[0] = allocator.tryAllocate(64) as { free(): void };
      places[0].free();
      places.length = 0;
    };
    expect(staysCompiled(work)).toBe(true);
    expect(allocator.liveCount).toBe(0);
    expect(allocator.layoutKeeper.isFreed).toBe(true);
  });

  it("leaves compiled what hands out tensors of a fixed shape", async () => {
    const memory = await openMemory();
    using pool = memory.fixedShapePool({ kind: "KV_CACHE", shape: [64, 64], dtype: "f32" });
    const places: { free(): void }[] = [];
    const work = () => {
      places[0] = pool.allocate();
      places[0].free();
      places.length = 0;
    };
    expect(staysCompiled(work)).toBe(true);
    expect(pool.stats().liveCount).toBe(0);
    expect(pool.layoutKeeper.isFreed).toBe(true);
  });
});
