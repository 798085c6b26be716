// Reservations while others allocate and use tensors all the time.
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/clock.js";
import { OutOfMemoryError } from "../../src/errors.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

const KIB = 1024;
const RAM_BYTES = 16 * 1024 * KIB;
const BUSY_KINDS = ["KV_CACHE", "ACTIVATIONS"] as const;
const WAITING_KINDS = ["IMAGE_FEATURES", "PARAMETERS"] as const;
const LOOP_COUNT = 12;
/** Turns that a lease is held. */
const LEASE_TURNS = 3;
const RESERVATION_COUNT = 16;
/** Steps that others may do while one reservation waits. */
const STEPS_MAX = 400;

/** How often the busy ones leave their turn of the event loop. */
type Manners = "each-step" | "seldom";

interface Contention {
  /** Steps of the busy ones, by loop. */
  readonly steps: number[];
  /** Allocations refused without having reserved. */
  refusedCount: number;
  end(): Promise<void>;
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Several loops that allocate and use named tensors, each to no end. */
function contend(memory: TensorMemory, seed: number, manners: Manners): Contention {
  const random = seededRandom(seed);
  const below = (limit: number) => random.uint32() % limit;
  const steps = new Array<number>(LOOP_COUNT).fill(0);
  const contention = { steps, refusedCount: 0 };
  let isOver = false;
  const loop = async (name: number) => {
    const ids: string[] = [];
    for (let step = 0; !isOver; step++) {
      steps[name] = step;
      const rest = manners === "seldom" && step % 4 > 0 ? () => Promise.resolve() : nextTurn;
      await rest();
      const kind = BUSY_KINDS[below(2)] as (typeof BUSY_KINDS)[number];
      const id = `${name}/${step}`;
      const byteLength = 64 * KIB * (1 + below(8));
      if (below(2) === 0) {
        await memory.reserve({ kind, bytes: byteLength });
        // What was reserved is there.
        memory.allocate({ kind, id, byteLength });
        ids.push(id);
      } else if (memory.tryAllocate({ kind, id, byteLength }) === null) {
        contention.refusedCount += 1;
      } else ids.push(id);
      if (ids.length === 0) continue;
      const lease = await memory.acquire(ids[below(ids.length)] as string);
      for (let turn = 0; turn < LEASE_TURNS; turn++) await rest();
      lease?.[Symbol.dispose]();
      if (ids.length < 40) continue;
      await memory.delete(ids.splice(below(ids.length), 1)[0] as string);
    }
  };
  const loops = steps.map((_, name) => loop(name));
  const end = () => {
    isOver = true;
    return Promise.all(loops).then(() => {});
  };
  return Object.assign(contention, { end });
}

describe("a reservation among others that allocate all the time", () => {
  for (const manners of ["each-step", "seldom"] as const) {
    it.each(manners === "seldom" ? [0] : [0, 1, 2])(
      `gets its room, in bounded steps (turns left: ${manners}; run %i)`,
      { timeout: 120_000 },
      (run) =>
        withSeed(
          "contended room",
          async (seed) => {
            const memory = await openMemory({
              budgets: { ram: RAM_BYTES },
              seams: { tier: memoryTier({ capacityBytes: 2 ** 30 }), clock: systemClock },
            });
            const others = contend(memory, seed, manners);
            const total = () => others.steps.reduce((sum, steps) => sum + steps, 0);
            let waitedCount = 0;
            let stepsMost = 0;
            try {
              for (let index = 0; index < RESERVATION_COUNT; index++) {
                await nextTurn();
                const kind = WAITING_KINDS[index % 2] as (typeof WAITING_KINDS)[number];
                const byteLength = (index % 3 === 0 ? 2048 : 512) * KIB;
                const before = total();
                const { swapOutCount } = memory.stats().transfers;
                await memory.reserve({ kind, bytes: byteLength });
                memory.allocate({ kind, byteLength }).free();
                stepsMost = Math.max(stepsMost, total() - before);
                if (memory.stats().transfers.swapOutCount > swapOutCount) waitedCount += 1;
              }
              // The others are not kept waiting either.
              const reached = [...others.steps];
              for (let turn = 0; turn < 2000; turn++) {
                if (others.steps.every((steps, loop) => steps > (reached[loop] as number))) break;
                await nextTurn();
              }
              const isMoving = others.steps.map((steps, loop) => steps > (reached[loop] as number));
              expect(isMoving).not.toContain(false);
            } finally {
              await others.end();
            }
            expect(stepsMost).toBeLessThan(STEPS_MAX);
            // There was contention: reservations had to wait, and the heap was full for the others.
            expect(waitedCount).toBeGreaterThan(0);
            expect(total()).toBeGreaterThan(3 * LOOP_COUNT);
            expect(memory.stats().budget.usedBytesPeak).toBeLessThanOrEqual(RAM_BYTES);
          },
          SEED + run,
        ),
    );
  }

  it("comes in its turn when several want most of the heap at once", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const order: number[] = [];
    for (let index = 0; index < 12; index++) {
      memory.allocate({ kind: "KV_CACHE", id: `full/${index}`, byteLength: 1024 * KIB });
    }
    const byteLength = 2048 * KIB;
    const wait = async (index: number) => {
      await memory.reserve({ kind: "PARAMETERS", bytes: byteLength, count: 2 });
      order.push(index);
      const tensors = [0, 1].map(() => memory.allocate({ kind: "PARAMETERS", byteLength }));
      for (const tensor of tensors) tensor.free();
    };
    await Promise.all([0, 1, 2, 3].map(wait));
    expect(new Set(order)).toEqual(new Set([0, 1, 2, 3]));
  });

  it("is refused when everything else is pinned, and holds nothing from then on", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const pins = [];
    for (let index = 0; ; index++) {
      const options = { kind: "KV_CACHE", id: `${index}`, byteLength: 512 * KIB } as const;
      const tensor = memory.tryAllocate(options);
      if (tensor === null) break;
      pins.push(tensor.pin());
    }
    expect(pins.length).toBeGreaterThan(8);
    const request = { kind: "ACTIVATIONS", bytes: 512 * KIB } as const;
    const refusals = await Promise.allSettled([memory.reserve(request), memory.reserve(request)]);
    for (const refusal of refusals) {
      expect(refusal).toMatchObject({ status: "rejected", reason: expect.any(OutOfMemoryError) });
    }
    for (const pin of pins) pin[Symbol.dispose]();
    memory.free("0");
    expect(memory.tryAllocate({ kind: "KV_CACHE", byteLength: 512 * KIB })).not.toBeNull();
    await memory.reserve(request);
    memory.allocate({ kind: "ACTIVATIONS", byteLength: 512 * KIB });
  });
});
