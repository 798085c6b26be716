import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaOpen,
  check,
  compactBegin,
  compactCommit,
  compactNext,
  slotExchange,
  slotFree,
  slotPin,
  slotResize,
  slotResolve,
  slotUnits,
  slotUnpin,
} from "../../assembly/index";
import {
  GRANULE_SHIFT,
  Random,
  arenaAddress,
  epochOf,
  generationOf,
  hotAddress,
  offsetOf,
  plane,
  planeWithArena,
  planeWithSlabs,
  poolAddress,
} from "./support";

let base: u32 = 0;

function requestedOf(slot: u32): u32 {
  return load<u32>(hotAddress(base, slot), abi.HOT_OFF_REQUESTED);
}

function resize(slot: u32, bytes: u32, alignment: u32 = 1): u32 {
  return slotResize(base, slot, generationOf(base, slot), bytes, alignment);
}

function exchange(slot: u32, other: u32): u32 {
  return slotExchange(base, slot, generationOf(base, slot), other, generationOf(base, other));
}

function free(slot: u32): void {
  expect<u32>(slotFree(base, slot, generationOf(base, slot))).toBe(abi.STATUS_OK);
}

function grantedOf(arena: u32): u64 {
  return load<u64>(arenaAddress(base, arena), abi.ARENA_OFF_CLAIMED);
}

describe("resize in place", () => {
  test("a plain block gives its upper halves back and takes free buddies again", () => {
    base = planeWithArena(8, 64);
    const slot = arenaAllocate(base, 1, 1024, 1);
    const epoch = epochOf(base, slot);
    expect<u32>(resize(slot, 65)).toBe(abi.STATUS_OK);
    expect<u32>(requestedOf(slot)).toBe(65);
    expect<u64>(grantedOf(1)).toBe(128);
    expect<u32>(epochOf(base, slot)).not.toBe(epoch, "views of the old length are stale");
    expect<u32>(check(base)).toBe(0);
    const second = arenaAllocate(base, 1, 128, 1);
    expect<u32>(offsetOf(base, second)).toBe(2);
    expect<u32>(resize(slot, 129)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(requestedOf(slot)).toBe(65);
    free(second);
    expect<u32>(resize(slot, 4096)).toBe(abi.STATUS_OK);
    expect<u64>(grantedOf(1)).toBe(4096);
    expect<u32>(resize(slot, 4097)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(check(base)).toBe(0);
    free(slot);
    expect<u32>(check(base)).toBe(0);
  });

  test("an upper buddy cannot grow downwards", () => {
    base = planeWithArena(8, 64);
    const lower = arenaAllocate(base, 1, 64, 1);
    const upper = arenaAllocate(base, 1, 64, 1);
    free(lower);
    expect<u32>(resize(upper, 128)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(check(base)).toBe(0);
  });

  test("a page stays while it is half used", () => {
    base = planeWithSlabs(64, 16);
    const slot = arenaAllocate(base, 1, 12288, 1);
    const offset = offsetOf(base, slot);
    expect<u32>(resize(slot, 12200)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 6500)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 12288)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 12289)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(resize(slot, 6144)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(resize(slot, 65536)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(offsetOf(base, slot)).toBe(offset);
    expect<u32>(requestedOf(slot)).toBe(12288);
    expect<u32>(check(base)).toBe(0);
    free(slot);
    expect<u32>(check(base)).toBe(0);
  });

  test("a run grows into what is free behind it and gives its tail back", () => {
    base = planeWithSlabs(64, 16);
    const slot = arenaAllocate(base, 1, 1 << 20, 1);
    expect<u32>(resize(slot, 2 << 20)).toBe(abi.STATUS_OK);
    expect<u32>(slotUnits(base, slot) << abi.UNIT_SHIFT).toBe(2 << 20);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(resize(slot, 40000)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    const behind = arenaAllocate(base, 1, 1 << 20, 1);
    expect<u32>(resize(slot, 4 << 20)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(resize(slot, 32768)).toBe(abi.STATUS_NO_ROOM, "a page is elsewhere");
    free(behind);
    expect<u32>(check(base)).toBe(0);
  });

  test("a whole arena stays while half of it is used", () => {
    base = planeWithArena(8, 64);
    const slot = arenaAllocateWhole(base, 1, 4096);
    expect<u32>(resize(slot, 2049)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 4096)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 4097)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(resize(slot, 2048)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(check(base)).toBe(0);
  });

  test("keeps alignment, or refuses", () => {
    base = planeWithArena(8, 64);
    arenaAllocate(base, 1, 64, 1);
    const slot = arenaAllocate(base, 1, 64, 1);
    expect<u32>(resize(slot, 64, 64)).toBe(abi.STATUS_OK);
    expect<u32>(resize(slot, 64, 128)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(check(base)).toBe(0);
  });

  test("refuses misuse and changes nothing", () => {
    base = planeWithArena(8, 64);
    const slot = arenaAllocate(base, 1, 256, 1);
    const generation = generationOf(base, slot);
    const epoch = epochOf(base, slot);
    expect<u32>(resize(slot, 0)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(resize(slot, 64, 0)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(resize(slot, 64, 3)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(slotResize(base, slot, generation + 1, 64, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotResize(base, 0, generation, 64, 1)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotResize(base, 7, generation, 64, 1)).toBe(abi.STATUS_FOREIGN);
    slotPin(base, slot, generation);
    expect<u32>(resize(slot, 64)).toBe(abi.STATUS_PINNED);
    slotUnpin(base, slot, generation);
    expect<u32>(requestedOf(slot)).toBe(256);
    expect<u32>(epochOf(base, slot)).toBe(epoch);
    store<u32>(base, 1, abi.CONTROL_OFF_GUARD);
    expect<u32>(resize(slot, 64)).toBe(abi.STATUS_BUSY);
    expect<u32>(exchange(slot, slot)).toBe(abi.STATUS_BUSY);
    store<u32>(base, 0, abi.CONTROL_OFF_GUARD);
    expect<u32>(check(base)).toBe(0);
  });

  test("a pending move of the block is vetoed", () => {
    base = planeWithArena(8, 64);
    const low = arenaAllocate(base, 1, 1024, 1);
    const high = arenaAllocate(base, 1, 1024, 1);
    free(low);
    compactBegin(base, 1, 0, false);
    expect<u32>(compactNext(base)).toBe(high);
    expect<u32>(resize(high, 64)).toBe(abi.STATUS_OK);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_PINNED);
    expect<u32>(check(base)).toBe(0);
  });

  test("counts growth as bytes and not as an allocation", () => {
    base = planeWithArena(8, 64);
    const slot = arenaAllocate(base, 1, 64, 1);
    resize(slot, 4096);
    resize(slot, 100);
    const pool = poolAddress(base, 0);
    expect<u64>(load<u64>(pool, abi.POOL_OFF_REQUESTED_PEAK)).toBe(4096);
    expect<u64>(load<u64>(pool, abi.POOL_OFF_HEADROOM)).toBe(3996);
    expect<u64>(load<u64>(pool, abi.POOL_OFF_CLAIMED_PEAK)).toBe(4096);
    expect<u64>(load<u64>(pool, abi.POOL_OFF_ALLOCATIONS)).toBe(1);
  });
});

describe("exchange", () => {
  test("swaps blocks between arenas under both handles", () => {
    base = plane(8, 4, 4096);
    expect<u32>(arenaOpen(base, 0, 64, GRANULE_SHIFT)).toBe(1);
    expect<u32>(arenaOpen(base, 0, 64, GRANULE_SHIFT)).toBe(2);
    arenaAllocate(base, 1, 64, 1);
    const slot = arenaAllocate(base, 1, 100, 1);
    const other = arenaAllocateWhole(base, 2, 4000);
    const epoch = epochOf(base, slot);
    const otherEpoch = epochOf(base, other);
    const generation = generationOf(base, slot);
    expect<u32>(exchange(slot, other)).toBe(abi.STATUS_OK);
    expect<u32>(offsetOf(base, slot)).toBe(0);
    expect<u32>(offsetOf(base, other)).toBe(2);
    expect<u32>(requestedOf(slot)).toBe(4000);
    expect<u32>(requestedOf(other)).toBe(100);
    expect<u32>(epochOf(base, slot)).not.toBe(epoch);
    expect<u32>(epochOf(base, other)).not.toBe(otherEpoch);
    expect<u32>(slotResolve(base, slot, generation)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    free(slot);
    free(other);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(arenaAllocateWhole(base, 2, 4000)).not.toBe(0);
  });

  test("refuses pinned, stale and foreign slots, and another pool", () => {
    base = plane(8, 4, 4096);
    arenaOpen(base, 0, 64, GRANULE_SHIFT);
    arenaOpen(base, 1, 64, GRANULE_SHIFT);
    const slot = arenaAllocate(base, 1, 64, 1);
    const other = arenaAllocate(base, 1, 64, 1);
    const elsewhere = arenaAllocate(base, 2, 64, 1);
    expect<u32>(exchange(slot, elsewhere)).toBe(abi.STATUS_BAD_ARGUMENT);
    slotPin(base, other, generationOf(base, other));
    expect<u32>(exchange(slot, other)).toBe(abi.STATUS_PINNED);
    expect<u32>(exchange(other, slot)).toBe(abi.STATUS_PINNED);
    slotUnpin(base, other, generationOf(base, other));
    free(other);
    expect<u32>(exchange(slot, other)).toBe(abi.STATUS_STALE);
    expect<u32>(exchange(slot, 0)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(exchange(slot, slot)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("vetoes the pending move of either", () => {
    base = planeWithArena(8, 64);
    const low = arenaAllocate(base, 1, 1024, 1);
    const high = arenaAllocate(base, 1, 1024, 1);
    const other = arenaAllocate(base, 1, 1024, 1);
    free(low);
    compactBegin(base, 1, 0, false);
    const moving = compactNext(base);
    expect<u32>(exchange(moving == high ? other : high, moving)).toBe(abi.STATUS_OK);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_PINNED);
    expect<u32>(check(base)).toBe(0);
  });
});

/** Allocates, frees, exchanges and resizes in arena 1 at random; checks each invariant on the way. */
function shuffle(bytesShiftMax: u32, seed: u32): void {
  const random = new Random(seed);
  const slots = new Array<u32>();
  let inPlaceCount = 0;
  let refusedCount = 0;
  for (let step = 0; step < 8000; step++) {
    const draw = random.below(8);
    const alignment = (<u32>1) << random.below(13);
    const bytes = 1 + random.below((<u32>1) << (1 + random.below(bytesShiftMax)));
    if (draw < 2 || slots.length == 0) {
      const slot = arenaAllocate(base, 1, bytes, alignment);
      if (slot != 0) slots.push(slot);
    } else if (draw < 4) {
      const index = random.below(slots.length);
      free(slots[index]);
      slots[index] = slots[slots.length - 1];
      slots.pop();
    } else if (draw < 5) {
      exchange(slots[random.below(slots.length)], slots[random.below(slots.length)]);
    } else {
      const slot = slots[random.below(slots.length)];
      const offset = offsetOf(base, slot);
      const before = requestedOf(slot);
      const isResized = resize(slot, bytes, alignment) == abi.STATUS_OK;
      expect<u32>(offsetOf(base, slot)).toBe(offset);
      expect<u32>(requestedOf(slot)).toBe(isResized ? bytes : before);
      if (isResized) inPlaceCount += 1;
      else refusedCount += 1;
    }
    if (step % 50 == 0) expect<u32>(check(base)).toBe(0);
  }
  expect<i32>(inPlaceCount).toBeGreaterThan(200);
  expect<i32>(refusedCount).toBeGreaterThan(200);
  while (slots.length != 0) free(slots.pop());
  expect<u32>(check(base)).toBe(0);
}

describe("resize, random", () => {
  test("plain arena, seed 0x51ce", () => {
    base = planeWithArena(256, 4096);
    shuffle(14, 0x51ce);
  });

  test("slab arena, seed 0x51ce", () => {
    base = planeWithSlabs(256, 64);
    shuffle(20, 0x51ce);
  });
});
