// What is brought in ahead of need: what it counts, what it brings, and what it never costs.
import { describe, expect, it } from "vitest";
import { schedulePredictor } from "../../src/policies.js";
import { seededRandom } from "../../src/random.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled, onMemory } from "../support/filled.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

const KIB = 1024;
const MIB = 2 ** 20;

async function coldTensors(memory: TensorMemory, count: number, byteLength: number) {
  const ids = Array.from({ length: count }, (_, index) => `t${index}`);
  for (const [index, id] of ids.entries()) {
    allocateFilled(memory, id, byteLength, index);
    await memory.swapOut(id);
  }
  return ids;
}

/** One access, after which what was guessed has arrived. */
async function use(memory: TensorMemory, id: string, stream?: string) {
  const lease = await memory.acquire(id, { access: "read", ...(stream && { stream }) });
  lease?.[Symbol.dispose]();
  await memory.prefetch([]);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A stream that passes over the ids once, after which all are cold. */
async function teach(memory: TensorMemory, ids: readonly string[], stream: string) {
  for (const id of ids) await use(memory, id, stream);
  for (const id of ids) await memory.swapOut(id);
}

function checkCounters(memory: TensorMemory) {
  const { issuedCount, usedCount, wastedCount, lateCount, outstandingCount } =
    memory.stats().prefetch;
  expect(usedCount + wastedCount + lateCount + outstandingCount).toBe(issuedCount);
  return memory.stats().prefetch;
}

describe("guesses", () => {
  it("bring in what followed in a stream the last time, and are counted as used", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 6, 4 * KIB);
    await teach(memory, ids, "first");
    for (const id of ids) await use(memory, id, "second");
    const { usedCount, wastedCount } = checkCounters(memory);
    expect(usedCount).toBe(5);
    expect(wastedCount).toBe(0);
    expect(memory.stats().lookups.misses).toBe(6 + 1);
    for (const [index, id] of ids.entries()) await expectFilled(memory, id, 4 * KIB, index);
  });

  it("are not made without a stream", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 6, 4 * KIB);
    for (let round = 0; round < 3; round++) {
      for (const id of ids) await use(memory, id);
      for (const id of ids) await memory.swapOut(id);
    }
    expect(checkCounters(memory).issuedCount).toBe(0);
  });

  it("never evict what was used, and are refused instead", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 6, MIB);
    await teach(memory, ids, "s");
    const live: string[] = [];
    while (memory.tryAllocate({ kind: "KV_CACHE", byteLength: MIB, id: `live${live.length}` })) {
      live.push(`live${live.length}`);
    }
    memory.free(live.pop() as string);
    const { swapOutCount, cleanEvictionCount } = memory.stats().transfers;
    await use(memory, ids[0] as string, "s");
    expect(checkCounters(memory)).toMatchObject({ issuedCount: 0 });
    expect(memory.stats().prefetch.refusedCount).toBeGreaterThan(0);
    expect(memory.stats().transfers).toMatchObject({ swapOutCount, cleanEvictionCount });
    expect(live.every((id) => memory.tensor(id)?.isResident)).toBe(true);
  });

  it("leave before anything that was used when room is needed", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 6, 256 * KIB);
    await teach(memory, ids, "s");
    const old = allocateFilled(memory, "old", 256 * KIB, 9);
    await memory.save("old");
    await use(memory, ids[0] as string, "s");
    expect(checkCounters(memory).outstandingCount).toBeGreaterThan(1);
    let count = 0;
    const fill = () => memory.tryAllocate({ kind: "KV_CACHE", byteLength: 256 * KIB });
    const scope: { free(): void }[] = [];
    while (checkCounters(memory).outstandingCount > 0 && count++ < 100) {
      const tensor = fill();
      if (tensor === null) break;
      scope.push(tensor);
      expect(old.isResident).toBe(true);
    }
    expect(checkCounters(memory)).toMatchObject({ outstandingCount: 0 });
    expect(checkCounters(memory).wastedCount).toBeGreaterThan(1);
    for (const tensor of scope) tensor.free();
  });

  it("hold no more than their share of the budget", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 12, 512 * KIB);
    await teach(memory, ids, "s");
    for (const id of [0, 4, 8, 2, 6]) {
      await use(memory, `t${id}`, "s");
      const { guessBytes } = checkCounters(memory);
      expect(guessBytes).toBeLessThanOrEqual((16 * MIB) / 8);
      expect(guessBytes).toBeGreaterThan(0);
    }
  });

  it("follow a declared order of layers from the first pass on", async () => {
    const order = Array.from({ length: 6 }, (_, index) => `t${index}`);
    const predictor = schedulePredictor(order, 2);
    const memory = await openMemory({ seams: { tier: memoryTier(), predictor } });
    await coldTensors(memory, 6, 4 * KIB);
    for (const id of order) await use(memory, id, "layers");
    expect(checkCounters(memory)).toMatchObject({ usedCount: 5, wastedCount: 0 });
    expect(memory.stats().prefetch.predictor).toBe("schedule");
  });
});

describe("a declared prefetch", () => {
  it("makes room, counts as no lookup, and is used", async () => {
    const memory = await onMemory();
    const ids = await coldTensors(memory, 4, MIB);
    for (let index = 0; memory.stats().transfers.swapOutCount < 5; index++) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB });
      allocateFilled(memory, `live${index}`, MIB, index);
    }
    const { lookups } = memory.stats();
    await memory.prefetch(ids, { stream: "s" });
    expect(memory.stats().lookups).toEqual(lookups);
    expect(ids.every((id) => memory.tensor(id)?.isResident)).toBe(true);
    for (const id of ids) (await memory.acquire(id, { access: "read" }))?.[Symbol.dispose]();
    expect(checkCounters(memory)).toMatchObject({ declaredCount: 4, usedCount: 4, wastedCount: 0 });
  });

  it("is late when it is wanted on its way, and wasted when it leaves unused or is unknown", async () => {
    const memory = await onMemory();
    await coldTensors(memory, 2, MIB);
    const prefetching = memory.prefetch(["t0", "t1", "unknown"]);
    (await memory.acquire("t0", { access: "read" }))?.[Symbol.dispose]();
    await prefetching;
    await memory.swapOut("t1");
    expect(checkCounters(memory)).toMatchObject({
      issuedCount: 3,
      lateCount: 1,
      wastedCount: 2,
      outstandingCount: 0,
    });
  });

  it("ends its waiting at a signal", async () => {
    const memory = await onMemory();
    await coldTensors(memory, 1, MIB);
    const controller = new AbortController();
    const prefetching = memory.prefetch(["t0"], { signal: controller.signal });
    controller.abort();
    await prefetching;
    expect(checkCounters(memory)).toMatchObject({ issuedCount: 1, wastedCount: 1 });
    await expectFilled(memory, "t0", MIB, 0);
  });
});

it("issued = used + wasted + late + outstanding, whatever happens", () =>
  withSeed(
    "prefetch counters",
    async (seed) => {
      const random = seededRandom(seed);
      const below = (limit: number) => random.uint32() % limit;
      const memory = await onMemory();
      const count = 40;
      await coldTensors(memory, count, 300 * KIB);
      const work: Promise<unknown>[] = [];
      for (let step = 0; step < 1500; step++) {
        const first = below(count);
        const id = `t${first}`;
        const action = below(8);
        if (action < 4) {
          const stream = `s${below(2)}`;
          for (let at = first; at < Math.min(count, first + 3); at++) {
            const using = memory.acquire(`t${at}`, { access: "read", stream });
            work.push(using.then((lease) => lease?.[Symbol.dispose]()));
            if (below(2) === 0) await using;
          }
        } else if (action === 4) {
          work.push(memory.prefetch([id, `t${(first + 1) % count}`]));
        } else if (action === 5) {
          work.push(memory.swapOut(id).catch(() => {}));
        } else if (action === 6) {
          work.push(memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 3 }).catch(() => {}));
        } else {
          await Promise.all(work.splice(0));
          if (below(4) === 0) {
            memory.free(id);
            allocateFilled(memory, id, 300 * KIB, first);
          }
        }
        checkCounters(memory);
      }
      await Promise.all(work);
      const { usedCount, wastedCount, lateCount } = checkCounters(memory);
      expect(Math.min(usedCount, wastedCount, lateCount)).toBeGreaterThan(20);
      for (let index = 0; index < count; index++) {
        await expectFilled(memory, `t${index}`, 300 * KIB, index);
      }
    },
    SEED,
  ));
