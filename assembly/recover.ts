// Recover: rebuilds everything from the slot table after a change that was cut off. Layer 9. The
// rows of slots and arenas are true between any two stores (slots.ts, arena.ts); trees, slabs,
// caches, lists and current counters are not, and follow from them.
//
// What a cut leaves is resolved so: a slot whose tenure says live is live, whatever was being done
// to it; one that is cached or free is free; an arena whose row says open is open; a pending move
// has happened if the header says that its bytes are copied. Peaks and totals are kept, and raised where they are below what is live.
//
// Damage is something else. A row that contradicts itself, or two blocks that overlap, are named by
// the invariant they break, and the plane is left as it is then: to be read, not to be used.
//
// Cost: open arenas × (their metadata + the region), used slots, and one check at the end.
import * as abi from "./abi";
import {
  ArenaRow,
  arenaHasSlabs,
  arenaIsLaidOut,
  arenaIsOpen,
  arenaLiveCount,
  arenaRequested,
  arenaRow,
  arenaTree,
  arenaUsageOf,
} from "./arena-row";
import { CONTROL_ALIGNMENT } from "./bits";
import { blockBytes, blockRestore } from "./block";
import { checkAll } from "./check";
import { classCacheFormat, classCacheSettle } from "./class-cache";
import { controlAt } from "./control";
import { laneCacheIsElsewhere, laneCacheRecount } from "./lane-cache";
import { orderTreeFormat } from "./order-tree";
import { regionExtentBytes, regionRelease } from "./region";
import { slabFormat } from "./slab";
import { slotsHot, slotsIsBound, slotsIsLive, slotsLane, slotsRenew, slotsSetState } from "./slots";
import { statsPool } from "./stats";

/** What a step answers if it found no damage; anything else is the code of a broken invariant. */
const HOLDS: u32 = 0;

/** Rebuilds the plane at `base`, whose header is valid. 0, or the INV_* code of the damage. */
export function recoverAll(base: usize): u32 {
  const control = controlAt(base);
  finishMove(base);
  control.planArena = 0;
  control.planSlot = 0;
  control.planIsCopied = 0;
  let broken = recoverRegion(base);
  if (broken == HOLDS) broken = formatArenas(base);
  if (broken == HOLDS) broken = recoverSlots(base);
  if (broken != HOLDS) return broken;
  if (ASC_FEATURE_THREADS) laneCacheRecount(base);
  recoverPools(base);
  return checkAll(base);
}

/** A move is done from the store on that says that its bytes are at the target. */
function finishMove(base: usize): void {
  const control = controlAt(base);
  const slot = control.planSlot;
  if (slot == 0 || slot >= control.slotFresh || slot >= control.slotCapacity) return;
  const hot = slotsHot(base, slot);
  if (hot.state != abi.SLOT_STATE_LIVE || hot.generation != control.planGeneration) return;
  if (control.planIsCopied == 0) return;
  hot.offset = control.planTarget;
  slotsSetState(hot, control.planTargetSizing, abi.SLOT_STATE_LIVE, control.planInto);
}

/** Makes free extents of what lies between the metadata of the open arenas. */
function recoverRegion(base: usize): u32 {
  const control = controlAt(base);
  const end = control.region + control.regionBytes;
  control.regionFreeHead = 0;
  let offset = control.region;
  let passedCount: u32 = 0;
  let arena = lowestFrom(base, offset);
  while (arena != 0) {
    const row = arenaRow(base, arena);
    const bytes = arenaIsLaidOut(row) ? regionExtentBytes(row.metadataBytes) : 0;
    if (bytes == 0 || row.tree % CONTROL_ALIGNMENT != 0) return abi.INV_REGION_1;
    if (row.tree >= end || bytes > end - row.tree) return abi.INV_REGION_1;
    if (row.tree > offset) regionRelease(base, offset, row.tree - offset);
    offset = row.tree + bytes;
    passedCount += 1;
    arena = lowestFrom(base, offset);
  }
  if (end > offset) regionRelease(base, offset, end - offset);
  // An arena that starts below the region, or inside of another, was passed by.
  return passedCount == openCount(base) ? HOLDS : abi.INV_REGION_1;
}

/** Open arena whose metadata starts lowest at or above `offset`, or 0. */
function lowestFrom(base: usize, offset: u32): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  let lowest: u32 = 0;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    const row = arenaRow(base, arena);
    if (row.state != abi.ARENA_STATE_OPEN || row.tree < offset) continue;
    if (lowest == 0 || row.tree < arenaRow(base, lowest).tree) lowest = arena;
  }
  return lowest;
}

function openCount(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  let count: u32 = 0;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (arenaRow(base, arena).state == abi.ARENA_STATE_OPEN) count += 1;
  }
  return count;
}

/** Makes every open arena an empty one. */
function formatArenas(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    const row = arenaRow(base, arena);
    if (row.state != abi.ARENA_STATE_OPEN) {
      row.state = abi.ARENA_STATE_CLOSED;
      row.cacheClassCount = 0;
      continue;
    }
    if (row.pool >= <u32>abi.POOL_COUNT) return abi.INV_POOL_1;
    row.usage = 0;
    row.claimed = 0;
    row.pinnedCount = 0;
    row.cacheBudget = 0;
    row.isAmple = 0;
    row.wholeSlot = 0;
    orderTreeFormat(arenaTree(base, row), row.capacity, arenaHasSlabs(row));
    if (!arenaHasSlabs(row)) continue;
    slabFormat(base, row);
    classCacheSettle(base, row);
    classCacheFormat(base, row);
  }
  return HOLDS;
}

/** Claims the block of every live slot again, and makes a free one of each cached slot. */
function recoverSlots(base: usize): u32 {
  const control = controlAt(base);
  const slotFresh = control.slotFresh;
  if (slotFresh == 0 || slotFresh > control.slotCapacity) return abi.INV_SLOT_1;
  control.slotFreeHead = 0;
  control.slotFreeCount = 0;
  control.slotBoundCount = 0;
  control.slotRetiredCount = 0;
  // Downwards, so that the lowest slot is the first one in the list.
  for (let slot = slotFresh - 1; slot > 0; slot--) {
    const isBound = slotsIsBound(slotsHot(base, slot));
    if (ASC_FEATURE_THREADS && isBound && laneCacheIsElsewhere(base, slot)) {
      if (!recoverElsewhere(base, slot)) return abi.INV_TREE_4;
      continue;
    }
    if (slotsIsLive(slotsHot(base, slot))) {
      const broken = recoverBlock(base, slot);
      if (broken != HOLDS) return broken;
    }
    if (!slotsRenew(base, slot)) return abi.INV_SLOT_1;
  }
  return HOLDS;
}

/**
 * Claims the block of a slot that another lane may take or put meanwhile: it stays bound. False if it
 * cannot be claimed.
 */
function recoverElsewhere(base: usize, slot: u32): bool {
  const hot = slotsHot(base, slot);
  if (!arenaIsOpen(base, hot.arena)) return false;
  const row = arenaRow(base, hot.arena);
  if (!blockRestore(base, row, hot.sizing, hot.requested, hot.offset)) return false;
  if (hot.sizing == abi.ORDER_WHOLE) row.wholeSlot = slot;
  row.claimed += blockBytes(row, hot.sizing, hot.requested);
  if (hot.state == abi.SLOT_STATE_PINNED) row.pinnedCount += 1;
  controlAt(base).slotBoundCount += 1;
  return true;
}

/** Claims the block of one live slot and counts it. */
function recoverBlock(base: usize, slot: u32): u32 {
  const hot = slotsHot(base, slot);
  if (!arenaIsOpen(base, hot.arena) || hot.requested == 0) return abi.INV_SLOT_2;
  if (slotsLane(base, slot) > <u32>abi.LANE_COUNT_MAX) return abi.INV_SLOT_2;
  const row = arenaRow(base, hot.arena);
  if (!blockRestore(base, row, hot.sizing, hot.requested, hot.offset)) return abi.INV_TREE_4;
  const granted = blockBytes(row, hot.sizing, hot.requested);
  if (hot.requested > granted) return abi.INV_SLOT_2;
  if (hot.sizing == abi.ORDER_WHOLE) row.wholeSlot = slot;
  row.usage += arenaUsageOf(hot.requested);
  row.claimed += granted;
  if (hot.state == abi.SLOT_STATE_PINNED) row.pinnedCount += 1;
  return HOLDS;
}

/** Counts what the arenas hold. */
export function recoverPools(base: usize): void {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let pool: u32 = 0; pool < <u32>abi.POOL_COUNT; pool++) {
    const counters = statsPool(base, pool);
    let requested: u64 = 0;
    let liveCount: u64 = 0;
    counters.claimed = 0;
    for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
      if (!arenaIsOpen(base, arena)) continue;
      const row: ArenaRow = arenaRow(base, arena);
      if (row.pool != pool) continue;
      requested += arenaRequested(row);
      liveCount += arenaLiveCount(row);
      counters.claimed += row.claimed;
    }
    counters.requestedPeak = max(counters.requestedPeak, requested);
    counters.headroom = counters.requestedPeak - requested;
    counters.claimedPeak = max(counters.claimedPeak, counters.claimed);
    counters.allocations = max(counters.allocations, liveCount);
  }
}
