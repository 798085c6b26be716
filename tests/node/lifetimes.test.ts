// Lifetimes: what is learnt of them, and what is given up because of it.
import { describe, expect, it } from "vitest";
import { learntLifetime } from "../../src/lifetime/learnt-lifetime.js";
import type { LifetimeSample } from "../../src/lifetime/lifetime-predictor.js";
import { toldLifetime } from "../../src/lifetime/told-lifetime.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import { seededRandom } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { type ManualClock, manualClock, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { openMemory, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;
const SITE: LifetimeSample = {
  kind: "ACTIVATIONS",
  bytes: 4096,
  site: "layer",
  toldMs: Number.POSITIVE_INFINITY,
};

let lastMs = 0;

/** Of a tensor that is allocated when the one before has ended. */
function age(ageMs: number, idleMs: number, useCount = 1) {
  lastMs += ageMs + 1;
  return { ageMs, idleMs, useCount, nowMs: lastMs };
}

/** Lets what has begun in the background end. */
async function finish(memory: TensorMemory) {
  for (let turn = 0; turn < 1000; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    const { lifetimes, background } = memory.stats();
    if (lifetimes?.isRunning !== true && !background.isRunning) break;
  }
  return memory.stats();
}

function open(options: TensorMemoryOptions = {}, clock: ManualClock = manualClock()) {
  return openMemory({ ...options, seams: { tier: memoryTier(), clock, ...options.seams } });
}

/** Allocates, writes and frees tensors of a site, each used once more after a millisecond. */
function teachSite(memory: TensorMemory, clock: ManualClock, site: string, count = 400): void {
  for (let index = 0; index < count; index++) {
    const id = `${site}/taught/${index}`;
    const tensor = memory.allocate({ kind: "ACTIVATIONS", id, byteLength: 64, site });
    tensor.pin()[Symbol.dispose]();
    clock.advance(1);
    tensor.pin({ access: "read" })[Symbol.dispose]();
    clock.advance(1);
    tensor.free();
  }
}

describe("the told lifetime", () => {
  it("is over at its end, or when idle for 80 % of it", () => {
    const sample = { ...SITE, toldMs: 100 };
    expect(toldLifetime.isOver(sample, age(99, 79))).toBe(false);
    expect(toldLifetime.isOver(sample, age(99, 80))).toBe(true);
    expect(toldLifetime.isOver(sample, age(100, 0))).toBe(true);
    expect(toldLifetime.isOver(SITE, age(1e12, 1e12))).toBe(false);
  });
});

describe("the learnt lifetime", () => {
  it("waits as long as tensors of the site were used again", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 500; round++) {
      predictor.observe(SITE, age(50, 50, 0), "used");
      predictor.observe(SITE, age(150, 100, 1), "used");
      predictor.observe(SITE, age(160, 10, 2), "freed");
    }
    expect(predictor.isOver(SITE, age(90, 90, 1))).toBe(false);
    // None has ever waited longer: that says nothing.
    expect(predictor.isOver(SITE, age(150, 150, 1))).toBe(false);
    // After its last use nobody has ever waited for one.
    expect(predictor.isOver(SITE, age(160, 1, 2))).toBe(true);
    expect(predictor.expectedMs(SITE)).toBeGreaterThan(110);
    expect(predictor.expectedMs(SITE)).toBeLessThan(220);
  });

  it("counts those that still live: it does not take the short-lived for all", () => {
    const naive = learntLifetime({ regretShare: 0.01 });
    const censored = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 100; round++) {
      for (const predictor of [naive, censored]) predictor.observe(SITE, age(10, 1), "freed");
    }
    for (let round = 0; round < 300; round++) censored.observe(SITE, age(5000, 1), "alive");
    censored.endCensus();
    expect(naive.expectedMs(SITE)).toBeLessThan(20);
    expect(censored.expectedMs(SITE)).toBe(Number.POSITIVE_INFINITY);
  });

  it("counts those that wait: a few that were used late do not make all wait", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 200; round++) predictor.observe(SITE, age(10, 2), "freed");
    predictor.observe(SITE, age(900, 900), "used");
    expect(predictor.isOver(SITE, age(1200, 1000))).toBe(false);
    for (let round = 0; round < 200; round++) predictor.observe(SITE, age(2000, 1900), "alive");
    predictor.endCensus();
    expect(predictor.isOver(SITE, age(1200, 1000))).toBe(true);
  });

  it("counts those that wait together as one", () => {
    const alone = learntLifetime({ regretShare: 0.01 });
    const together = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 60; round++) alone.observe(SITE, age(10, 5), "freed");
    for (let round = 0; round < 10; round++) {
      const last = age(10, 5);
      for (let layer = 0; layer < 60; layer++) together.observe(SITE, last, "freed");
    }
    expect(alone.isOver(SITE, age(10, 6))).toBe(true);
    expect(together.isOver(SITE, age(10, 6))).toBe(false);
    for (let round = 0; round < 100; round++) together.observe(SITE, age(10, 5), "freed");
    expect(together.isOver(SITE, age(10, 6))).toBe(true);
  });

  it("does not take those that are freed soon for those that last", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 2000; round++) predictor.observe(SITE, age(2, 1), "freed");
    // Few, but what lasts is used.
    for (let round = 0; round < 4; round++) predictor.observe(SITE, age(900, 900), "used");
    expect(predictor.isOver(SITE, age(100, 100))).toBe(false);
  });

  it("takes back at once what a late use disproves", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    for (let round = 0; round < 2000; round++) predictor.observe(SITE, age(2, 1), "freed");
    expect(predictor.isOver(SITE, age(100, 100))).toBe(true);
    predictor.observe(SITE, age(500, 500), "used");
    expect(predictor.isOver(SITE, age(100, 100))).toBe(false);
  });

  it("begins with what was told, and ends with what was seen", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    const told = { ...SITE, toldMs: 100 };
    expect(predictor.expectedMs(told)).toBe(100);
    expect(predictor.isOver(told, age(90, 85))).toBe(true);
    for (let round = 0; round < 100; round++) {
      predictor.observe(told, age(400, 400, 1), "used");
      predictor.observe(told, age(800, 5, 2), "freed");
    }
    expect(predictor.isOver(told, age(90, 85))).toBe(false);
    expect(predictor.expectedMs(told)).toBeGreaterThan(500);
  });

  it("forgets what was long ago", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    const live = (idleMs: number) => {
      predictor.observe(SITE, age(idleMs, idleMs, 1), "used");
      predictor.observe(SITE, age(4 * idleMs, 4 * idleMs, 1), "freed");
    };
    for (let round = 0; round < 20_000; round++) live(1000);
    expect(predictor.isOver(SITE, age(3, 3, 1))).toBe(false);
    for (let round = 0; round < 100_000; round++) live(1);
    expect(predictor.isOver(SITE, age(3, 3, 1))).toBe(true);
    expect(predictor.expectedMs(SITE)).toBeLessThan(10);
  });

  it("keeps no more sites than it may", () => {
    const predictor = learntLifetime({ regretShare: 0.01 });
    const toldMs = 7;
    for (let site = 0; site < 2000; site++) {
      const sample = { ...SITE, site: `site ${site}`, toldMs };
      for (let round = 0; round < 40; round++) predictor.observe(sample, age(1000, 1), "freed");
    }
    expect(predictor.expectedMs({ ...SITE, site: "site 0", toldMs })).toBe(7);
    expect(predictor.expectedMs({ ...SITE, site: "site 1999", toldMs })).toBeGreaterThan(500);
  });

  it("refuses a share out of range", () => {
    for (const regretShare of [0, -1, 0.51, Number.NaN, "1" as never]) {
      expect(() => learntLifetime({ regretShare })).toThrowError(
        expect.objectContaining({ code: "bad-option" }),
      );
    }
  });
});

describe("the collector", () => {
  it("gives up what its owner forgot, before anything that is used", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await open({}, clock);
    teachSite(memory, clock, "layer");
    for (let index = 0; index < 24; index++) {
      const id = `forgotten/${index}`;
      const options = { kind: "ACTIVATIONS", id, byteLength: MIB / 4, site: "layer" } as const;
      const tensor = memory.allocate(options);
      tensor.pin()[Symbol.dispose]();
      clock.advance(1);
      tensor.pin({ access: "read" })[Symbol.dispose]();
      clock.advance(1);
    }
    // Nobody has told anything of these, and they are the oldest by their last use.
    for (let index = 0; index < 200; index++) {
      allocateFilled(memory, `kept/${index}`, MIB / 32, index);
      clock.advance(1);
      await finish(memory);
    }
    const { lifetimes, transfers } = memory.stats();
    expect(lifetimes?.collectedCount).toBeGreaterThan(8);
    expect(lifetimes?.regretCount).toBe(0);
    for (let index = 0; index < 200; index++) {
      expect(memory.tensor(`kept/${index}`)?.isResident, `kept/${index}`).toBe(true);
    }
    expect(transfers.swapOutCount + transfers.cleanEvictionCount).toBe(lifetimes?.collectedCount);
    expect(lifetimes?.sites).toMatchObject([{ kind: "ACTIVATIONS", site: "layer" }]);
  });

  it("looks at nothing while the heap is idle or half empty", async () => {
    const clock = manualClock();
    const memory = await open({ lifetimes: { rule: "told" } }, clock);
    for (let index = 0; index < 3000; index++) {
      const options = {
        kind: "ACTIVATIONS",
        id: `t${index}`,
        byteLength: 64,
        lifetimeMs: 1,
      } as const;
      memory.allocate(options);
      clock.advance(10);
    }
    expect((await finish(memory)).lifetimes).toMatchObject({
      registeredCount: 3000,
      collectedCount: 0,
      lookCount: 0,
    });
    expect(clock.deferredCount).toBeLessThanOrEqual(1);
  });

  it("looks the more often the fuller the heap is", async () => {
    const looksAt = async (fill: number) => {
      const memory = await open({ watermarks: { low: 0.5, high: 0.9 } });
      const { highBytes } = memory.stats().background;
      const byteLength = MIB / 2;
      for (let bytes = byteLength; bytes < (fill / 0.9) * highBytes; bytes += byteLength) {
        memory.allocate({ kind: "ACTIVATIONS", id: `bulk/${bytes}`, byteLength });
      }
      for (let index = 0; index < 2000; index++) {
        const options = {
          kind: "ACTIVATIONS",
          id: `t${index}`,
          byteLength: 64,
          site: "s",
        } as const;
        memory.allocate(options);
      }
      return memory.stats().lifetimes?.lookCount ?? 0;
    };
    const [idle, half, full] = [await looksAt(0.4), await looksAt(0.6), await looksAt(0.85)];
    expect(idle).toBe(0);
    expect(half).toBeGreaterThan(0);
    expect(full).toBeGreaterThan(2 * half);
  });

  it("loses nothing that is wanted again, and counts it", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await open({ lifetimes: { rule: "told" } }, clock);
    for (let index = 0; index < 12; index++) {
      const tensor = memory.allocate({
        ...{ kind: "ACTIVATIONS", id: `t${index}`, byteLength: MIB / 2, lifetimeMs: 5 },
      } as const);
      const pin = tensor.pin();
      pin.view.forEach((_byte, at, bytes) => {
        bytes[at] = (at * 7 + index) & 0xff;
      });
      pin[Symbol.dispose]();
    }
    clock.advance(100);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 8 });
    const collectedCount = (await finish(memory)).lifetimes?.collectedCount ?? 0;
    expect(collectedCount).toBeGreaterThan(0);
    for (let index = 0; index < 12; index++) {
      await expectFilled(memory, `t${index}`, MIB / 2, index);
    }
    const { lifetimes, disposables } = memory.stats();
    expect(lifetimes?.regretCount).toBeGreaterThanOrEqual(collectedCount);
    expect(disposables.droppedCount).toBe(0);
  });

  it("passes over what is pinned, anonymous or shares its bytes", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await open({ lifetimes: { rule: "told" } }, clock);
    const options = { kind: "ACTIVATIONS", byteLength: MIB, lifetimeMs: 1 } as const;
    const pin = memory.allocate({ ...options, id: "pinned" }).pin();
    const anonymous = memory.allocate({ kind: "ACTIVATIONS", byteLength: MIB, site: "s" });
    memory.allocate({ ...options, id: "idle" });
    clock.advance(100);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 9 });
    expect(memory.tensor("idle")?.isResident).toBe(false);
    expect(anonymous.isResident).toBe(true);
    expect(memory.tensor("pinned")?.isResident).toBe(true);
    pin[Symbol.dispose]();
    expect(memory.stats().lifetimes).toMatchObject({ registeredCount: 2, collectedCount: 1 });
  });

  it("gives up what is over of another kind before what is used of the kind that needs room", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await open({ lifetimes: { rule: "told" } }, clock);
    for (let index = 0; index < 4; index++) {
      memory.allocate({ kind: "KV_CACHE", id: `kept/${index}`, byteLength: MIB });
    }
    for (let index = 0; index < 6; index++) {
      const options = { kind: "ACTIVATIONS", byteLength: MIB, lifetimeMs: 1 } as const;
      memory.allocate({ ...options, id: `over/${index}` });
    }
    clock.advance(100);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 4 });
    const { lifetimes } = await finish(memory);
    expect(lifetimes?.collectedCount).toBeGreaterThan(0);
    for (let index = 0; index < 4; index++) {
      expect(memory.tensor(`kept/${index}`)?.isResident, `kept/${index}`).toBe(true);
    }
  });

  it("tells after how many frees of a site it collected the first, and looks at few for a victim", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await open({}, clock);
    teachSite(memory, clock, "layer", 200);
    for (let index = 0; index < 400; index++) {
      memory.allocate({ kind: "ACTIVATIONS", id: `small/${index}`, byteLength: 64, site: "new" });
    }
    for (let index = 0; index < 28; index++) {
      const bulk = { kind: "ACTIVATIONS", byteLength: MIB / 2 } as const;
      const { lookCount = 0 } = memory.stats().lifetimes ?? {};
      await memory.reserve({ kind: bulk.kind, bytes: bulk.byteLength });
      memory.allocate({ ...bulk, id: `bulk/${index}` });
      const looks = (memory.stats().lifetimes?.lookCount ?? 0) - lookCount;
      expect(looks).toBeLessThanOrEqual(6 * 32);
      clock.advance(1);
    }
    expect(memory.stats().lifetimes?.sites).toMatchObject([
      { site: "layer", freedCount: 200, freedBeforeCount: null },
      { site: "new", freedCount: 0 },
    ]);
    for (let index = 0; index < 16; index++) {
      const id = `forgotten/${index}`;
      const options = { kind: "ACTIVATIONS", id, byteLength: MIB / 2, site: "layer" } as const;
      await memory.reserve({ kind: options.kind, bytes: MIB / 2 });
      const tensor = memory.allocate(options);
      tensor.pin()[Symbol.dispose]();
      clock.advance(1);
      tensor.pin({ access: "read" })[Symbol.dispose]();
      clock.advance(10);
    }
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 4 });
    const { lifetimes } = await finish(memory);
    expect(lifetimes?.sites[0]).toMatchObject({ site: "layer", freedBeforeCount: 200 });
  });

  it("drops what is disposable where there is no tier, and regrets it when it is wanted", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await openMemory({ lifetimes: { rule: "told" }, seams: { clock } });
    const bulk = { kind: "ACTIVATIONS", byteLength: MIB / 8, lifetimeMs: 1 } as const;
    for (let index = 0; index < 40; index++) {
      memory.allocate({ ...bulk, id: `d${index}`, disposable: true });
      memory.allocate({ ...bulk, id: `k${index}` });
      clock.advance(10);
      await finish(memory);
    }
    for (let index = 0; index < 600; index++) {
      const options = { kind: "ACTIVATIONS", byteLength: 16384, id: `x${index}` } as const;
      if (memory.tryAllocate(options) === null) break;
      await finish(memory);
    }
    const { lifetimes } = memory.stats();
    expect(lifetimes?.droppedCount).toBeGreaterThan(0);
    expect(lifetimes?.collectedCount).toBe(lifetimes?.droppedCount);
    for (let index = 0; index < 40; index++) {
      expect(memory.tensor(`k${index}`)?.isResident).toBe(true);
    }
    for (let index = 0; index < 40; index++) {
      (await memory.acquire(`d${index}`))?.[Symbol.dispose]();
    }
    expect(memory.stats().lifetimes?.regretCount).toBe(lifetimes?.droppedCount);
  });

  it("can be switched off, and refuses options that it does not know", async () => {
    const memory = await open({ lifetimes: false });
    memory.allocate({ kind: "ACTIVATIONS", id: "a", byteLength: 64, site: "s", lifetimeMs: 1 });
    expect(memory.stats().lifetimes).toBeNull();
    expect(memory.report()).toContain("collected");
    for (const lifetimes of [{ rule: "best" }, { regretShare: 2 }, { every: 100 }, 7] as never[]) {
      await expect(open({ lifetimes })).rejects.toMatchObject({ code: "bad-option" });
    }
    const allocate = (options: object) =>
      memory.allocate({ kind: "ACTIVATIONS", byteLength: 64, ...options } as never);
    for (const options of [
      { lifetimeMs: 5 },
      { id: "b", lifetimeMs: 0 },
      { id: "b", lifetimeMs: Number.NaN },
      { id: "b", site: 7 },
    ]) {
      expect(() => allocate(options)).toThrowError(expect.objectContaining({ code: "bad-option" }));
    }
    expect(memory.tensor("b")).toBeNull();
  });

  it("calls a site of a scope by the scope's name", async () => {
    const memory = await open();
    {
      using scope = memory.scope("prefill");
      scope.allocate({ kind: "ACTIVATIONS", id: "a", byteLength: 64 });
      scope.allocate({ kind: "ACTIVATIONS", id: "b", byteLength: 64, site: "mask" });
    }
    const sites = memory.stats().lifetimes?.sites.map(({ site }) => site);
    expect(sites?.sort()).toEqual(["mask", "prefill"]);
  });
});

describe("any history", () => {
  it("never costs a tensor that is held, whatever was predicted", () =>
    withSeed("lifetimes", async (seed) => {
      for (let round = 0; round < 3; round++) await runModel(seed + round);
    }));
});

/** Random tensors with random, mostly wrong, lifetimes; what is held keeps its bytes. */
async function runModel(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const below = (limit: number) => random.uint32() % limit;
  const clock = manualClock({ sleeping: "skip" });
  const rule = below(3) === 0 ? "told" : "learnt";
  const options = { lifetimes: { rule, regretShare: 0.4 }, watermarks: { high: 0.5 } } as const;
  const memory = await open({ ...options, budgets: { ram: "6MiB" } }, clock);
  const held = new Map<
    string,
    { readonly byteLength: number; fill: number; isDisposable: boolean }
  >();
  let nextId = 0;
  let collectedCount = 0;
  for (let step = 0; step < 200; step++) {
    clock.advance(below(8) === 0 ? below(1000) : below(4));
    const choice = below(10);
    const ids = [...held.keys()];
    const id = ids[below(Math.max(1, ids.length))];
    if (choice < 5 || id === undefined) {
      const fresh = `t${nextId++}`;
      const byteLength = 1 + below(MIB / 8);
      await memory.reserve({ kind: "ACTIVATIONS", bytes: byteLength });
      const isDisposable = below(4) === 0;
      const tensor = memory.allocate({
        ...{ kind: "ACTIVATIONS", id: fresh, byteLength, site: `site ${below(3)}` },
        disposable: isDisposable,
        lifetimeMs: 1 + below(50),
      } as const);
      const fill = below(256);
      {
        using pin = tensor.pin();
        pin.view.fill(fill);
      }
      held.set(fresh, { byteLength, fill, isDisposable });
    } else if (choice < 8) {
      const known = held.get(id);
      using lease = await memory.acquire(id, { access: choice === 5 ? "write" : "read" });
      if (lease === null) {
        // Only what its owner can make again.
        expect(known?.isDisposable, `${id} is lost`).toBe(true);
        memory.free(id);
        held.delete(id);
        continue;
      }
      expect(
        lease.bytes.every((byte) => byte === known?.fill),
        `bytes of ${id}`,
      ).toBe(true);
      if (choice !== 5 || known === undefined) continue;
      known.fill = below(256);
      lease.bytes.fill(known.fill);
    } else if (choice === 8) {
      memory.free(id);
      held.delete(id);
    } else await finish(memory);
    collectedCount = memory.stats().lifetimes?.collectedCount ?? 0;
  }
  await finish(memory);
  expect(collectedCount, "nothing was collected").toBeGreaterThan(0);
  for (const [id, { isDisposable, fill }] of held) {
    using lease = await memory.acquire(id, { access: "read" });
    if (lease === null) expect(isDisposable, `${id} is lost`).toBe(true);
    else
      expect(
        lease.bytes.every((byte) => byte === fill),
        `bytes of ${id}`,
      ).toBe(true);
  }
}
