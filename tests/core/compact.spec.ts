import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  check,
  compactBegin,
  compactCommit,
  compactNext,
  compactPostpone,
  compactVeto,
  slotFree,
  slotPin,
  slotUnpin,
} from "../../assembly/index";
import {
  GRANULE_BYTES,
  Random,
  arenaAddress,
  epochOf,
  generationOf,
  offsetOf,
  planeWithArena,
  planeWithSlabs,
  sizingOf,
  status,
  superblockAddress,
  treeAddress,
} from "./support";

let base: u32 = 0;

/** Blocks of one granule: slots 1 to `count`, in address order. */
function fill(count: u32): void {
  for (let i: u32 = 0; i < count; i++) arenaAllocate(base, 1, GRANULE_BYTES, 1);
}

/** Commits every move of a new plan; returns their number. */
function compactAll(needBytes: u32 = 0, maySlide: bool = false): u32 {
  let moveCount: u32 = 0;
  compactBegin(base, 1, needBytes, maySlide);
  while (compactNext(base) != 0) {
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    moveCount += 1;
  }
  return moveCount;
}

/** Slots 1 to 8, of which 1 and 2 are freed: slots 8 and 7 have a place to go to. */
function sparse(): void {
  base = planeWithArena(16, 16);
  fill(8);
  slotFree(base, 1, 1);
  slotFree(base, 2, 1);
}

/** Slabs of the arena with at least 192 free units, which are room for a page of 12 KiB. */
function sparseSlabCount(): u32 {
  let count: u32 = 0;
  const superblockCount = load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_SUPERBLOCK_COUNT);
  for (let index: u32 = 0; index < superblockCount; index++) {
    const row = superblockAddress(base, index);
    if (load<u16>(row, abi.SUPERBLOCK_OFF_SIZE_CLASS) == abi.SIZE_CLASS_NONE) continue;
    const pageUnits = load<u32>(row, abi.SUPERBLOCK_OFF_PAGE_UNITS);
    if (load<u16>(row, abi.SUPERBLOCK_OFF_FREE_COUNT) * pageUnits >= 192) count += 1;
  }
  return count;
}

describe("compact", () => {
  test("makes one large block of 500 scattered ones", () => {
    base = planeWithArena(1001, 1024);
    fill(1000);
    for (let slot: u32 = 1; slot <= 1000; slot += 2) slotFree(base, slot, 1);
    expect<u32>(arenaAllocate(base, 1, 256 * GRANULE_BYTES, 1)).toBe(0);
    expect<u32>(compactBegin(base, 1, 0, false)).toBe(500);
    expect<u32>(compactAll()).toBe(250);
    for (let slot: u32 = 2; slot <= 1000; slot += 2) {
      expect<bool>(offsetOf(base, slot) < 500).toBe(true);
      expect<u32>(generationOf(base, slot)).toBe(1);
    }
    expect<u32>(check(base)).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 512 * GRANULE_BYTES, 1)).not.toBe(0);
    expect<u32>(compactAll()).toBe(0);
  });

  test("describes a move, holds its target, and changes the epoch on commit", () => {
    sparse();
    expect<u32>(compactBegin(base, 1, 0, false)).toBe(6);
    expect<u32>(status(base)).toBe(abi.STATUS_OK);
    expect<u32>(compactNext(base)).toBe(8);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_SLOT)).toBe(8);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_SOURCE)).toBe(7);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_TARGET)).toBe(0);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_UNITS)).toBe(1);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_GENERATION)).toBe(1);
    expect<u32>(check(base)).toBe(0, "the target counts as claimed");
    expect<u32>(offsetOf(base, 8)).toBe(7);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    expect<u32>(offsetOf(base, 8)).toBe(0);
    expect<u32>(epochOf(base, 8)).toBe(2);
    expect<u32>(check(base)).toBe(0);
  });

  test("leaves the block in place after a veto and goes on with the next", () => {
    sparse();
    compactBegin(base, 1, 0, false);
    expect<u32>(compactNext(base)).toBe(8);
    expect<u32>(compactVeto(base)).toBe(abi.STATUS_OK);
    expect<u32>(offsetOf(base, 8)).toBe(7);
    expect<u32>(epochOf(base, 8)).toBe(1);
    expect<u32>(compactNext(base)).toBe(7);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_TARGET)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("next, begin and close give up a pending move", () => {
    sparse();
    compactBegin(base, 1, 0, false);
    compactNext(base);
    compactNext(base);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_TARGET)).toBe(0);
    compactBegin(base, 1, 0, false);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_NO_PLAN);
    compactNext(base);
    for (let slot: u32 = 3; slot <= 8; slot++) slotFree(base, slot, 1);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0, "a target is still claimed");
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_NO_PLAN: refuses next, commit and veto without a plan or a pending move", () => {
    sparse();
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_PLAN);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_NO_PLAN);
    expect<u32>(compactVeto(base)).toBe(abi.STATUS_NO_PLAN);
    compactAll();
    expect<u32>(status(base)).toBe(abi.STATUS_OK, "the plan ended in good order");
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_PLAN);
  });

  test("STATUS_NO_ARENA: refuses to plan for an arena that is not open", () => {
    sparse();
    expect<u32>(compactBegin(base, 0, 0, false)).toBe(0);
    expect<u32>(compactBegin(base, 2, 0, false)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    expect<u32>(compactBegin(base, u32.MAX_VALUE, 0, false)).toBe(0);
  });

  test("skips blocks that are pinned or freed since begin", () => {
    sparse();
    compactBegin(base, 1, 0, false);
    slotPin(base, 8, 1);
    slotFree(base, 7, 1);
    expect<u32>(compactNext(base)).toBe(6);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    expect<u32>(offsetOf(base, 8)).toBe(7);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_PINNED: vetoes a move of a block pinned after next, even if unpinned again", () => {
    sparse();
    compactBegin(base, 1, 0, false);
    compactNext(base);
    slotPin(base, 8, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_PINNED);
    slotUnpin(base, 8, 1);
    expect<u32>(compactNext(base)).toBe(7);
    slotPin(base, 7, 1);
    slotUnpin(base, 7, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_PINNED);
    expect<u32>(offsetOf(base, 7)).toBe(6);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_STALE: vetoes a move whose block was freed after next, even if bound again", () => {
    sparse();
    compactBegin(base, 1, 0, false);
    compactNext(base);
    slotFree(base, 8, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_STALE);
    expect<u32>(check(base)).toBe(0);
    compactNext(base);
    slotFree(base, 7, 1);
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(7);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_STALE);
    expect<u32>(check(base)).toBe(0);
  });

  test("never moves a block that owns its arena", () => {
    base = planeWithArena(8, 100);
    arenaAllocateWhole(base, 1, 1);
    expect<u32>(compactBegin(base, 1, 0, false)).toBe(0);
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_OK);
  });

  test("keeps every invariant under allocation, frees and pins in between, seed 0x51ce5eed", () => {
    base = planeWithArena(64, 150);
    const random = new Random(0x51ce5eed);
    for (let step = 0; step < 6000; step++) {
      const slot = random.below(63) + 1;
      // The row of a slot never handed out holds garbage; as a generation that is fine.
      const generation = generationOf(base, slot);
      const choice = random.below(10);
      if (choice < 4) arenaAllocate(base, 1, 1 + random.below(8 * GRANULE_BYTES), 1);
      else if (choice < 6) slotFree(base, slot, generation);
      else if (choice == 6) slotPin(base, slot, generation);
      else if (choice == 7) slotUnpin(base, slot, generation);
      else if (random.below(12) == 0) compactBegin(base, 1, 0, false);
      else if (compactNext(base) != 0 && random.below(4) != 0) {
        if (random.below(8) == 0) slotFree(base, slot, generation);
        compactCommit(base);
      }
      expect<u32>(check(base)).toBe(0);
    }
    compactAll();
    expect<u32>(check(base)).toBe(0);
    const free = load<u32>(treeAddress(base, 1), abi.TREE_OFF_FREE);
    const granted = load<u64>(arenaAddress(base, 1), abi.ARENA_OFF_CLAIMED);
    expect<u64>(free * GRANULE_BYTES + granted).toBe(150 * GRANULE_BYTES);
  });

  test("GOAL_PACK, GOAL_WINDOW: all but dust of the free space becomes one piece", () => {
    base = planeWithSlabs(2000, 32);
    const random = new Random(0x0c0ffee5);
    const slots = new Array<u32>();
    for (let slot = arenaAllocate(base, 1, 12288, 1); slot != 0; ) {
      slots.push(slot);
      slot = arenaAllocate(base, 1, random.below(8) == 0 ? 100000 : 12288, 1);
    }
    for (let i = 0; i < slots.length; i++) {
      if (random.below(10) < 6) slotFree(base, slots[i], generationOf(base, slots[i]));
    }
    let moveCount = compactAll();
    expect<u32>(check(base)).toBe(0);
    while (moveCount != 0) moveCount = compactAll();
    expect<u32>(check(base)).toBe(0);
    expect<bool>(sparseSlabCount() <= 1).toBe(true);
    const free = load<u32>(treeAddress(base, 1), abi.TREE_OFF_FREE);
    const bytes = free << abi.SLAB_GRANULE_SHIFT;
    let largest = bytes;
    while (arenaAllocate(base, 1, largest, 1) == 0) largest -= 65536;
    expect<u32>(largest / (bytes / 1000)).toBeGreaterThan(900);
  });

  test("GOAL_SLIDE: runs of any length slide together until what is needed is free", () => {
    base = planeWithSlabs(200, 16);
    // Runs of 9 and 25 granules with gaps of 9 between them: no run of 25 finds another place.
    for (let i = 0; i < 30; i++) {
      arenaAllocate(base, 1, 9 * 4096, 1);
      arenaAllocate(base, 1, 25 * 4096, 1);
    }
    while (arenaAllocate(base, 1, 40000, 1) != 0);
    for (let slot: u32 = 1; slot <= 59; slot += 2) slotFree(base, slot, 1);
    const need: u32 = 200 * 4096;
    expect<u32>(arenaAllocate(base, 1, need, 1)).toBe(0);
    compactAll(need, false);
    expect<u32>(arenaAllocate(base, 1, need, 1)).toBe(0, "without overlap there is no place");
    compactBegin(base, 1, need, true);
    let slideCount = 0;
    for (let slot = compactNext(base); slot != 0; slot = compactNext(base)) {
      const source = load<u32>(base, abi.CONTROL_OFF_PLAN_SOURCE);
      const target = load<u32>(base, abi.CONTROL_OFF_PLAN_TARGET);
      expect<u32>(check(base)).toBe(0, "what is new of the target counts as claimed");
      if (target > source && target < source + load<u32>(base, abi.CONTROL_OFF_PLAN_UNITS)) {
        slideCount += 1;
        expect<u32>(slotPin(base, slot, generationOf(base, slot))).toBe(0);
        expect<u32>(status(base)).toBe(abi.STATUS_BUSY);
        if (slideCount == 1) {
          expect<u32>(compactPostpone(base)).toBe(abi.STATUS_OK);
          expect<u32>(check(base)).toBe(0);
          expect<u32>(compactNext(base)).toBe(slot, "offered again");
        }
      }
      expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
      expect<u32>(check(base)).toBe(0);
    }
    expect<i32>(slideCount).toBeGreaterThan(0);
    expect<u32>(arenaAllocate(base, 1, need, 1)).not.toBe(0);
  });

  test("a slide whose block is freed before the commit gives back what it had claimed", () => {
    base = planeWithSlabs(64, 16);
    for (let i = 0; i < 3; i++) arenaAllocate(base, 1, 25 * 4096, 1);
    arenaAllocate(base, 1, (1024 - 75) * 4096, 1);
    slotFree(base, 3, 1);
    slotFree(base, 1, 1);
    // 25 granules free, 25 used, 25 free, and no place for a run of 50.
    compactBegin(base, 1, 50 * 4096, true);
    expect<u32>(compactNext(base)).toBe(2);
    slotFree(base, 2, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_STALE);
    expect<u32>(check(base)).toBe(0);
  });

  test("a page becomes a run where no slab has room, and a page again where one has", () => {
    base = planeWithSlabs(400, 16);
    // Fifteen slabs of 12 KiB, and one with a single page; then all that is left of the arena in runs.
    for (let i = 0; i < 15 * 21 + 1; i++) arenaAllocate(base, 1, 12288, 1);
    const last: u32 = 15 * 21 + 1;
    expect<u32>(load<u32>(treeAddress(base, 1), abi.TREE_OFF_FREE)).toBe(0);
    for (let slot: u32 = 1; slot <= 21; slot++) slotFree(base, slot, 1);
    while (arenaAllocate(base, 1, 57 * 4096, 1) == 0) compactAll();
    // The first superblock: a run of 57 granules and 7 that are free. The last page is to leave its slab.
    compactAll(64 * 4096, true);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(sizingOf(base, last)).toBe(abi.SIZING_SHORT);
    expect<u32>(arenaAllocate(base, 1, 64 * 4096, 1)).not.toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("does not open a slab for one that a pin would keep open", () => {
    base = planeWithSlabs(200, 16);
    for (let i = 0; i < 42; i++) arenaAllocate(base, 1, 12288, 1);
    arenaAllocate(base, 1, 12288, 1);
    for (let slot: u32 = 1; slot <= 21; slot++) slotFree(base, slot, 1);
    slotFree(base, 43, 1);
    slotPin(base, 30, 1);
    // The lightest window lies above the pinned slab already.
    expect<u32>(compactAll()).toBe(0);
    slotUnpin(base, 30, 1);
    compactAll();
    expect<u32>(compactAll()).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("keeps every invariant of a slab arena under everything else, seed 0x7e57c0de", () => {
    base = planeWithSlabs(160, 16);
    const random = new Random(0x7e57c0de);
    for (let step = 0; step < 6000; step++) {
      const slot = random.below(159) + 1;
      const generation = generationOf(base, slot);
      const choice = random.below(12);
      if (choice < 5) {
        const bytes = 1 + random.below((<u32>1) << (6 + random.below(14)));
        arenaAllocate(base, 1, bytes, (<u32>1) << random.below(17));
      } else if (choice < 8) slotFree(base, slot, generation);
      else if (choice == 8) slotPin(base, slot, generation);
      else if (choice == 9) slotUnpin(base, slot, generation);
      else if (random.below(20) == 0) {
        const need = random.below(2) == 0 ? 0 : random.below(1 << 21);
        compactBegin(base, 1, need, random.below(2) == 0);
      } else if (random.below(8) == 0) compactPostpone(base);
      else if (compactNext(base) != 0 && random.below(4) != 0) {
        if (random.below(8) == 0) slotFree(base, slot, generation);
        compactCommit(base);
      }
      if (step % 4 == 0) expect<u32>(check(base)).toBe(0);
    }
    compactAll();
    expect<u32>(check(base)).toBe(0);
  });
});
