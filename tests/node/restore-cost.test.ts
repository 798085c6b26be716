// What is cheap to have back leaves first, where the order of leaving hardly tells candidates apart.
import { describe, expect, it } from "vitest";
import { VictimChoice } from "../../src/cache/restore-cost.js";
import type { TensorRecord } from "../../src/cache/tensor-record.js";
import { TransferSpeed } from "../../src/cache/transfer-speed.js";
import { gdsfPolicy } from "../../src/policy/gdsf.js";
import { lruPolicy } from "../../src/policy/lru.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier } from "../../src/testing/index.js";
import type { TensorKind } from "../../src/types.js";
import { openMemory } from "../support/oracle.js";

const MIB = 2 ** 20;

interface Cost {
  readonly bytes?: number;
  readonly isClean?: boolean;
  readonly recomputeMs?: number;
  readonly kind?: TensorKind;
  readonly isChained?: boolean;
}

function recordOf(index: number, cost: Cost): TensorRecord {
  const { bytes = MIB, isClean = false, recomputeMs = null, kind = "PARAMETERS" } = cost;
  const cold = isClean ? { storedBytes: bytes } : null;
  const { isChained = false } = cost;
  return { index, byteLength: bytes, isClean, cold, recomputeMs, kind, isChained } as TensorRecord;
}

/** 1 ms before the first byte, then 1 MiB each millisecond. */
function measured(): TransferSpeed {
  const speed = new TransferSpeed();
  speed.note(1, 1);
  speed.note(MIB, 2);
  return speed;
}

/** The numbers of those that leave, one after the other. */
function leaving(costs: readonly (Cost | null)[], speed = measured()): number[] {
  const choice = new VictimChoice(speed);
  let order = costs.map((cost, index) => cost && recordOf(index, cost));
  const left: number[] = [];
  for (;;) {
    const record = choice.next(order);
    if (record === null) return left;
    left.push(record.index);
    order = order.filter((each) => each !== record);
  }
}

describe("among the next to leave", () => {
  it("a clean one goes before a dirty one, measured or not, which then goes before the next", () => {
    const costs = [{}, { isClean: true }, { isClean: true }];
    expect(leaving(costs)).toEqual([1, 0, 2]);
    expect(leaving(costs, new TransferSpeed())).toEqual([1, 0, 2]);
  });

  it("long ones go before short ones that would wait as long for the first byte", () => {
    expect(leaving([{ bytes: 1000 }, { bytes: 8 * MIB }, { bytes: 2000 }])).toEqual([1, 0, 2]);
  });

  it("what is quick to compute goes before what has to be loaded", () => {
    expect(leaving([{ isClean: true }, { isClean: true, recomputeMs: 0.5 }])).toEqual([1, 0]);
    expect(leaving([{ isClean: true }, { isClean: true, recomputeMs: 50 }])).toEqual([0, 1]);
  });

  it("the order stands where costs are alike, and beyond the next three", () => {
    expect(leaving([{}, { bytes: 1.5 * MIB }, { bytes: MIB / 2 }])).toEqual([0, 1, 2]);
    expect(leaving([{}, {}, {}, {}, { isClean: true }]).indexOf(4)).toBeGreaterThan(0);
    expect(leaving([null, {}, null, null, null, { isClean: true }])[0]).toBe(1);
  });

  it("a chain keeps its order, and nothing of it is preferred", () => {
    for (const chained of [{ isChained: true }, { kind: "KV_CACHE" }] as const) {
      const clean = { ...chained, isClean: true };
      expect(leaving([chained, clean, chained, clean])).toEqual([0, 1, 2, 3]);
      expect(leaving([chained, { isClean: true }])).toEqual([0, 1]);
      expect(leaving([{}, clean, { isClean: true }])).toEqual([0, 1, 2]);
    }
  });
});

function make(memory: TensorMemory, id: string, recomputeMs?: number): void {
  const tensor = memory.allocate({ kind: "PARAMETERS", id, byteLength: MIB, recomputeMs });
  using pin = tensor.pin();
  pin.view.fill(1);
}

const use = async (memory: TensorMemory, id: string, recomputeMs?: number) => {
  (await memory.acquire(id, { access: "read", recomputeMs }))?.[Symbol.dispose]();
};

/** A tier whose reads take time on a clock that is moved by hand. */
function slowTier() {
  const clock = manualClock({ sleeping: "skip" });
  const inner = memoryTier();
  const openRead: typeof inner.openRead = async (key) => {
    const reader = await inner.openRead(key);
    if (reader === null) return null;
    const read: typeof reader.read = (offset, ...targets) => {
      clock.advance(20);
      return reader.read(offset, ...targets);
    };
    return { ...reader, read };
  };
  return { clock, tier: { ...inner, openRead } };
}

describe("a memory under pressure", () => {
  async function pressed(isDefault: boolean) {
    const seams = { ...slowTier(), ...(isDefault ? {} : { evictionPolicy: lruPolicy() }) };
    const memory = await openMemory({ codecs: { default: "raw" }, seams });
    make(memory, "clean");
    await memory.swapOut("clean");
    make(memory, "dirty");
    await use(memory, "clean");
    const isHot = (id: string) => memory.tensor(id)?.isResident === true;
    const before = memory.stats().tier.bytesWritten;
    for (let count = 2; isHot("clean") && isHot("dirty"); count++) {
      await memory.reserve({ kind: "PARAMETERS", bytes: MIB, count });
    }
    const written = memory.stats().tier.bytesWritten - before;
    for (const id of ["clean", "dirty"]) await use(memory, id);
    return written;
  }

  it("writes nothing while a clean tensor is next to a dirty one", async () => {
    expect(await pressed(true)).toBe(0);
  });

  it("keeps to an order that was chosen", async () => {
    expect(await pressed(false)).toBeGreaterThan(MIB);
  });

  it("tells the policy what each tensor would take to be back", async () => {
    const told = new Map<number, (number | undefined)[]>();
    const note = (index: number, restoreMs: number | undefined) => {
      told.set(index, [...(told.get(index) ?? []), restoreMs]);
    };
    const inner = gdsfPolicy();
    const evictionPolicy: typeof inner = {
      ...inner,
      track: (entry) => {
        note(entry.index, entry.restoreMs);
        inner.track(entry);
      },
      touch: (index, restoreMs) => {
        if (restoreMs !== undefined) note(index, restoreMs);
        inner.touch(index, restoreMs);
      },
    };
    const memory = await openMemory({ seams: { ...slowTier(), evictionPolicy } });
    make(memory, "a");
    make(memory, "b", 3);
    await memory.swapOut("a");
    await use(memory, "a");
    await use(memory, "a", 7);
    await use(memory, "a");
    await use(memory, "b");
    const [a, b] = [...told.values()];
    expect(a?.[0]).toBeUndefined();
    expect(a?.[1]).toBeGreaterThanOrEqual(20);
    expect(a?.slice(2)).toEqual([7, 7]);
    expect(b).toEqual([3, 3]);
    expect(() => make(memory, "c", -1)).toThrowError(
      expect.objectContaining({ code: "bad-option" }),
    );
  });

  it("gdsf: the cheapest per byte leaves first, as it was told last", () => {
    const policy = gdsfPolicy();
    policy.track({ index: 1, bytes: 1000, restoreMs: 5 });
    policy.track({ index: 2, bytes: 1000, restoreMs: 1 });
    expect([...policy.candidates()]).toEqual([2, 1]);
    policy.touch(2, 50);
    policy.touch(1, 1);
    expect([...policy.candidates()]).toEqual([1, 2]);
  });
});
