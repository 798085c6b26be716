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
import { arenaRow, arenaUsageOf } from "./arena-row";
import { controlAt, controlLane } from "./control";
import {
  laneCacheDrain,
  laneCacheFold,
  laneCacheFormat,
  laneCacheNote,
  laneCacheRecount,
  laneCacheSettle,
} from "./lane-cache";
import { lockLane, lockLeave, lockPoison, lockTakeOver, lockTryEnter } from "./lock";
import { recoverAll, recoverPools } from "./recover";
import {
  slotsCold,
  slotsHot,
  slotsIsBound,
  slotsIsLive,
  slotsLane,
  slotsSetLane,
  slotsSetTenure,
  slotsVerify,
} from "./slots";

/** Reserves a lane for another thread and returns it, or 0 if all are taken. */
export function laneTake(base: usize): u32 {
  for (let lane: u32 = abi.LANE_FIRST + 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
    if (laneState(base, lane) != abi.LANE_STATE_FREE) continue;
    if (ASC_FEATURE_THREADS) laneCacheFormat(base, lane);
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
  let count: u32 = 0;
  if (lockTakeOver(base, lane)) {
    count = disown(base, lane);
    const broken = recoverAll(base);
    if (broken != 0) {
      lockPoison(base);
      return broken;
    }
  } else if (!lockTryEnter(base)) {
    return abi.STATUS_BUSY;
  }
  count += freeOwned(base, lane);
  const orphaned = controlLane(base, 0) + abi.LANE_OFF_ORPHANED;
  store<u32>(orphaned, load<u32>(orphaned) + count);
  if (ASC_FEATURE_THREADS) {
    laneCacheFold(base, lane);
    laneCacheDrain(base);
    laneCacheRecount(base);
    recoverPools(base);
  }
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
  if (ASC_FEATURE_THREADS) move(base, slot, lockLane(), 0);
  return abi.STATUS_OK;
}

/** Makes a block that is nobody's one of this lane. A status. */
export function laneAdopt(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_NOT_OWNER)
    return status == abi.STATUS_OK ? abi.STATUS_NOT_OWNER : status;
  if (slotsLane(base, slot) != 0) return abi.STATUS_NOT_OWNER;
  slotsSetLane(base, slot, lockLane());
  if (ASC_FEATURE_THREADS) move(base, slot, 0, lockLane());
  return abi.STATUS_OK;
}

/** What a block counts for goes from one lane to another. */
function move(base: usize, slot: u32, from: u32, to: u32): void {
  const hot = slotsHot(base, slot);
  const row = arenaRow(base, hot.arena);
  const usage = arenaUsageOf(hot.requested);
  laneCacheSettle(base, hot.arena);
  laneCacheNote(base, row, from, 0 - usage);
  laneCacheNote(base, row, to, usage);
}

/** Frees what `lane` owns and returns how many blocks were live. */
function freeOwned(base: usize, lane: u32): u32 {
  const slotFresh = controlAt(base).slotFresh;
  let count: u32 = 0;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (!slotsIsBound(hot) || slotsLane(base, slot) != lane) continue;
    if (slotsIsLive(hot)) count += 1;
    arenaTakeBack(base, slot);
  }
  return count;
}

/**
 * Makes nobody's cached blocks of what `lane` owns, so that a recovery frees them, and returns how
 * many were live. Nothing but slots may be trusted.
 */
function disown(base: usize, lane: u32): u32 {
  const slotFresh = min(controlAt(base).slotFresh, controlAt(base).slotCapacity);
  let count: u32 = 0;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (!slotsIsBound(hot) || slotsLane(base, slot) != lane) continue;
    const isLive = slotsIsLive(hot);
    if (isLive) count += 1;
    slotsCold(base, slot).pins = 0;
    const generation = hot.generation + (isLive ? 1 : 0);
    slotsSetTenure(hot, generation, hot.sizing, abi.SLOT_STATE_CACHED, hot.arena);
    slotsSetLane(base, slot, 0);
  }
  return count;
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
