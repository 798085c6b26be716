import * as abi from "../../assembly/abi";
import { ArenaRow, arenaRow, arenaTree } from "../../assembly/arena-row";
import { arenaAllocate, check, slotFree } from "../../assembly/index";
import {
  mixedSlabClaim,
  mixedSlabIs,
  mixedSlabMixAll,
  mixedSlabOpen,
  mixedSlabRelease,
  mixedSlabRestore,
  mixedSlabStep,
} from "../../assembly/mixed-slab";
import { orderTreeClaimSuperblock } from "../../assembly/order-tree";
import { sizeClassOf, sizeClassUnits } from "../../assembly/size-class";
import { NO_UNIT } from "../../assembly/slab";
import { Random, generationOf, offsetOf, planeWithSlabs, sizingOf } from "./support";

let base: u32 = 0;

function row(): ArenaRow {
  return arenaRow(base, 1);
}

function open(): u32 {
  const index = orderTreeClaimSuperblock(arenaTree(base, row())) >> abi.SUPERBLOCK_ORDER;
  mixedSlabOpen(base, row(), index);
  return index;
}

describe("mixed slab", () => {
  beforeEach(() => {
    base = planeWithSlabs(4096, 16);
  });

  test("aligns a block to what its length is a multiple of, at most 4 units", () => {
    expect<u32>(mixedSlabStep(1)).toBe(1);
    expect<u32>(mixedSlabStep(6)).toBe(2);
    expect<u32>(mixedSlabStep(192)).toBe(4);
    open();
    expect<u32>(mixedSlabClaim(base, row(), 1)).toBe(0);
    expect<u32>(mixedSlabClaim(base, row(), 8)).toBe(4);
    expect<u32>(mixedSlabClaim(base, row(), 2)).toBe(2);
    expect<u32>(mixedSlabClaim(base, row(), 1)).toBe(1);
  });

  test("gives the slab back with its last unit, and refuses what fits nowhere", () => {
    expect<u32>(mixedSlabClaim(base, row(), 1)).toBe(NO_UNIT);
    const free = arenaTree(base, row()).free;
    open();
    for (let i = 0; i < 8; i++) expect<u32>(mixedSlabClaim(base, row(), 512)).toBe(i * 512);
    expect<u32>(mixedSlabClaim(base, row(), 1)).toBe(NO_UNIT);
    for (let i = 0; i < 8; i++) mixedSlabRelease(base, row(), i * 512, 512);
    expect<u32>(arenaTree(base, row()).free).toBe(free);
    expect<bool>(mixedSlabIs(base, row(), 0)).toBe(false);
  });

  test("equals a map of units, seed 0x3a5e11ed", () => {
    const random = new Random(0x3a5e11ed);
    const isTaken = new StaticArray<bool>(2 * abi.SUPERBLOCK_UNITS);
    const starts = new Array<u32>();
    const lengths = new Array<u32>();
    let claimCount = 0;
    open();
    open();
    mixedSlabClaim(base, row(), 1);
    isTaken[0] = true;
    for (let step = 0; step < 20000; step++) {
      if (random.below(16) < (step % 2048 < 1024 ? 10 : 6)) {
        const units = sizeClassUnits(random.below(abi.SLAB_CLASS_COUNT));
        const start = mixedSlabClaim(base, row(), units);
        if (start == NO_UNIT) continue;
        expect<u32>(start % mixedSlabStep(units)).toBe(0);
        expect<u32>(start >> 12).toBe((start + units - 1) >> 12);
        for (let unit = start; unit < start + units; unit++) {
          if (isTaken[unit]) expect<u32>(unit).toBe(NO_UNIT);
          isTaken[unit] = true;
        }
        claimCount += 1;
        starts.push(start);
        lengths.push(units);
      } else if (starts.length > 1) {
        const i = random.below(starts.length);
        const start = starts[i];
        const units = lengths[i];
        for (let unit = start; unit < start + units; unit++) isTaken[unit] = false;
        starts[i] = starts[starts.length - 1];
        lengths[i] = lengths[lengths.length - 1];
        starts.pop();
        lengths.pop();
        mixedSlabRelease(base, row(), start, units);
        // Where one was given back, another is opened at the lowest place.
        if (!mixedSlabIs(base, row(), start >> 12)) expect<u32>(open()).toBe(start >> 12);
      }
    }
    expect<i32>(claimCount).toBeGreaterThan(5000);
  });

  test("slabs of every class become mixed where they lie, and serve what their classes did not", () => {
    const random = new Random(0x0ff1ce);
    const slots = new Array<u32>();
    while (true) {
      const bytes = sizeClassUnits(random.below(abi.SLAB_CLASS_COUNT)) << abi.UNIT_SHIFT;
      const slot = arenaAllocate(base, 1, bytes, 1);
      if (slot == 0) break;
      slots.push(slot);
    }
    expect<u32>(check(base)).toBe(0);
    let mixedCount = 0;
    for (let index: u32 = 0; index < 16; index++) {
      if (mixedSlabIs(base, row(), index)) mixedCount += 1;
    }
    expect<i32>(mixedCount).toBeGreaterThan(8);
    for (let i = 0; i < slots.length; i++) slotFree(base, slots[i], generationOf(base, slots[i]));
    expect<u32>(check(base)).toBe(0);
  });

  test("short arenas share slabs from the start, others when they have to", () => {
    arenaAllocate(base, 1, 100, 1);
    arenaAllocate(base, 1, 12288, 1);
    expect<u32>(row().slabCount).toBe(1);
    expect<bool>(mixedSlabIs(base, row(), 0)).toBe(true);
    expect<u32>(check(base)).toBe(0);
    base = planeWithSlabs(4096, abi.CLASS_SLABS_FROM);
    arenaAllocate(base, 1, 100, 1);
    arenaAllocate(base, 1, 12288, 1);
    expect<u32>(row().slabCount).toBe(2);
    expect<bool>(mixedSlabIs(base, row(), 0)).toBe(false);
  });

  test("finds a stretch over many words, and over the edge of two", () => {
    open();
    const lengths: u32[] = [60, 8, 200, 3, 57, 64];
    let at: u32 = 0;
    const starts = new Array<u32>();
    for (let i = 0; i < lengths.length; i++) {
      starts.push(mixedSlabClaim(base, row(), lengths[i]));
      expect<u32>(starts[i]).toBeGreaterThanOrEqual(at);
      at = starts[i] + lengths[i];
    }
    const last = mixedSlabClaim(base, row(), 500);
    for (let i = 1; i < lengths.length; i++) mixedSlabRelease(base, row(), starts[i], lengths[i]);
    const length = (last - 60) & ~3;
    expect<u32>(mixedSlabClaim(base, row(), length + 4)).toBeGreaterThan(last);
    expect<u32>(mixedSlabClaim(base, row(), length)).toBe(60);
  });

  test("a full slab stays what it is", () => {
    base = planeWithSlabs(4096, abi.CLASS_SLABS_FROM);
    for (let i = 0; i < 21; i++) arenaAllocate(base, 1, 12288, 1);
    expect<bool>(mixedSlabMixAll(base, row())).toBe(false);
    arenaAllocate(base, 1, 12288, 1);
    expect<bool>(mixedSlabMixAll(base, row())).toBe(true);
    expect<u32>(check(base)).toBe(0);
  });

  test("a request for a page gets a run when no slab has room, and none if it is short", () => {
    for (let i = 0; i < 15; i++) arenaAllocate(base, 1, 60 * 4096, 1);
    for (let i = 0; i < 6; i++) arenaAllocate(base, 1, 10 * 4096, 1);
    const slot = arenaAllocate(base, 1, 12288, 1);
    expect<u32>(sizingOf(base, slot)).toBe(abi.SIZING_SHORT);
    expect<u32>(offsetOf(base, slot) % 64).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 64, 1)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("restores blocks of any classes in one superblock, and refuses what is not free", () => {
    const page = sizeClassOf(191);
    expect<bool>(mixedSlabRestore(base, row(), page, 5)).toBe(true);
    expect<bool>(mixedSlabRestore(base, row(), 0, 4)).toBe(true);
    expect<bool>(mixedSlabRestore(base, row(), 0, 5)).toBe(false);
    expect<bool>(mixedSlabRestore(base, row(), page, 4000)).toBe(false);
    expect<bool>(mixedSlabRestore(base, row(), 0, u32.MAX_VALUE)).toBe(false);
  });
});
