// The statistics by themselves: what must add up is noticed when it does not, durations fall into their
// classes, and samples cover the whole life of a memory in a fixed room.
import { describe, expect, it } from "vitest";
import { nullSink } from "../../src/stats/null-sink.js";
import { Recorder } from "../../src/stats/recorder.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier, seededRandom, statsProblems } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { checkAll, noteMade } from "../support/made-memories.js";
import { openMemory, withSeed } from "../support/oracle.js";

const BYTES = 96 * 1024;

/** A memory that has done a little of everything. */
async function busyMemory(): Promise<TensorMemory> {
  const clock = manualClock({ sleeping: "skip" });
  const tier = memoryTier();
  const memory = await openMemory({ budgets: { ram: "16MiB" }, seams: { tier, clock } });
  for (let index = 0; index < 300; index++) {
    clock.advance(1);
    await memory.reserve({ kind: "KV_CACHE", bytes: BYTES });
    allocateFilled(memory, `t${index}`, BYTES, index);
  }
  for (let index = 0; index < 40; index++) {
    clock.advance(20);
    await expectFilled(memory, `t${index}`, BYTES, index);
  }
  await memory.prefetch(["t100", "t101"]);
  // One in so many is timed.
  for (let index = 0; index < 1024; index++) {
    memory.allocate({ kind: "ACTIVATIONS", byteLength: 64 }).free();
  }
  return memory;
}

/** A deep copy with one figure changed; the path is dotted. */
function changed(stats: object, path: string, change: (value: number) => number): object {
  const copy = structuredClone(stats);
  const names = path.split(".");
  const last = names.pop() as string;
  let at = copy as Record<string, unknown>;
  for (const name of names) at = at[name] as Record<string, unknown>;
  expect(typeof at[last], path).toBe("number");
  at[last] = change(at[last] as number);
  return copy;
}

describe("what must add up", () => {
  const more = (value: number) => value + 1;
  const cases: readonly [path: string, change: (value: number) => number][] = [
    ...[
      ...["lookups.hits", "lookups.joins", "lookups.misses", "lookups.lookups"],
      ...["prefetch.usedCount", "prefetch.wastedCount", "prefetch.lateCount"],
      ...["prefetch.issuedCount", "prefetch.outstandingCount"],
      ...["pools.0.grantedBytes", "pools.0.freeBytes", "pools.0.capacityBytes"],
      ...["pools.0.liveCount", "pools.0.allocationCount", "pools.0.freeCount"],
      ...["pools.0.arenaCount", "pools.0.pinnedCount", "pools.0.arenas.0.grantedBytes"],
      ...["pools.0.arenas.0.freeBytes", "pools.0.arenas.0.liveCount"],
      ...["budget.usedBytes", "budget.byCategory.staging", "arenas.spareBytes"],
      ...["tiers.0.hits", "tiers.0.misses", "tiers.1.priority"],
      ...["tensors.hotBytes", "tensors.hotCount", "transfers.hotBytes"],
      ...["latencies.0.count", "latencies.0.classes.0.count"],
    ].map((path): [string, typeof more] => [path, more]),
    ["lookups.cold", (value) => value + 1e6],
    ["prefetch.declaredCount", (value) => value + 1e6],
    ["pools.0.requestedBytes", (value) => value + 1e9],
    ["pools.0.claimedBytesPeak", () => 0],
    ["pools.0.requestedBytesPeak", () => 0],
    ["pools.0.capacityBytesPeak", () => 0],
    ["budget.usedBytesPeak", (value) => value + 1e12],
    ["tiers.1.skips", (value) => value + 1e6],
    ["tiers.1.objectCount", () => 0],
    ["disposables.refusedCount", (value) => value + 1e6],
    ["disposables.refusedBytes", (value) => value + 1e6],
    ["sharing.contentCount", (value) => value + 1e6],
    ["sharing.sharedCount", (value) => value + 1e6],
    ["latencies.0.leastMs", () => -1],
    ["latencies.0.p90Ms", () => 1e9],
    ["latencies.0.totalMs", (value) => value + 1e9],
    ["series.samples.1.hits", () => 1e9],
    ["series.samples.1.timeMs", () => 0],
    ["series.capacity", () => 1],
    ["features.0.cost.ns", () => -1],
  ];

  it("adds up in a memory that has done a little of everything", async () => {
    const memory = await busyMemory();
    const stats = memory.stats();
    expect(stats.latencies.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["allocate", "cache.wait", "room.wait", "swap.load", "swap.store"]),
    );
    expect(stats.series?.samples.length).toBeGreaterThan(2);
    expect(statsProblems(stats)).toEqual([]);
    for (const [path, change] of cases) {
      const broken = changed(stats, path, change);
      expect(statsProblems(broken as typeof stats), path).not.toEqual([]);
    }
  });

  it("notices a feature that is listed twice, or off by nobody", async () => {
    const stats = (await busyMemory()).stats();
    const [first] = stats.features;
    const twice = { ...stats, features: [...stats.features, ...stats.features] };
    expect(statsProblems(twice)).toContain("a feature is listed twice");
    const off = { ...stats, features: [{ ...first, isOn: false } as typeof first & object] };
    expect(statsProblems(off)).toEqual(["compaction: off by nobody"]);
  });

  it("is asked after every test, and fails it", async () => {
    const memory = await openMemory();
    noteMade(memory, (each) => expect(statsProblems(each.stats())).toEqual(["something"]));
    await expect(checkAll()).rejects.toThrow("something");
    // Closed all the same, and nobody asks again.
    expect(() => memory.allocate({ kind: "GRADIENTS", byteLength: 1 })).toThrow("closed");
    await checkAll();
  });
});

describe("a recorder", () => {
  const recorder = (clock = manualClock()) =>
    new Recorder({ clock, next: nullSink, sampledOneIn: new Map([["b", 8]]) });

  it("puts durations into classes that are at most a fifth longer", () =>
    withSeed("histogram", (seed) => {
      const random = seededRandom(seed);
      const made = recorder();
      const durations = Array.from(
        { length: 5000 },
        () => 2 ** (24 * (random.uint32() / 2 ** 32) - 9),
      );
      for (const duration of durations) made.time("a", duration);
      const [stats] = made.latencies();
      const sorted = [...durations].sort((left, right) => left - right);
      const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] as number;
      expect(stats).toMatchObject({ name: "a", count: 5000, leastMs: sorted[0], mostMs: at(1) });
      for (const [value, share] of [
        [stats?.p50Ms, 0.5],
        [stats?.p90Ms, 0.9],
        [stats?.p99Ms, 0.99],
      ] as const) {
        expect(value).toBeGreaterThanOrEqual(at(share));
        expect(value).toBeLessThan(1.2 * at(share));
      }
      for (const { upToMs, count } of stats?.classes ?? []) {
        const within = durations.filter((each) => each <= upToMs && each > upToMs / 2 ** 0.25);
        expect(within.length).toBe(count);
      }
    }));

  it("takes what is too short or too long for its classes", () => {
    const made = recorder();
    for (const duration of [0, 1e-9, 1e12]) made.time("b", duration);
    const [stats] = made.latencies();
    expect(stats).toMatchObject({ sampledOneIn: 8, count: 3, mostMs: 1e12, p99Ms: 1e12 });
    expect(stats?.classes).toEqual([
      { upToMs: 2 ** -10, count: 2 },
      { upToMs: Number.POSITIVE_INFINITY, count: 1 },
    ]);
  });

  it("covers a whole life in a fixed number of samples, evenly", () => {
    const clock = manualClock({ startMs: 0 });
    const made = recorder(clock);
    made.count("nobody looks yet", 1);
    const zeros = { usedBytes: 0, grantedBytes: 0, hotBytes: 0, coldBytes: 0 };
    const counts = { joins: 0, misses: 0, rawBytesIn: 0, rawBytesOut: 0 };
    made.watch(() => ({ ...zeros, ...counts, hits: clock.monotonicMs() }));
    const LIFE_MS = 3_600_000;
    for (; clock.monotonicMs() <= LIFE_MS; clock.advance(37)) made.count("tick", 1);
    const { samples, capacity, intervalMs } = made.series();
    expect(samples.length).toBeLessThanOrEqual(capacity);
    expect(samples.length).toBeGreaterThanOrEqual(capacity / 2);
    expect(samples[0]?.timeMs).toBe(0);
    expect(samples.at(-1)?.timeMs).toBeGreaterThan(LIFE_MS - 2 * intervalMs);
    for (const [index, { timeMs, hits }] of samples.entries()) {
      expect(hits).toBe(timeMs);
      const before = samples[index - 1]?.timeMs ?? timeMs - intervalMs;
      expect(timeMs - before).toBeGreaterThanOrEqual(intervalMs / 2);
      expect(timeMs - before).toBeLessThan(2 * intervalMs);
    }
  });

  it("tells the next sink everything", () => {
    const told: unknown[] = [];
    const next = {
      count: (...each: unknown[]) => told.push(each),
      time: (...each: unknown[]) => told.push(each),
    };
    const made = new Recorder({ clock: manualClock(), next, sampledOneIn: new Map() });
    made.count("a", 2);
    made.time("b", 3);
    expect(told).toEqual([
      ["a", 2],
      ["b", 3],
    ]);
  });
});
