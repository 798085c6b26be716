// Arenas that are emptied into others: no byte of a tensor changes, what is pinned stays, and the budget
// gets the arena back.
import { describe, expect, it } from "vitest";
import * as abi from "../../assembly/abi.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { Tensor } from "../../src/memory/tensor.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { seededRandom } from "../../src/testing/index.js";
import { openMemory, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

interface Marked {
  readonly tensor: Tensor;
  readonly mark: number;
}

/** A memory with stamped tensors of one kind, and what a random test does with them. */
async function populated(seed: number, options: TensorMemoryOptions = {}) {
  const random = seededRandom(seed);
  const unit = () => random.uint32() / 2 ** 32;
  const memory = await openMemory({ budgets: { ram: 64 * MIB }, ...options });
  let live: Marked[] = [];
  const add = (bytesMax = 2 ** 20) => {
    const byteLength = Math.ceil(256 * (bytesMax / 256) ** unit());
    const tensor = memory.tryAllocate({ kind: "ACTIVATIONS", byteLength });
    if (tensor === null) return false;
    const mark = 1 + Math.floor(unit() * 255);
    using pin = tensor.pin({ access: "write" });
    pin.bytes.fill(mark);
    live.push({ tensor, mark });
    return true;
  };
  const thin = (share: number) => {
    const kept: Marked[] = [];
    for (const each of live) {
      if (unit() < share) kept.push(each);
      else each.tensor.free();
    }
    live = kept;
  };
  const damagedCount = () =>
    live.filter(({ tensor, mark }) => {
      using pin = tensor.pin({ access: "read" });
      return pin.bytes.some((byte) => byte !== mark);
    }).length;
  const freeAll = () => thin(0);
  return { memory, unit, add, thin, damagedCount, freeAll, live: () => live };
}

function poolOf(memory: TensorMemory) {
  const pool = memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS");
  if (pool === undefined) throw new Error("no such pool");
  return pool;
}

const arenaBytesOf = (memory: TensorMemory) => memory.stats().budget.byCategory.arenas;

describe("trim", () => {
  it.each([
    ["plain arenas", 16 * MIB, {}],
    ["slab arenas", 64 * MIB, {}],
    ["debug mode", 64 * MIB, { debug: true }],
  ])("empties %s that the pool can do without, and the charge falls", (_name, ram, options) =>
    withSeed("trim", async (seed) => {
      const { memory, add, thin, damagedCount, freeAll } = await populated(seed, {
        budgets: { ram },
        ...options,
      });
      while (add(ram / 64));
      thin(0.12);
      const before = poolOf(memory);
      const bytesBefore = arenaBytesOf(memory);
      expect(before.arenaCount).toBeGreaterThan(3);
      const droppedBytes = memory.trim();
      const after = poolOf(memory);
      expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
      expect(damagedCount()).toBe(0);
      expect(after.compaction.evacuatedCount).toBeGreaterThan(2);
      expect(after.arenaCount).toBeLessThan(before.arenaCount - 2);
      expect(after.grantedBytes).toBeLessThanOrEqual(before.grantedBytes * 1.05);
      expect(droppedBytes).toBeGreaterThanOrEqual(3 * after.arenaBytes);
      expect(arenaBytesOf(memory)).toBe(bytesBefore - droppedBytes);
      // What is dropped is collected: no view of a tensor that moved away keeps it.
      for (let turn = 0; turn < 50 && memory.stats().budget.byCategory.retired > 0; turn++) {
        globalThis.gc?.();
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(memory.stats().budget.byCategory.retired).toBe(0);
      // Nothing is moved a second time, and a little more fits without another arena.
      expect(memory.trim()).toBe(0);
      expect(poolOf(memory).compaction).toEqual(after.compaction);
      memory.allocate({ kind: "ACTIVATIONS", byteLength: after.arenaBytes / 256 }).free();
      expect(poolOf(memory).arenaCount).toBe(after.arenaCount);
      freeAll();
    }),
  );

  it("leaves an arena alone in which something is pinned, or that a worker knows", () =>
    withSeed("trim beside pins", async (seed) => {
      const { memory, add, thin, freeAll, live } = await populated(seed, { shared: true });
      while (add());
      thin(0.1);
      const { arenaCount, compaction } = poolOf(memory);
      const pins = live().map(({ tensor }) => tensor.pin({ access: "read" }));
      memory.trim();
      expect(poolOf(memory)).toMatchObject({ arenaCount, compaction });
      for (const pin of pins) pin[Symbol.dispose]();
      const { lane } = memory.share({ kind: "ACTIVATIONS" });
      memory.trim();
      expect(poolOf(memory)).toMatchObject({ arenaCount, compaction });
      freeAll();
      expect(memory.releaseLane(lane)).toBe(true);
    }));
});

describe("compact in steps", () => {
  it("empties arenas whatever is done between its steps, and changes no byte", () =>
    withSeed("evacuation in steps", async (seed) => {
      const run = await populated(seed);
      const { memory, unit, add, thin, damagedCount, freeAll, live } = run;
      while (add());
      thin(0.3);
      const counts = { evacuated: 0, pinned: 0, rounds: 0 };
      for (let step = 0; step < 4000 && counts.rounds < 5; step++) {
        const { tensor } = live()[Math.floor(unit() * live().length)] as Marked;
        const pin = unit() < 0.5 ? tensor.pin({ access: "read" }) : null;
        if (pin !== null) counts.pinned += 1;
        const view = pin?.view;
        const result = memory.compact({ bytesMovedMax: 2 ** 18 });
        expect(result.movedBytes).toBeLessThanOrEqual(2 ** 20);
        // A pinned tensor is where it was.
        expect(pin?.view).toBe(view);
        pin?.[Symbol.dispose]();
        if (pin !== null) {
          using again = tensor.pin({ access: "read" });
          expect(again.view).toBe(view);
        }
        const draw = unit();
        if (draw < 0.3) add(2 ** 16);
        else if (draw < 0.32) thin(0.9);
        if (step % 16 === 0) expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
        if (result.isFinished) {
          expect(damagedCount()).toBe(0);
          counts.rounds += 1;
          for (let count = 0; count < 600 && add(); count++);
          thin(0.5);
        }
      }
      counts.evacuated = poolOf(memory).compaction.evacuatedCount;
      expect(counts.rounds).toBe(5);
      expect(counts.pinned).toBeGreaterThan(20);
      expect(counts.evacuated).toBeGreaterThan(3);
      expect(damagedCount()).toBe(0);
      freeAll();
    }));

  it("goes on after a recovery in the middle of it", () =>
    withSeed("evacuation and recovery", async (seed) => {
      const created: WebAssembly.Memory[] = [];
      const createMemory = (pages: number) => {
        created.push(new WebAssembly.Memory({ initial: pages, maximum: pages }));
        return created.at(-1) as WebAssembly.Memory;
      };
      const run = await populated(seed, { seams: { createMemory } });
      const { memory, add, thin, damagedCount, freeAll } = run;
      while (add());
      thin(0.2);
      const control = created
        .map(({ buffer }) => new Uint32Array(buffer))
        .map((words) => words.subarray(Math.max(0, words.indexOf(abi.CONTROL_MAGIC))))
        .find((words) => words[0] === abi.CONTROL_MAGIC) as Uint32Array;
      const { arenaCount } = poolOf(memory);
      let recoveredCount = 0;
      for (let isFinished = false; !isFinished; ) {
        isFinished = memory.compact({ bytesMovedMax: 2 ** 18 }).isFinished;
        // As a call leaves it that was cut off.
        control[abi.CONTROL_OFF_GUARD / 4] = 1;
        expect(() => memory.compact()).toThrow("recover");
        expect(memory.recover()).toBe(0);
        recoveredCount += 1;
        expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
        expect(damagedCount()).toBe(0);
      }
      expect(recoveredCount).toBeGreaterThan(3);
      expect(poolOf(memory).arenaCount).toBeLessThan(arenaCount);
      freeAll();
    }));
});

describe("pressure", () => {
  it("gets the arena that another kind can do without", () =>
    withSeed("evacuation for another kind", async (seed) => {
      const { memory, add, thin, damagedCount, freeAll } = await populated(seed);
      while (add());
      thin(0.2);
      const before = poolOf(memory);
      const events = memory.events();
      const first = events.next();
      const tensors = Array.from({ length: 3 }, () =>
        memory.allocate({ kind: "KV_CACHE", byteLength: before.arenaBytes }),
      );
      const { value } = await first;
      expect(value).toMatchObject({ type: "pressure", kind: "KV_CACHE" });
      await events.return();
      expect(poolOf(memory).compaction.evacuatedCount).toBeGreaterThanOrEqual(3);
      expect(poolOf(memory).arenaCount).toBeLessThanOrEqual(before.arenaCount - 3);
      expect(damagedCount()).toBe(0);
      for (const tensor of tensors) tensor.free();
      freeAll();
    }));
});
