import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  arenaMetadataBytes,
  arenaOpen,
  check,
  compactCommit,
  compactEvacuate,
  compactNext,
  compactVeto,
  controlBytes,
  controlInit,
  slotFree,
  slotPin,
  slotUnpin,
} from "../../assembly/index";
import {
  GRANULE_BYTES,
  GRANULE_SHIFT,
  Random,
  SLAB_UNITS,
  arenaAddress,
  epochOf,
  garbage,
  generationOf,
  hotAddress,
  liveCountOf,
  offsetOf,
  poolAddress,
  stateOf,
  status,
} from "./support";

let base: u32 = 0;

/** A plane whose arenas 1 and 2, of pool 0, have these lengths in granules of 64 bytes. */
function planeWithTwo(slotCapacity: u32, first: u32, second: u32): void {
  const region =
    arenaMetadataBytes(first, GRANULE_SHIFT) + 2 * arenaMetadataBytes(second, GRANULE_SHIFT);
  const bytes = controlBytes(slotCapacity, 5, region);
  base = garbage(bytes);
  assert(controlInit(base, bytes, slotCapacity, 5) == abi.STATUS_OK);
  assert(arenaOpen(base, 0, first, GRANULE_SHIFT) == 1);
  assert(arenaOpen(base, 0, second, GRANULE_SHIFT) == 2);
}

function arenaOf(slot: u32): u32 {
  return load<u16>(hotAddress(base, slot), abi.HOT_OFF_ARENA);
}

/** Commits every move of a plan that evacuates; returns their number. */
function evacuateAll(arena: u32, into: u32): u32 {
  let moveCount: u32 = 0;
  compactEvacuate(base, arena, into);
  while (compactNext(base) != 0) {
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    moveCount += 1;
  }
  return moveCount;
}

describe("compactEvacuate", () => {
  test("GOAL_EVACUATE: moves every block, long ones first, under the slots that they have", () => {
    planeWithTwo(16, 64, 64);
    const short = arenaAllocate(base, 2, GRANULE_BYTES, 1);
    const long = arenaAllocate(base, 2, 16 * GRANULE_BYTES, 1);
    const other = arenaAllocate(base, 1, GRANULE_BYTES, 1);
    const requested = load<u64>(poolAddress(base, 0), abi.POOL_OFF_REQUESTED_PEAK);
    expect<u32>(compactEvacuate(base, 2, 1)).toBe(2);
    expect<u32>(compactNext(base)).toBe(long);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_PLAN_INTO)).toBe(1);
    expect<u32>(check(base)).toBe(0, "the target counts as claimed in the other arena");
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(compactNext(base)).toBe(short);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_OK);
    expect<u32>(compactNext(base)).toBe(0);
    expect<u32>(arenaOf(long)).toBe(1);
    expect<u32>(arenaOf(short)).toBe(1);
    expect<u32>(epochOf(base, long)).toBe(2);
    expect<u32>(epochOf(base, other)).toBe(1);
    expect<u32>(generationOf(base, long)).toBe(1);
    expect<bool>(offsetOf(base, short) != offsetOf(base, other)).toBe(true);
    expect<u32>(liveCountOf(base, 1)).toBe(3);
    expect<u32>(liveCountOf(base, 2)).toBe(0);
    expect<u64>(load<u64>(poolAddress(base, 0), abi.POOL_OFF_REQUESTED_PEAK)).toBe(requested);
    expect<u32>(arenaClose(base, 2)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("leaves what is pinned, owns its arena or finds no place", () => {
    planeWithTwo(16, 16, 64);
    const pinned = arenaAllocate(base, 2, GRANULE_BYTES, 1);
    const long = arenaAllocate(base, 2, 32 * GRANULE_BYTES, 1);
    const short = arenaAllocate(base, 2, GRANULE_BYTES, 1);
    slotPin(base, pinned, 1);
    expect<u32>(evacuateAll(2, 1)).toBe(1);
    expect<u32>(arenaOf(pinned)).toBe(2);
    expect<u32>(arenaOf(long)).toBe(2);
    expect<u32>(arenaOf(short)).toBe(1);
    slotUnpin(base, pinned, 1);
    slotFree(base, pinned, 1);
    slotFree(base, long, 1);
    const whole = arenaAllocateWhole(base, 2, 64);
    expect<u32>(evacuateAll(2, 1)).toBe(0);
    expect<u32>(arenaOf(whole)).toBe(2);
    expect<u32>(check(base)).toBe(0);
  });

  test("gives the target back after a veto, a pin, a free and the end of either arena", () => {
    planeWithTwo(16, 64, 64);
    const slot = arenaAllocate(base, 2, 32 * GRANULE_BYTES, 1);
    compactEvacuate(base, 2, 1);
    expect<u32>(compactNext(base)).toBe(slot);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0, "the target is claimed");
    expect<u32>(compactVeto(base)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    compactEvacuate(base, 2, 1);
    compactNext(base);
    slotPin(base, slot, 1);
    slotUnpin(base, slot, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_PINNED);
    expect<u32>(arenaOf(slot)).toBe(2);
    compactEvacuate(base, 2, 1);
    compactNext(base);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK, "its only block is a target");
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_NO_PLAN);
    expect<u32>(arenaOpen(base, 0, 64, GRANULE_SHIFT)).toBe(1);
    compactEvacuate(base, 2, 1);
    compactNext(base);
    slotFree(base, slot, 1);
    expect<u32>(compactCommit(base)).toBe(abi.STATUS_STALE);
    const whole = arenaAllocateWhole(base, 1, 1);
    expect<bool>(whole != 0).toBe(true);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_NO_ARENA, STATUS_BAD_ARGUMENT: refuses arenas that are closed or not alike", () => {
    planeWithTwo(16, 64, 64);
    expect<u32>(compactEvacuate(base, 2, 3)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    expect<u32>(compactEvacuate(base, u32.MAX_VALUE, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    expect<u32>(compactEvacuate(base, 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(arenaOpen(base, 1, 64, GRANULE_SHIFT)).toBe(3);
    expect<u32>(compactEvacuate(base, 1, 3)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
    planeWithTwo(16, SLAB_UNITS, 64);
    expect<u32>(compactEvacuate(base, 1, 2)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
  });

  test("keeps every invariant between slab arenas of two lengths, seed 0xe7ac0a7e", () => {
    planeWithTwo(400, SLAB_UNITS, 2 * SLAB_UNITS);
    const random = new Random(0xe7ac0a7e);
    let crossedCount = 0;
    for (let step = 0; step < 8000; step++) {
      const slot = random.below(399) + 1;
      const generation = generationOf(base, slot);
      const choice = random.below(16);
      if (choice < 6) {
        const bytes = 1 + random.below((<u32>1) << (6 + random.below(15)));
        arenaAllocate(base, 1 + random.below(2), bytes, (<u32>1) << random.below(17));
      } else if (choice < 9) slotFree(base, slot, generation);
      else if (choice == 9) slotPin(base, slot, generation);
      else if (choice == 10) slotUnpin(base, slot, generation);
      else if (random.below(30) == 0) {
        const arena = 1 + random.below(2);
        compactEvacuate(base, arena, 3 - arena);
      } else {
        const moving = compactNext(base);
        if (moving == 0 || random.below(4) == 0) continue;
        if (random.below(8) == 0) slotFree(base, slot, generation);
        const alignment = alignmentOf(moving);
        if (compactCommit(base) != abi.STATUS_OK) continue;
        crossedCount += 1;
        expect<bool>(alignmentOf(moving) >= min<u32>(alignment, 256)).toBe(true);
      }
      if (step % 4 == 0) expect<u32>(check(base)).toBe(0);
    }
    expect<bool>(crossedCount > 300).toBe(true);
    for (let slot: u32 = 1; slot < 400; slot++) {
      while (slotUnpin(base, slot, generationOf(base, slot)) == abi.STATUS_OK) {}
      const isLive = stateOf(base, slot) == abi.SLOT_STATE_LIVE;
      if (isLive) expect<u32>(slotFree(base, slot, generationOf(base, slot))).toBe(abi.STATUS_OK);
    }
    expect<u32>(check(base)).toBe(0);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(arenaClose(base, 2)).toBe(abi.STATUS_OK);
  });
});

/** Bytes that the sizing of a slot's block promises for where it starts. */
function alignmentOf(slot: u32): u32 {
  const unitShift = load<u32>(arenaAddress(base, arenaOf(slot)), abi.ARENA_OFF_UNIT_SHIFT);
  const start = offsetOf(base, slot) << unitShift;
  const sizing = <i32>load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING);
  if (sizing == abi.SIZING_ALIGNED) return start % 65536 == 0 ? 65536 : 0;
  if (sizing >= abi.SIZING_SHORT) return start % 4096 == 0 ? 4096 : 0;
  return 64;
}
