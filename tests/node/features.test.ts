// Every optimisation of a memory: each can be switched off alone, tells what it cost and gave, and is
// switched off by itself when it is bad.
import { describe, expect, it } from "vitest";
import type { LifetimePredictor } from "../../src/lifetime/lifetime-predictor.js";
import type { MemoryEvent } from "../../src/memory/events.js";
import type { FeatureOptions } from "../../src/memory/feature-options.js";
import { FEATURE_NAMES } from "../../src/memory/feature-options.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { Predictor } from "../../src/predictor/predictor.js";
import type { FeatureName } from "../../src/stats/feature.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import {
  type ManualClock,
  manualClock,
  memoryTier,
  statsProblems,
} from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { closeMemory, openMemory } from "../support/oracle.js";

const KIB = 1024;
const OPERATIONS = 1000;

const featureOf = (memory: TensorMemory, name: FeatureName) => {
  const found = memory.stats().features.find((each) => each.name === name);
  expect(found, name).toBeDefined();
  return found as NonNullable<typeof found>;
};

/** Tells of the features that were switched. */
function switchesOf(memory: TensorMemory) {
  const switches: Extract<MemoryEvent, { type: "feature" }>[] = [];
  const events = memory.events();
  const follow = async () => {
    for await (const event of events) if (event.type === "feature") switches.push(event);
  };
  follow().catch((cause: unknown) => {
    throw new Error("the events broke off", { cause });
  });
  return switches;
}

async function coldTensors(memory: TensorMemory, count: number, byteLength: number) {
  for (let index = 0; index < count; index++) {
    await memory.reserve({ kind: "KV_CACHE", bytes: byteLength });
    allocateFilled(memory, `t${index}`, byteLength, index);
    await memory.swapOut(`t${index}`);
  }
}

async function use(memory: TensorMemory, id: string) {
  (await memory.acquire(id, { access: "read", stream: "s" }))?.[Symbol.dispose]();
}

/** Guesses as many ids as it may, and never one that is wanted next. */
function badPredictor(count: number): Predictor {
  return {
    name: "bad",
    observe: (_stream, id) => {
      const at = Number(id.slice(1));
      return Array.from({ length: 8 }, (_, index) => `t${(at + count / 2 + index) % count}`);
    },
  };
}

const COUNT = 256;
/** Long enough to tell how fast the tier is. */
const BYTES = 96 * KIB;

async function withPredictor(features: FeatureOptions, predictor: Predictor) {
  const budgets = { ram: "16MiB" };
  const seams = { tier: memoryTier(), predictor };
  const memory = await openMemory({ budgets, features, seams });
  await coldTensors(memory, COUNT, BYTES);
  return { memory, switches: switchesOf(memory) };
}

/** Each read takes two milliseconds of that clock. */
function slowTier(clock: ManualClock): Tier {
  const tier = memoryTier();
  return {
    ...tier,
    openRead: async (key) => {
      const reader = await tier.openRead(key);
      if (reader === null) return null;
      const read: typeof reader.read = async (...wanted) => {
        clock.advance(2);
        return reader.read(...wanted);
      };
      return { ...reader, read };
    },
  };
}

describe("a bad feature", () => {
  it("that was planted is switched off within 1,000 operations, and rests", async () => {
    const { memory, switches } = await withPredictor({}, badPredictor(COUNT));
    let offAt = 0;
    for (let operation = 1; operation <= OPERATIONS && offAt === 0; operation++) {
      await use(memory, `t${operation % COUNT}`);
      if (!featureOf(memory, "prefetch").isOn) offAt = operation;
    }
    expect(offAt).toBeGreaterThan(0);
    expect(offAt).toBeLessThan(OPERATIONS);
    const { cost, gain, governedBy, switchedOffCount } = featureOf(memory, "prefetch");
    expect({ governedBy, switchedOffCount }).toEqual({
      governedBy: "governor",
      switchedOffCount: 1,
    });
    expect(cost.count).toBeGreaterThanOrEqual(32);
    expect(cost.ns).toBeGreaterThan(1.25 * gain.ns);
    expect(cost.bytes).toBe(cost.count * BYTES);
    const { issuedCount } = memory.stats().prefetch;
    for (let operation = 0; operation < 100; operation++) await use(memory, `t${operation}`);
    expect(memory.stats().prefetch.issuedCount).toBe(issuedCount);
    expect(switches).toMatchObject([{ type: "feature", feature: "prefetch", isOn: false }]);
    for (let index = 0; index < COUNT; index += 17) {
      await expectFilled(memory, `t${index}`, BYTES, index);
    }
  });

  it("is kept by whoever says so, and costs then what it costs", async () => {
    const { memory, switches } = await withPredictor({ prefetch: true }, badPredictor(COUNT));
    for (let operation = 0; operation < 300; operation++)
      await use(memory, `t${operation % COUNT}`);
    const { isOn, governedBy, cost } = featureOf(memory, "prefetch");
    expect({ isOn, governedBy }).toEqual({ isOn: true, governedBy: "option" });
    expect(cost.count).toBeGreaterThan(100);
    expect(switches).toEqual([]);
  });

  it("of the placement costs copies that nobody reads, and is switched off", async () => {
    // Whatever was read is taken for something that returns at once.
    const eager = { name: "eager", observe: () => {}, expectedReuseMs: () => 0 };
    const clock = manualClock({ sleeping: "skip" });
    const memory = await openMemory({
      budgets: { ram: "10MiB", warm: "3MiB" },
      codecs: { default: "raw" },
      seams: { tier: slowTier(clock), tierPredictor: eager, clock },
    });
    await coldTensors(memory, COUNT, BYTES);
    const switches = switchesOf(memory);
    let offAt = 0;
    for (let operation = 1; operation <= OPERATIONS && offAt === 0; operation++) {
      // In a ring that is longer than RAM and the warm tier: what went up is gone before it is wanted.
      await use(memory, `t${operation % COUNT}`);
      if (!featureOf(memory, "placement").isOn) offAt = operation;
    }
    expect(featureOf(memory, "placement")).toMatchObject({ isOn: false, switchedOffCount: 1 });
    expect(offAt).toBeLessThan(OPERATIONS);
    expect(switches).toMatchObject([{ feature: "placement", isOn: false }]);
  });
});

it("a collector whose predictor takes everything for over is switched off", async () => {
  const lifetimePredictor: LifetimePredictor = {
    name: "rash",
    expectedMs: () => 0,
    isOver: () => true,
    observe: () => {},
    endCensus: () => {},
  };
  const seams = { tier: memoryTier(), lifetimePredictor };
  const memory = await openMemory({ budgets: { ram: "16MiB" }, seams });
  const switches = switchesOf(memory);
  for (let index = 0; index < COUNT; index++) {
    await memory.reserve({ kind: "KV_CACHE", bytes: BYTES });
    memory.allocate({ kind: "KV_CACHE", id: `t${index}`, byteLength: BYTES, site: "chat" });
  }
  let offAt = 0;
  for (let operation = 1; operation <= OPERATIONS && offAt === 0; operation++) {
    await use(memory, `t${operation % COUNT}`);
    if (!featureOf(memory, "collector").isOn) offAt = operation;
  }
  expect(offAt).toBeGreaterThan(0);
  expect(featureOf(memory, "collector").cost.count).toBeGreaterThanOrEqual(32);
  expect(switches).toMatchObject([{ feature: "collector", isOn: false }]);
  const { lookCount } = memory.stats().lifetimes ?? { lookCount: 0 };
  expect(lookCount).toBeGreaterThan(0);
  for (let operation = 0; operation < 100; operation++) await use(memory, `t${operation}`);
  expect(memory.stats().lifetimes?.lookCount).toBe(lookCount);
});

it("a good feature stays on, and tells what it saved", async () => {
  // Right each time.
  const next = (id: string) => `t${(Number(id.slice(1)) + 1) % COUNT}`;
  const oracle: Predictor = { name: "good", observe: (_stream, id) => [next(id)] };
  const { memory, switches } = await withPredictor({}, oracle);
  for (let operation = 0; operation < OPERATIONS; operation++) {
    await use(memory, `t${operation % COUNT}`);
    for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  const { isOn, gain } = featureOf(memory, "prefetch");
  expect(isOn).toBe(true);
  expect(gain.count).toBeGreaterThan(OPERATIONS / 10);
  expect(gain.ns).toBeGreaterThan(0);
  expect(switches).toEqual([]);
});

/** A tier that stays open, so that another memory can have it. */
function keptTier(): Tier {
  return { ...memoryTier(), close: async () => {} };
}

/** Normal-like values with empty low bytes: planes make them shorter. */
function planeLike(count: number): Float32Array {
  const values = Float32Array.from({ length: count }, (_, index) => Math.sin(index * 1.7) * 3);
  const words = new Uint32Array(values.buffer);
  words.forEach((word, index) => {
    words[index] = word & 0xffff0000;
  });
  return values;
}

const VALUES = planeLike(64 * 1024);

async function swapOutValues(memory: TensorMemory, id: string) {
  const options = { kind: "TEXT_EMBEDDINGS", id, shape: [1024, 64], dtype: "f32" } as const;
  const tensor = memory.allocate(options);
  const pin = tensor.pin();
  pin.view.set(VALUES);
  pin[Symbol.dispose]();
  expect(await memory.save(id)).toBe("stored");
  await memory.swapOut(id);
}

async function expectValues(memory: TensorMemory, id: string) {
  const lease = await memory.acquire<"f32">(id, { access: "read" });
  expect(lease?.view).toEqual(VALUES);
  lease?.[Symbol.dispose]();
}

describe("switched off by itself alone", () => {
  const open = (features: FeatureOptions, more: TensorMemoryOptions = {}) =>
    openMemory({
      budgets: { ram: "32MiB" },
      codecs: { default: "lossless" },
      ...more,
      features,
      seams: { tier: memoryTier(), ...more.seams },
    });

  it.each(FEATURE_NAMES)(
    "%s: nothing else changes, and it has no part in anything",
    async (name) => {
      const more =
        name === "placement" || name === "transcoding"
          ? { budgets: { ram: "32MiB", warm: "4MiB" } }
          : {};
      const codecs = { default: "lossless", colder: "smaller" } as const;
      const memory = await open({ [name]: false }, { ...more, codecs });
      for (let index = 0; index < 4; index++) await swapOutValues(memory, `v${index}`);
      for (let index = 0; index < 4; index++) await expectValues(memory, `v${index}`);
      const { features, policy, disposables } = memory.stats();
      const own = features.find((feature) => feature.name === name);
      if (name !== "transcoding") {
        expect(own).toMatchObject({ isOn: false, governedBy: "option", cost: { count: 0, ns: 0 } });
      } else expect(own).toBeUndefined();
      for (const other of features) {
        if (other.name !== name && other.name !== "learntPolicy")
          expect(other.isOn, other.name).toBe(true);
      }
      expect(policy).toBe(name === "learntPolicy" ? "lru" : "learnt");
      expect(disposables.policy).toBe(name === "admission" ? "admit-all" : "admit-reused");
    },
  );

  it("a codec gives way to another, and what it has written can still be read", async () => {
    const tier = keptTier();
    const first = await open({}, { seams: { tier } });
    await swapOutValues(first, "v");
    expect(first.stats().codecs.map(({ codec }) => codec)).not.toContain("raw");
    expect(featureOf(first, "coding").gain.bytes).toBeGreaterThan(0);
    await closeMemory(first);
    for (const features of [{ "codec/plane": false, "codec/narrow": false }, { coding: false }]) {
      const memory = await open(features, { seams: { tier } });
      await expectValues(memory, "v");
      await swapOutValues(memory, "w");
      await expectValues(memory, "w");
      expect(memory.stats().codecs.find(({ codec }) => codec === "raw")?.tensorCount).toBe(1);
      await memory.delete("w");
      await closeMemory(memory);
    }
  });

  it("compaction sets no timer", async () => {
    const memory = await openMemory({ features: { compaction: false } });
    const tensors = Array.from({ length: 100 }, () =>
      memory.allocate({ kind: "ACTIVATIONS", byteLength: 100 * KIB }),
    );
    for (const tensor of tensors) tensor.free();
    expect(featureOf(memory, "compaction")).toMatchObject({ isOn: false, governedBy: "option" });
    expect(memory.stats().pools[0]?.compaction.planCount).toBe(0);
  });

  it.each([[{ everything: false }], [{ prefetch: "on" }], [7]])("refuses %j", async (features) => {
    await expect(openMemory({ features: features as never })).rejects.toMatchObject({
      code: "bad-option",
    });
  });
});

it("statistics are counters alone for whoever wants them so", async () => {
  const memory = await openMemory({ statistics: "counters", seams: { tier: memoryTier() } });
  await coldTensors(memory, 4, BYTES);
  for (let index = 0; index < 4; index++) await use(memory, `t${index}`);
  const stats = memory.stats();
  expect(stats).toMatchObject({ latencies: [], series: null, lookups: { misses: 4 } });
  expect(statsProblems(stats)).toEqual([]);
  await expect(openMemory({ statistics: "some" as never })).rejects.toMatchObject({
    code: "bad-option",
  });
});
