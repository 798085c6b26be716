// Compaction by itself: what starts it, what it may cost at once, and that it rests when nothing changes.
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import * as abi from "../../assembly/abi.js";
import type { MemoryEvent } from "../../src/memory/events.js";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { Tensor } from "../../src/memory/tensor.js";
import { createTensorMemory } from "../../src/node.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, seededRandom } from "../../src/testing/index.js";
import { openMemory, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

function poolOf(memory: TensorMemory) {
  const pool = memory.stats().pools.find(({ kind }) => kind === "ACTIVATIONS");
  if (pool === undefined) throw new Error("no such pool");
  return pool;
}

/** A full memory with a clock that stands still, and a way to free a random share of it. */
async function filled(seed: number, options: TensorMemoryOptions = {}) {
  const random = seededRandom(seed);
  const unit = () => random.uint32() / 2 ** 32;
  const clock = manualClock();
  const memory = await openMemory({
    budgets: { ram: 64 * MIB },
    ...options,
    seams: { clock, ...options.seams },
  });
  let live: { readonly tensor: Tensor; readonly mark: number }[] = [];
  const fill = () => {
    for (;;) {
      const byteLength = Math.ceil(256 * 2048 ** unit());
      const tensor = memory.tryAllocate({ kind: "ACTIVATIONS", byteLength });
      if (tensor === null) return;
      const mark = 1 + Math.floor(unit() * 255);
      using pin = tensor.pin({ access: "write" });
      pin.bytes.fill(mark);
      live.push({ tensor, mark });
    }
  };
  const thin = (share: number) => {
    const kept = live.filter(() => unit() < share);
    const keptSet = new Set(kept);
    for (const each of live) if (!keptSet.has(each)) each.tensor.free();
    live = kept;
  };
  const damagedCount = () =>
    live.filter(({ tensor, mark }) => {
      using pin = tensor.pin({ access: "read" });
      return pin.bytes.some((byte) => byte !== mark);
    }).length;
  /** Lets time pass in steps of a millisecond, each with a turn for what is due. */
  const pass = async (ms: number, look: () => void = () => {}) => {
    for (let count = 0; count < ms; count++) {
      clock.advance(1);
      if (clock.deferredCount > 0) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        await nextTurn();
      }
      look();
    }
  };
  fill();
  return { memory, clock, fill, thin, damagedCount, pass, freeAll: () => thin(0) };
}

async function drain(events: AsyncGenerator<MemoryEvent>): Promise<MemoryEvent[]> {
  const all: MemoryEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

describe("compaction by itself", () => {
  it("gathers free space in short steps after frees, tells the level, and then rests", () =>
    withSeed("auto compaction", async (seed) => {
      const bytesPerStep = MIB;
      const { memory, clock, thin, damagedCount, pass, freeAll } = await filled(seed, {
        compaction: { bytesPerStep },
      });
      const abort = new AbortController();
      const events = drain(memory.events({ signal: abort.signal }));
      await pass(500);
      expect(clock.deferredCount).toBe(0);
      thin(0.5);
      const before = poolOf(memory);
      let movedBytes = before.compaction.movedBytes;
      let stepCount = 0;
      await pass(2000, () => {
        const stepBytes = poolOf(memory).compaction.movedBytes - movedBytes;
        movedBytes += stepBytes;
        if (stepBytes > 0) stepCount += 1;
        expect(stepBytes).toBeLessThanOrEqual(bytesPerStep);
      });
      const after = poolOf(memory);
      const scattered = (of: typeof after) => of.externalFragmentation * of.freeBytes;
      expect(stepCount).toBeGreaterThan(5);
      expect(scattered(after)).toBeLessThan(0.3 * scattered(before));
      expect(after.compaction.evacuatedCount).toBeGreaterThan(1);
      expect(after.arenaCount).toBeLessThan(before.arenaCount);
      expect(damagedCount()).toBe(0);
      expect(memory.verify()).toMatchObject({ isSound: true, problems: [] });
      // Emptied arenas are on their way back to the system.
      expect(memory.stats().arenas.droppedCount).toBeGreaterThan(0);
      // Nothing changes, so nothing is looked at.
      expect(clock.deferredCount).toBe(0);
      await pass(200);
      expect(poolOf(memory).compaction).toEqual(after.compaction);
      abort.abort();
      const levels = (await events).filter(({ type }) => type === "fragmentation");
      expect(levels[0]).toMatchObject({ kind: "ACTIVATIONS", previous: "low" });
      freeAll();
    }));

  it("begins at the level that is asked for, and not below", () =>
    withSeed("level of auto compaction", async (seed) => {
      const run = await filled(seed, { compaction: { level: "critical" } });
      const { memory, thin, pass, freeAll } = run;
      // Few pieces, and no arena to spare.
      thin(0.93);
      const before = poolOf(memory);
      const { fragmentationLevel, compaction } = before;
      expect(["medium", "high", "critical"]).toContain(fragmentationLevel);
      await pass(500);
      if (fragmentationLevel === "critical") {
        expect(poolOf(memory).compaction.moveCount).toBeGreaterThan(compaction.moveCount);
      } else expect(poolOf(memory).compaction).toEqual(compaction);
      freeAll();
    }));

  it("does not move to and fro what is freed and allocated again and again", () =>
    withSeed("auto compaction to and fro", async (seed) => {
      const { memory, fill, thin, pass, damagedCount, freeAll } = await filled(seed);
      const counts: number[] = [];
      for (let round = 0; round < 8; round++) {
        thin(0.3);
        await pass(3000);
        counts.push(poolOf(memory).compaction.evacuatedCount);
        fill();
      }
      // Each time the arenas were needed again it waits twice as long.
      const grown = counts.slice(1).filter((count, index) => count > (counts[index] as number));
      expect(counts[0]).toBeGreaterThan(0);
      expect(grown.length).toBeLessThan(5);
      expect(damagedCount()).toBe(0);
      freeAll();
    }));

  it("leaves no timer after close, and keeps no process alive", async () => {
    const { memory, clock, thin, freeAll } = await filled(1);
    thin(0.5);
    expect(clock.deferredCount).toBe(1);
    freeAll();
    await memory.close();
    expect(clock.deferredCount).toBe(0);
    const real = await createTensorMemory({ profile: "generic", budgets: { ram: 16 * MIB } });
    real.allocate({ kind: "ACTIVATIONS", byteLength: MIB }).free();
    // Timers that keep a process alive are listed; Vitest has some of its own.
    const countTimers = () =>
      process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
    const timerCount = countTimers();
    real.allocate({ kind: "KV_CACHE", byteLength: MIB }).free();
    expect(countTimers()).toBe(timerCount);
    await real.close();
  });

  it("is off with on-demand", async () => {
    const { memory, clock, thin, pass, freeAll } = await filled(1, { compaction: "on-demand" });
    const { compaction } = poolOf(memory);
    thin(0.5);
    expect(clock.deferredCount).toBe(0);
    await pass(200);
    expect(poolOf(memory).compaction).toEqual(compaction);
    memory.compact();
    expect(poolOf(memory).compaction.evacuatedCount).toBeGreaterThan(0);
    freeAll();
  });

  it("waits for recovery when the core was interrupted", async () => {
    const created: WebAssembly.Memory[] = [];
    const createMemory = (pages: number) => {
      created.push(new WebAssembly.Memory({ initial: pages, maximum: pages }));
      return created.at(-1) as WebAssembly.Memory;
    };
    const run = await filled(1, { seams: { createMemory } });
    const { memory, clock, thin, pass, freeAll, damagedCount } = run;
    const words = created
      .map(({ buffer }) => new Uint32Array(buffer))
      .find((each) => each.includes(abi.CONTROL_MAGIC)) as Uint32Array;
    thin(0.5);
    await pass(52);
    const guard = words.indexOf(abi.CONTROL_MAGIC) + abi.CONTROL_OFF_GUARD / 4;
    words[guard] = 1;
    await pass(100);
    expect(clock.deferredCount).toBe(0);
    memory.recover();
    thin(0.99);
    await pass(2000);
    expect(poolOf(memory).compaction.evacuatedCount).toBeGreaterThan(0);
    expect(damagedCount()).toBe(0);
    freeAll();
  });

  it.each([
    [{ level: "worst" }],
    [{ bytesPerStep: 0 }],
    [{ bytesPerStep: "4MiB" }],
    [{ millisecondsPerStep: Number.NaN }],
    [{ steps: 1 }],
    ["never"],
    [null],
  ])("refuses %j", async (compaction) => {
    await expect(openMemory({ compaction: compaction as never })).rejects.toMatchObject({
      code: "bad-option",
    });
  });
});
