// Lane: one per thread that works on a shared plane. Layer 10. A live block belongs to one lane, and
// only that lane frees, pins or moves it; so no two threads ever change one slot, and of two that free
// the same handle at most one is its owner. To change hands a block is handed over, which leaves it
// nobody's, and adopted by whoever comes first.
//
//   byte 0       4         8        12         16        64   one row per lane; row 0: nobody's
//        ┌───────┬─────────┬────────┬──────────┬──────────┐
//        │ state │ request │ status │ orphaned │ reserved │
//        └───────┴─────────┴────────┴──────────┴──────────┘
//
//   free → reserved (a token was made) → attached → dead → free
//
// A lane whose thread has ended, however it ended, is released by another one: if it held the guard,
// everything is rebuilt first; then what it owned is freed.
import * as abi from "./abi";
import { arenaTakeBack } from "./arena";
import { controlAt, controlLane } from "./control";
import { lockLane, lockLeave, lockPoison, lockTakeOver, lockTryEnter } from "./lock";
import { recoverAll } from "./recover";
import { slotsHot, slotsIsLive, slotsLane, slotsSetLane, slotsVerify } from "./slots";

/** Reserves a lane for another thread and returns it, or 0 if all are taken. */
export function laneTake(base: usize): u32 {
  for (let lane: u32 = abi.LANE_FIRST + 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
    if (laneState(base, lane) != abi.LANE_STATE_FREE) continue;
    setState(base, lane, abi.LANE_STATE_RESERVED);
    return lane;
  }
  return 0;
}

/** Begins to work as the lane of this instance, if it is reserved: exactly one thread can. */
export function laneBegin(base: usize): bool {
  const row = controlLane(base, lockLane()) + abi.LANE_OFF_STATE;
  if (ASC_FEATURE_THREADS) {
    const reserved: u32 = abi.LANE_STATE_RESERVED;
    return atomic.cmpxchg<u32>(row, reserved, abi.LANE_STATE_ATTACHED) == reserved;
  } else return false;
}

/**
 * Frees everything that `lane` owns, and the lane. Its thread has ended; not checked.
 *
 * @returns 0; STATUS_BAD_ARGUMENT, for a lane that is free or this one; STATUS_BUSY; or the INV_* code
 *   of damage that it left, and then the plane is poisoned. Cost: one pass over the used slots, and a
 *   recovery if it died inside a change.
 */
export function laneEnd(base: usize, lane: u32): u32 {
  if (lane == 0 || lane > <u32>abi.LANE_COUNT_MAX) return abi.STATUS_BAD_ARGUMENT;
  const isOther = lane != lockLane() && laneState(base, lane) != abi.LANE_STATE_FREE;
  if (!isOther) return abi.STATUS_BAD_ARGUMENT;
  setState(base, lane, abi.LANE_STATE_DEAD);
  if (lockTakeOver(base, lane)) {
    const broken = recoverAll(base);
    if (broken != 0) {
      lockPoison(base);
      return broken;
    }
  } else if (!lockTryEnter(base)) {
    return abi.STATUS_BUSY;
  }
  freeOwned(base, lane);
  setState(base, lane, abi.LANE_STATE_FREE);
  lockLeave(base);
  return abi.STATUS_OK;
}

/** Makes an unpinned block of this lane nobody's. A status. */
export function laneGive(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  if (slotsHot(base, slot).state == abi.SLOT_STATE_PINNED) return abi.STATUS_PINNED;
  slotsSetLane(base, slot, 0);
  return abi.STATUS_OK;
}

/** Makes a block that is nobody's one of this lane. A status. */
export function laneAdopt(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_NOT_OWNER)
    return status == abi.STATUS_OK ? abi.STATUS_NOT_OWNER : status;
  if (slotsLane(base, slot) != 0) return abi.STATUS_NOT_OWNER;
  slotsSetLane(base, slot, lockLane());
  return abi.STATUS_OK;
}

function freeOwned(base: usize, lane: u32): void {
  const slotFresh = controlAt(base).slotFresh;
  let count: u32 = 0;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    if (!slotsIsLive(slotsHot(base, slot)) || slotsLane(base, slot) != lane) continue;
    arenaTakeBack(base, slot);
    count += 1;
  }
  const orphaned = controlLane(base, 0) + abi.LANE_OFF_ORPHANED;
  store<u32>(orphaned, load<u32>(orphaned) + count);
}

function laneState(base: usize, lane: u32): u32 {
  const address = controlLane(base, lane) + abi.LANE_OFF_STATE;
  if (ASC_FEATURE_THREADS) return atomic.load<u32>(address);
  else return load<u32>(address);
}

function setState(base: usize, lane: u32, state: u32): void {
  const address = controlLane(base, lane) + abi.LANE_OFF_STATE;
  if (ASC_FEATURE_THREADS) atomic.store<u32>(address, state);
  else store<u32>(address, state);
}
