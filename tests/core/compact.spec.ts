import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  check,
  compactBegin,
  compactCommit,
  compactNext,
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
function compactAll(): u32 {
  let moveCount: u32 = 0;
  compactBegin(base, 1);
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

/** Slabs of the arena that have a free page. */
function partialSlabCount(): u32 {
  let count: u32 = 0;
  const superblockCount = load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_SUPERBLOCK_COUNT);
  for (let index: u32 = 0; index < superblockCount; index++) {
    const row = superblockAddress(base, index);
    if (load<u16>(row, abi.SUPERBLOCK_OFF_SIZE_CLASS) == abi.SIZE_CLASS_NONE) continue;
    if (load<u16>(row, abi.SUPERBLOCK_OFF_FREE_COUNT) != 0) count += 1;
  }
  return count;
}

describe("compact", () => {
  test("makes one large block of 500 scattered ones", () => {
    base = planeWithArena(1001, 1024);
    fill(1000);
    for (let slot: u32 = 1; slot <= 1000; slot += 2) slotFree(base, slot, 1);
    expect<u32>(arenaAllocate(base, 1, 256 * GRANULE_BYTES, 1)).toBe(0);
    expect<u32>(compactBegin(base, 1)).toBe(500);
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
    expect<u32>(compactBegin(base, 1)).toBe(6);
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
    compactBegin(base, 1);
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
    compactBegin(base, 1);
    compactNext(base);
    compactNext(base);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_TARGET)).toBe(0);
    compactBegin(base, 1);
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
    expect<u32>(compactBegin(base, 0)).toBe(0);
    expect<u32>(compactBegin(base, 2)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    expect<u32>(compactBegin(base, u32.MAX_VALUE)).toBe(0);
  });

  test("skips blocks that are pinned or freed since begin", () => {
    sparse();
    compactBegin(base, 1);
    slotPin(base, 8, 1);
    slotFree(base, 7, 1);
    expect<u32>(compactNext(base)).toBe(6);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    expect<u32>(offsetOf(base, 8)).toBe(7);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_PINNED: vetoes a move of a block pinned after next, even if unpinned again", () => {
    sparse();
    compactBegin(base, 1);
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
    compactBegin(base, 1);
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
    expect<u32>(compactBegin(base, 1)).toBe(0);
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
      else if (random.below(12) == 0) compactBegin(base, 1);
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

  test("moves pages into lower slabs and slabs downwards, until the free space is one piece", () => {
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
    const partial = partialSlabCount();
    expect<bool>(partial <= 1).toBe(true);
    // What is free lies above, but for gaps that are shorter than what is to be moved into them.
    const free = load<u32>(treeAddress(base, 1), abi.TREE_OFF_FREE);
    const bytes = free << abi.SLAB_GRANULE_SHIFT;
    let largest = bytes;
    while (arenaAllocate(base, 1, largest, 1) == 0) largest -= 65536;
    expect<u32>(largest / (bytes / 1000)).toBeGreaterThan(900);
  });

  test("does not open a slab for one that a pin would keep open", () => {
    base = planeWithSlabs(200, 16);
    for (let i = 0; i < 42; i++) arenaAllocate(base, 1, 12288, 1);
    for (let slot: u32 = 1; slot <= 21; slot++) slotFree(base, slot, 1);
    slotPin(base, 30, 1);
    expect<u32>(compactBegin(base, 1)).toBe(21);
    expect<u32>(compactNext(base)).toBe(0);
    slotUnpin(base, 30, 1);
    expect<u32>(compactAll()).toBe(21);
    expect<u32>(compactAll()).toBe(0);
    expect<u32>(offsetOf(base, 42)).toBe(0);
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
      else if (random.below(20) == 0) compactBegin(base, 1);
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
