// Arenas of every kind and length against a map of who owns which 64 bytes: no overlap, nothing
// outside, alignment kept, counters exact, pinned blocks unmoved, stale handles refused.
import { describe, expect, it } from "vitest";
import { ControlPlane } from "../../src/core/control-plane.js";
import { createUnsharedMemory } from "../../src/core/linear-memory.js";
import { arenaMetadataBytesMax } from "../../src/core/metadata-bytes.js";
import { seededRandom } from "../../src/random.js";
import { SEED, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;
const UNIT_BYTES = 64;
const OPERATION_COUNT = 40_000;

interface Block {
  readonly slot: number;
  readonly generation: number;
  readonly bytes: number;
  readonly mark: number;
  offset: number;
  isPinned: boolean;
}

async function openArena(capacityBytes: number) {
  const core = await ControlPlane.create({
    slotCapacity: 20_000,
    arenaCapacity: 4,
    metadataBytes: 2 * arenaMetadataBytesMax(capacityBytes, UNIT_BYTES, capacityBytes),
    createMemory: createUnsharedMemory,
  });
  return { core, arena: core.openArena(0, capacityBytes, 6) };
}

class Shadow {
  readonly #owners: Int32Array;

  constructor(capacityBytes: number) {
    this.#owners = new Int32Array(Math.ceil(capacityBytes / UNIT_BYTES));
  }

  change(offset: number, bytes: number, before: number, after: number): void {
    const end = Math.ceil((offset + bytes) / UNIT_BYTES);
    if (end > this.#owners.length) throw new Error("a block reaches past its arena");
    for (let unit = offset / UNIT_BYTES; unit < end; unit++) {
      if (this.#owners[unit] !== before) throw new Error(`unit ${unit} has two owners`);
      this.#owners[unit] = after;
    }
  }
}

async function run(capacityBytes: number, bytesMax: number, seed: number) {
  const random = seededRandom(seed);
  const unit = () => random.uint32() / 2 ** 32;
  const { core, arena } = await openArena(capacityBytes);
  const shadow = new Shadow(capacityBytes);
  const live: Block[] = [];
  const counts = { refused: 0, moved: 0 };
  let growth = 0.5;

  const allocate = (mark: number) => {
    const bytes = Math.floor(bytesMax ** unit());
    const alignment = unit() < 0.1 ? 2 ** Math.floor(17 * unit()) : 1;
    const slot = core.allocate(arena, bytes, alignment);
    if (slot === 0) {
      counts.refused += 1;
      return;
    }
    const offset = core.offsetOf(slot);
    if (offset % alignment !== 0) throw new Error(`${offset} is not aligned to ${alignment}`);
    if (core.grantedBytesOf(slot) < bytes) throw new Error("a block is too short");
    shadow.change(offset, bytes, 0, mark);
    const generation = core.generationOf(slot);
    live.push({ slot, generation, bytes, mark, offset, isPinned: false });
  };

  const togglePin = (block: Block) => {
    if (block.isPinned) core.unpin(block.slot, block.generation);
    else core.pin(block.slot, block.generation);
    block.isPinned = !block.isPinned;
  };

  const free = (index: number) => {
    const block = live[index] as Block;
    if (block.isPinned) togglePin(block);
    shadow.change(block.offset, block.bytes, block.mark, 0);
    core.free(block.slot, block.generation);
    live[index] = live.at(-1) as Block;
    live.pop();
    expect(() => core.free(block.slot, block.generation)).toThrowError();
  };

  const compact = () => {
    const bySlot = new Map(live.map((block) => [block.slot, block]));
    core.beginCompaction(arena);
    for (let move = core.nextMove(); move !== null; move = core.nextMove()) {
      const block = bySlot.get(move.slot);
      if (block === undefined || block.isPinned) throw new Error("what must stay is moved");
      expect([move.sourceOffset, move.byteLength]).toEqual([block.offset, block.bytes]);
      if (unit() < 0.1) {
        core.vetoMove();
        continue;
      }
      shadow.change(block.offset, block.bytes, block.mark, 0);
      shadow.change(move.targetOffset, block.bytes, 0, block.mark);
      expect(core.commitMove()).toBe(true);
      block.offset = move.targetOffset;
      counts.moved += 1;
    }
  };

  const check = () => {
    expect(core.check()).toBe(0);
    const { requestedBytes, liveCount } = core.arenaCounters(arena);
    expect(liveCount).toBe(live.length);
    expect(requestedBytes).toBe(live.reduce((sum, { bytes }) => sum + bytes, 0));
  };

  for (let step = 1; step <= OPERATION_COUNT; step++) {
    if (step % 2500 === 0) growth = 0.46 + 0.14 * unit();
    const draw = unit();
    if (live.length === 0 || draw < growth) allocate(step);
    else if (draw < 0.97) free(Math.floor(live.length * unit()));
    else togglePin(live[Math.floor(live.length * unit())] as Block);
    if (step % 2000 === 0) {
      compact();
      check();
    }
  }
  while (live.length > 0) free(live.length - 1);
  check();
  expect(core.allocateWhole(arena, capacityBytes)).toBeGreaterThan(0);
  return counts;
}

describe("an arena", () => {
  it.each([
    ["3 MiB, a plain tree", 3 * MIB, 2 ** 16],
    ["4 MiB, the shortest with slabs", 4 * MIB, 2 ** 18],
    ["of no round length", 5 * MIB + 12_288, 2 ** 17],
    ["16 MiB", 16 * MIB, 2 ** 21],
    ["64 MiB", 64 * MIB, 2 ** 22],
  ])("%s: it never gives bytes to two", async (_name, capacityBytes, bytesMax) => {
    await withSeed("the arena fuzzer", async () => {
      const { refused, moved } = await run(capacityBytes, bytesMax, SEED + capacityBytes);
      // Floors: it must have been full, and it must have moved something.
      expect(refused).toBeGreaterThan(OPERATION_COUNT / 100);
      expect(moved).toBeGreaterThan(5);
    });
  });

  it.each([1, 2, 4])("of %i GiB keeps every invariant with many live blocks", async (gibibytes) => {
    const { core, arena } = await openArena(gibibytes * 2 ** 30);
    const slots: number[] = [];
    for (let index = 0; index < 15_000; index++) {
      const slot = core.allocate(arena, 64 << (index % 12), 1);
      if (slot !== 0) slots.push(slot);
      const old = slots[(index * 7919) % slots.length] as number;
      if (index % 3 === 0 && core.isLive(old)) core.free(old, core.generationOf(old));
    }
    expect(core.check()).toBe(0);
  });
});
