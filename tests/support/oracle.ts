// Opens memories whose parts are injected, and after each test asks of every one of them what must
// hold whatever the test did.
import { afterEach, expect } from "vitest";
import { CANARY_BYTES } from "../../src/cache/guards.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import { createTensorMemory } from "../../src/node.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, seededRandom, statsProblems } from "../../src/testing/index.js";
import type { FileSystem } from "../../src/tier/file-system.js";
import { FsTier } from "../../src/tier/fs.js";
import { checkAndClose, noteAbandoned, noteMade } from "./made-memories.js";

let openingCount = 0;

/** The run's seed: `TIERHEAP_SEED` if it is set. Named in every failure of a random test. */
export const SEED = Number.parseInt(process.env["TIERHEAP_SEED"] ?? "20240229", 10) | 0;

/** Runs a random test; a failure says which seed repeats it. */
export async function withSeed(
  name: string,
  run: (seed: number) => void | Promise<void>,
  seed = SEED,
): Promise<void> {
  try {
    await run(seed);
  } catch (error) {
    throw new Error(`${name} failed; repeat it with TIERHEAP_SEED=${seed}`, { cause: error });
  }
}

/** Opens a small memory with a manual clock and a seeded generator; the oracle closes it. */
export async function openMemory(options: TensorMemoryOptions = {}): Promise<TensorMemory> {
  const memory = await createTensorMemory({
    profile: "generic",
    budgets: { ram: "16MiB" },
    ...options,
    seams: {
      clock: manualClock({ sleeping: "skip" }),
      random: seededRandom(SEED),
      ...options.seams,
    },
  });
  noteMade(memory, checkQuiet);
  return memory;
}

/** Opens a memory whose SSD tier lies on the given file system, in `/store`. */
export function openOn(
  fileSystem: FileSystem,
  options: TensorMemoryOptions & {
    readonly capacityBytes?: number;
    readonly packedBytesMax?: number;
  } = {},
): Promise<TensorMemory> {
  const { capacityBytes = 2 ** 30, packedBytesMax = 2 ** 18, ...rest } = options;
  // Every opening draws names of its own, as processes do.
  const random = seededRandom(SEED + ++openingCount);
  const place = { directory: "/store", fileSystem, random };
  const tier = new FsTier({ ...place, capacityBytes, packedBytesMax });
  return openMemory({ ...rest, seams: { tier, ...rest.seams } });
}

/** Dropped arenas give room only once the engine has collected them. */
export async function collecting<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if ((error as { code?: string }).code !== "out-of-memory" || attempt === 5) throw error;
      globalThis.gc?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** What must hold of a memory that nothing is being done to. */
export function checkQuiet(memory: TensorMemory): void {
  // What debug mode holds in quarantine belongs to no tensor.
  if (memory.stats().guards !== null) memory.trim();
  expect(memory.verify()).toMatchObject({ isSound: true, brokenInvariant: null, problems: [] });
  const stats = memory.stats();
  expect(statsProblems(stats)).toEqual([]);
  const { background, lifetimes, pools, tensors, guards } = stats;
  const isRunning = background.isRunning || lifetimes?.isRunning === true;
  const canaryBytes = guards === null ? 0 : tensors.hotCount * CANARY_BYTES;
  for (const pool of pools) {
    const ownCount = isRunning ? 2 : 0;
    expect(pool.pinnedCount, `pins left in ${pool.kind}`).toBeLessThanOrEqual(ownCount);
  }
  const sum = (pick: (pool: (typeof pools)[number]) => number) =>
    pools.reduce((total, pool) => total + pick(pool), 0);
  // A tensor that is freed while it is copied keeps its block until then.
  if (!isRunning) {
    expect(
      sum((pool) => pool.liveCount),
      "blocks without a tensor",
    ).toBe(tensors.hotCount);
    expect(
      sum((pool) => pool.requestedBytes),
      "bytes without a tensor",
    ).toBe(tensors.hotBytes + canaryBytes);
  }
}

/** Checks and closes a memory now, for tests that open its store again. */
export async function closeMemory(memory: TensorMemory): Promise<void> {
  await checkAndClose(memory);
}

/** Takes a memory out of the oracle's hands: the test breaks it on purpose. */
export function abandon(memory: TensorMemory): void {
  noteAbandoned(memory);
}

const prototypeNames = Object.getOwnPropertyNames(Object.prototype).join();

afterEach(() => {
  expect(Object.getOwnPropertyNames(Object.prototype).join()).toBe(prototypeNames);
});
