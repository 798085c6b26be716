// Lane cache: what one lane of a shared plane has freed, kept for its own next requests. Layer 7. It is
// the short way of the shared build: only its lane touches it, so neither guard nor atomic operation is
// needed. A cached block stays bound to its slot, which still names the lane.
//
// One row per lane and arena, behind the lane rows. Blocks of a class are a list through their slots,
// as in the class caches of the arena, from which a lane gets what it does not have.
//
//   byte 0       8         16      24            28         32                    544
//        ┌───────┬─────────┬───────┬─────────────┬──────────┬─────────────────────┐
//        │ drift │ settled │ taken │ cachedBytes │ reserved │ heads, one by class │
//        └───────┴─────────┴───────┴─────────────┴──────────┴─────────────────────┘
//
// The arena's usage is the sum of what its lanes have settled. What a lane has taken and put since is
// its drift, which it settles whenever it holds the guard on behalf of the arena.
import * as abi from "./abi";
import { ArenaRow, arenaCapacityBytes, arenaIsOpen, arenaRow, arenaUsageOf } from "./arena-row";
import { bindingRemove } from "./binding";
import { blockBytes } from "./block";
import { controlAt, controlLane } from "./control";
import { lockLane } from "./lock";
import { sizeClassLastUnit, sizeClassOf } from "./size-class";
import { slotsHot, slotsIsSpent, slotsLane, slotsSetState, slotsSetTenure } from "./slots";
import { statsCharge, statsDischarge, statsPool } from "./stats";

@unmanaged
export class LaneCache {
  /** Usage, as the arena's, that is not settled yet. Signed. */
  drift: i64;
  settled: u64;
  /** Blocks ever taken. */
  taken: u64;
  cachedBytes: u32;
}

if (offsetof<LaneCache>("drift") != abi.LANE_CACHE_OFF_DRIFT) ERROR("LaneCache.drift");
if (offsetof<LaneCache>("settled") != abi.LANE_CACHE_OFF_SETTLED) ERROR("LaneCache.settled");
if (offsetof<LaneCache>("taken") != abi.LANE_CACHE_OFF_TAKEN) ERROR("LaneCache.taken");
if (offsetof<LaneCache>("cachedBytes") != abi.LANE_CACHE_OFF_CACHED) ERROR("LaneCache.cachedBytes");
if (offsetof<LaneCache>() > <usize>abi.LANE_CACHE_OFF_HEADS) ERROR("LaneCache size");

/** Row of `lane` for `arena`. */
export function laneCacheAt(base: usize, lane: u32, arena: u32): LaneCache {
  const index = lane * controlAt(base).arenaCapacity + arena;
  const rows = controlLane(base, abi.LANE_COUNT_MAX + 1);
  return changetype<LaneCache>(rows + <usize>index * abi.LANE_CACHE_BYTES);
}

/** Makes all rows of `lane` empty ones; the memory may hold anything before. */
export function laneCacheFormat(base: usize, lane: u32): void {
  const bytes = controlAt(base).arenaCapacity * abi.LANE_CACHE_BYTES;
  memory.fill(changetype<usize>(laneCacheAt(base, lane, 0)), 0, bytes);
}

/** Slot of a block that this lane has cached, live again, or 0. As arenaAllocate. */
export function laneCacheTake(base: usize, arena: u32, requested: u32, alignment: u32): u32 {
  if (arena >= controlAt(base).arenaCapacity || (alignment & (alignment - 1)) != 0) return 0;
  const sizeClass = sizeClassOf(sizeClassLastUnit(requested, alignment));
  const row = arenaRow(base, arena);
  if (sizeClass >= row.cacheClassCount || sizeClass >= <u32>abi.LANE_CLASS_COUNT) return 0;
  if (alignment > 1 << abi.UNIT_SHIFT || isAsked(base)) return 0;
  const cache = laneCacheAt(base, lockLane(), arena);
  const slot = headOf(cache, sizeClass);
  if (slot == 0) return 0;
  const hot = slotsHot(base, slot);
  setHead(cache, sizeClass, hot.requested);
  cache.cachedBytes -= <u32>blockBytes(row, sizeClass, 0);
  cache.drift += arenaUsageOf(requested);
  cache.taken += 1;
  hot.requested = requested;
  slotsSetState(hot, sizeClass, abi.SLOT_STATE_LIVE, arena);
  return slot;
}

/** Caches the block of a handle. False if it is not this lane's, is pinned, or does not fit. */
export function laneCachePut(base: usize, slot: u32, generation: u32): bool {
  if (slot == 0 || slot >= controlAt(base).slotFresh) return false;
  if (slotsLane(base, slot) != lockLane()) return false;
  const hot = slotsHot(base, slot);
  if (hot.generation != generation || hot.state != abi.SLOT_STATE_LIVE) return false;
  const sizeClass = <u32>hot.sizing;
  const arena = <u32>hot.arena;
  const row = arenaRow(base, arena);
  if (sizeClass >= row.cacheClassCount || sizeClass >= <u32>abi.LANE_CLASS_COUNT) return false;
  if (slotsIsSpent(generation) || isAsked(base)) return false;
  const cache = laneCacheAt(base, lockLane(), arena);
  const cachedBytes = <u64>cache.cachedBytes + blockBytes(row, sizeClass, 0);
  if (cachedBytes > arenaCapacityBytes(row) >> abi.LANE_CACHE_SHIFT) return false;
  cache.drift -= arenaUsageOf(hot.requested);
  slotsSetTenure(hot, generation + 1, sizeClass, abi.SLOT_STATE_CACHED, arena);
  hot.requested = headOf(cache, sizeClass);
  setHead(cache, sizeClass, slot);
  cache.cachedBytes = <u32>cachedBytes;
  return true;
}

/** Adds the drift of this lane in `arena` to the arena's usage and its pool's. Under the guard. */
export function laneCacheSettle(base: usize, arena: u32): void {
  if (!arenaIsOpen(base, arena)) return;
  const cache = laneCacheAt(base, lockLane(), arena);
  const drift = cache.drift;
  if (drift == 0) return;
  const row = arenaRow(base, arena);
  row.usage += drift;
  cache.settled += drift;
  const bytes = requestedOf(drift);
  if (bytes >= 0) statsCharge(base, row.pool, <u32>bytes);
  else statsDischarge(base, row.pool, <u32>-bytes);
  cache.drift = 0;
}

/** Notes that the arena of `row` has changed its usage by `change` on behalf of `lane`. */
export function laneCacheNote(base: usize, row: ArenaRow, lane: u32, change: u64): void {
  const index = (changetype<usize>(row) - base - abi.ARENAS_OFFSET) / abi.ARENA_BYTES;
  laneCacheAt(base, lane, <u32>index).settled += change;
}

/** Gives back everything that this lane has cached. False if that was nothing. Under the guard. */
export function laneCacheDrain(base: usize): bool {
  const lane = lockLane();
  setRequest(base, lane, 0);
  const arenaCapacity = controlAt(base).arenaCapacity;
  let isDrained = false;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    laneCacheSettle(base, arena);
    const cache = laneCacheAt(base, lane, arena);
    if (cache.cachedBytes == 0) continue;
    isDrained = true;
    for (let sizeClass: u32 = 0; sizeClass < <u32>abi.LANE_CLASS_COUNT; sizeClass++) {
      // The list ends: no block is in it twice.
      for (let slot = headOf(cache, sizeClass); slot != 0; slot = headOf(cache, sizeClass)) {
        setHead(cache, sizeClass, slotsHot(base, slot).requested);
        bindingRemove(base, slot, 0);
      }
    }
    cache.cachedBytes = 0;
  }
  return isDrained;
}

/** Asks every other lane to give back what it has cached, at its next call. */
export function laneCacheAsk(base: usize): void {
  for (let lane: u32 = 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
    if (lane == lockLane()) continue;
    setRequest(base, lane, 1);
  }
}

/** Whether this lane was asked to give back what it has cached. */
export function laneCacheIsAsked(base: usize): bool {
  return isAsked(base);
}

/** Usage of `arena` that lanes have not settled. Exact while none of them works. */
export function laneCacheDrift(base: usize, arena: u32): u64 {
  let drift: u64 = 0;
  for (let lane: u32 = 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
    if (laneIsUsed(base, lane)) drift += laneCacheAt(base, lane, arena).drift;
  }
  return drift;
}

/** Whether a slot is one that another lane, which works, may change at this moment. */
export function laneCacheIsElsewhere(base: usize, slot: u32): bool {
  const lane = slotsLane(base, slot);
  if (lane == 0 || lane > <u32>abi.LANE_COUNT_MAX || lane == lockLane()) return false;
  return laneIsUsed(base, lane);
}

/** Whether a lane other than this one works. */
export function laneCacheHasOthers(base: usize): bool {
  for (let lane: u32 = 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
    if (lane != lockLane() && laneIsUsed(base, lane)) return true;
  }
  return false;
}

/**
 * Makes the usage of every arena what its lanes have settled: of those that work as they say, of this
 * one and of blocks that are nobody's as the slots say. Under the guard, after dead lanes' blocks are
 * gone and with nothing cached here.
 */
export function laneCacheRecount(base: usize): void {
  const control = controlAt(base);
  laneCacheFold(base, lockLane());
  laneCacheFormat(base, lockLane());
  laneCacheFormat(base, 0);
  for (let slot: u32 = 1; slot < control.slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    const lane = slotsLane(base, slot);
    if (lane != 0 && lane != lockLane()) continue;
    if (hot.state != abi.SLOT_STATE_LIVE && hot.state != abi.SLOT_STATE_PINNED) continue;
    laneCacheAt(base, lane, hot.arena).settled += arenaUsageOf(hot.requested);
  }
  for (let arena: u32 = 1; arena < control.arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    let usage = laneCacheAt(base, 0, arena).settled;
    for (let lane: u32 = 1; lane <= <u32>abi.LANE_COUNT_MAX; lane++) {
      if (laneIsUsed(base, lane)) usage += laneCacheAt(base, lane, arena).settled;
    }
    arenaRow(base, arena).usage = usage;
  }
}

/** Counts what `lane` has taken as allocations of the arenas' pools, where they outlive the lane. */
export function laneCacheFold(base: usize, lane: u32): void {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    const cache = laneCacheAt(base, lane, arena);
    statsPool(base, arenaRow(base, arena).pool).allocations += cache.taken;
    cache.taken = 0;
  }
}

/** Whether `lane` is this one or attached. */
function laneIsUsed(base: usize, lane: u32): bool {
  if (lane == lockLane() || lane == abi.LANE_FIRST) return true;
  const state = controlLane(base, lane) + abi.LANE_OFF_STATE;
  if (ASC_FEATURE_THREADS) return atomic.load<u32>(state) == abi.LANE_STATE_ATTACHED;
  else return false;
}

function setRequest(base: usize, lane: u32, request: u32): void {
  const address = controlLane(base, lane) + abi.LANE_OFF_REQUEST;
  if (ASC_FEATURE_THREADS) atomic.store<u32>(address, request);
  else store<u32>(address, request);
}

function isAsked(base: usize): bool {
  return load<u32>(controlLane(base, lockLane()), abi.LANE_OFF_REQUEST) != 0;
}

function headOf(cache: LaneCache, sizeClass: u32): u32 {
  return load<u32>(changetype<usize>(cache) + (sizeClass << 2), abi.LANE_CACHE_OFF_HEADS);
}

function setHead(cache: LaneCache, sizeClass: u32, slot: u32): void {
  store<u32>(changetype<usize>(cache) + (sizeClass << 2), slot, abi.LANE_CACHE_OFF_HEADS);
}

/** The bytes of a drift, whose count is above them. */
function requestedOf(drift: i64): i64 {
  const shift = 64 - abi.USAGE_COUNT_SHIFT;
  return (drift << shift) >> shift;
}
