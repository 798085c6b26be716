// Bookkeeping alone: accesses per second of each policy and of `lru-cache`, on one trace of accesses in
// memory. They take turns, and each has every round in the same state.
import { LRUCache } from "lru-cache";
import { median } from "../support.mjs";
import { replayChains } from "./replay.mjs";

/** Accesses drawn from a few numbers often and from many seldom: about four of five are hits. */
export function skewedAccesses(random, count, uniqueCount) {
  return Int32Array.from({ length: count }, () => Math.floor(uniqueCount * random() ** 4));
}

/** One pass of accesses through a policy by its seam. */
function passOf(make, accesses, uniqueCount, capacity) {
  const policy = make({ nowMs: 0, monotonicMs: () => 0 });
  const isHeld = new Uint8Array(uniqueCount);
  const entry = { index: 0, bytes: 1 };
  let heldCount = 0;
  return () => {
    for (let at = 0; at < accesses.length; at++) {
      const index = accesses[at];
      if (isHeld[index] === 1) {
        policy.touch(index);
        continue;
      }
      if (heldCount === capacity) {
        const { value: victim } = policy.candidates()[Symbol.iterator]().next();
        policy.untrack(victim);
        isHeld[victim] = 0;
      } else {
        heldCount++;
      }
      isHeld[index] = 1;
      entry.index = index;
      policy.track(entry);
    }
  };
}

function passOfLruCache(accesses, capacity) {
  const cache = new LRUCache({ max: capacity });
  return () => {
    for (let at = 0; at < accesses.length; at++) {
      const index = accesses[at];
      if (cache.get(index) === undefined) cache.set(index, 1);
    }
  };
}

/** @returns Accesses per second by name. */
export function measureAccesses(makers, random, roundCount) {
  const uniqueCount = 100_000;
  const capacity = 20_000;
  const accesses = skewedAccesses(random, 1_000_000, uniqueCount);
  const passes = Object.entries(makers).map(([name, make]) => ({
    name,
    pass: passOf(make, accesses, uniqueCount, capacity),
    samples: [],
  }));
  passes.push({ name: "lru-cache", pass: passOfLruCache(accesses, capacity), samples: [] });
  for (let round = -2; round < roundCount; round++) {
    for (const { pass, samples } of passes) {
      const start = performance.now();
      pass();
      const milliseconds = performance.now() - start;
      if (round >= 0) samples.push((accesses.length / milliseconds) * 1000);
    }
  }
  return Object.fromEntries(passes.map(({ name, samples }) => [name, median(samples)]));
}

/** @returns Blocks per second of a policy that replays whole chains, evictions included. */
export function measureBlocks(trace, capacity, make, roundCount) {
  const samples = [];
  for (let round = -1; round < roundCount; round++) {
    const start = performance.now();
    replayChains(trace, capacity, make);
    const milliseconds = performance.now() - start;
    if (round >= 0) samples.push((trace.accessCount / milliseconds) * 1000);
  }
  return median(samples);
}
