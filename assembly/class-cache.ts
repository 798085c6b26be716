// Class cache: freed blocks of one size class in front of slabs and tree, last in, first out. Layer
// 7. A cached block keeps its slot, its place and its class; only its owner is gone. The next
// request of the class gets it back for a handful of loads and stores.
//
//   byte 0      4       8       16      one row per class, in the metadata of a slab arena
//        ┌──────┬───────┬───────┐
//        │ head │ limit │ tally │       tally   bit 0      24      64
//        └──────┴───────┴───────┘               ┌────────┬───────┐
//                                               │ credit │ taken │
//                                               └────────┴───────┘
//
// A class has no budget (limit 0) until a block of it is freed; then it takes a share, and another
// one whenever that is used up, as long as the budgets stay below a part of what the tree has free:
// in an empty arena nearly everything is cached, in a full one little. When there is nothing left for
// a class that has no budget, all caches are drained and every class starts again.
//
// An arena is ample when that happens although its pool never needed more than a small part of it.
// Then budgets are larger parts, shares start small and double, so that many classes find some, and
// a class has budget from its second page on. It ends when the pool needs more.
//
// Pages come from their slab several at a time, because who asks for one asks for more.
//
// INV-CACHE-1  A list visits limit - credit cached slots of its class and arena, and the lists of
//              an arena visit all of them.
// INV-CACHE-2  cacheBudget is the sum of the limits, in bytes.
import * as abi from "./abi";
import {
  ArenaRow,
  arenaCapacityBytes,
  arenaHasSlabs,
  arenaRow,
  arenaSharesSlabs,
  arenaTree,
} from "./arena-row";
import { bindingAdd, bindingRemove } from "./binding";
import { blockBytes } from "./block";
import { controlAt } from "./control";
import { lockLane } from "./lock";
import { slabClaim, slabHasPage, slabOpen, NO_UNIT } from "./slab";
import { HotRow, slotsHot, slotsRoom, slotsSetLane, slotsSetState, slotsSetTenure } from "./slots";
import { statsPool } from "./stats";

@unmanaged
export class ClassCache {
  /** Slot of the block freed last, 0 if there is none. */
  head: u32;
  /** Blocks that the budget of the class pays for. */
  limit: u32;
  /** Blocks ever taken; blocks that may still be added. */
  tally: u64;
}

if (offsetof<ClassCache>("head") != abi.CACHE_OFF_HEAD) ERROR("ClassCache.head");
if (offsetof<ClassCache>("limit") != abi.CACHE_OFF_LIMIT) ERROR("ClassCache.limit");
if (offsetof<ClassCache>("tally") != abi.CACHE_OFF_TALLY) ERROR("ClassCache.tally");
if (offsetof<ClassCache>() != abi.CACHE_BYTES) ERROR("ClassCache size");

/** What a block that is taken adds to the tally: one taken, one credit. */
export const TALLY_TAKE: u64 = ((<u64>1) << abi.TALLY_TAKEN_SHIFT) + 1;
/** The bits of the credit. */
export const TALLY_CREDIT_MASK: u64 = ((<u64>1) << abi.TALLY_TAKEN_SHIFT) - 1;

if (abi.SLOT_CAPACITY_MAX >> abi.TALLY_TAKEN_SHIFT != 0) ERROR("a credit fits its bits");

/** Cache of `sizeClass`, which is below cacheClassCount; not checked. */
export function classCacheAt(base: usize, row: ArenaRow, sizeClass: u32): ClassCache {
  return changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
}

/** Blocks that may still be added to `cache`. */
export function classCacheCredit(cache: ClassCache): u32 {
  return <u32>(cache.tally & TALLY_CREDIT_MASK);
}

/** Blocks of `granted` bytes by which the budget of a class that is `limit` blocks grows. */
export function classCacheShare(row: ArenaRow, granted: u32, limit: u32): u32 {
  const blockCount = <u32>(arenaCapacityBytes(row) >> abi.CACHE_SHARE_SHIFT) / granted;
  const share = min(max(blockCount, 1), <u32>abi.CACHE_SHARE_BLOCKS);
  return row.isAmple != 0 ? min(share, max(limit, <u32>abi.CACHE_FIRST_BLOCKS)) : share;
}

/** Counts what was ever taken from the caches of an arena with its pool, before they are formatted. */
export function classCacheSettle(base: usize, row: ArenaRow): void {
  const pool = statsPool(base, row.pool);
  for (let sizeClass: u32 = 0; sizeClass < row.cacheClassCount; sizeClass++) {
    pool.allocations += classCacheAt(base, row, sizeClass).tally >> abi.TALLY_TAKEN_SHIFT;
  }
}

/** Formats the caches of a slab arena as empty. */
export function classCacheFormat(base: usize, row: ArenaRow): void {
  memory.fill(base + row.caches, 0, row.cacheClassCount * abi.CACHE_BYTES);
}

/** Takes the block freed last out of `cache`, which has one, and makes it live. Returns its slot. */
export function classCacheTake(base: usize, cache: ClassCache, requested: u32): u32 {
  const slot = cache.head;
  const hot = slotsHot(base, slot);
  cache.head = hot.requested;
  cache.tally += TALLY_TAKE;
  hot.requested = requested;
  if (ASC_FEATURE_THREADS) slotsSetLane(base, slot, lockLane());
  slotsSetState(hot, hot.sizing, abi.SLOT_STATE_LIVE, hot.arena);
  return slot;
}

/**
 * Puts the block of a live slot, whose row is `hot`, into `cache`, which has credit, and makes the
 * slot's handles stale.
 */
export function classCachePut(base: usize, cache: ClassCache, hot: HotRow, slot: u32): void {
  assert(classCacheCredit(cache) != 0);
  if (ASC_FEATURE_THREADS) slotsSetLane(base, slot, 0);
  slotsSetTenure(hot, hot.generation + 1, hot.sizing, abi.SLOT_STATE_CACHED, hot.arena);
  hot.requested = cache.head;
  cache.head = slot;
  cache.tally -= 1;
}

/** Whether `cache`, the one of `sizeClass`, can take a block, after raising its budget if need be. */
export function classCacheHasCredit(
  base: usize,
  row: ArenaRow,
  cache: ClassCache,
  sizeClass: u32,
): bool {
  return classCacheCredit(cache) != 0 || hasGrown(base, row, cache, sizeClass, true);
}

/**
 * Claims pages of `sizeClass` into `cache`, which is empty: as many as one slab has and the budget
 * pays for, and none where slabs are shared. False if it got none.
 */
export function classCacheRefill(base: usize, arena: u32, cache: ClassCache, sizeClass: u32): bool {
  if (sizeClass >= <u32>abi.SLAB_CLASS_COUNT) return false;
  const row = arenaRow(base, arena);
  if (arenaSharesSlabs(row)) return false;
  if (cache.limit == 0) {
    // The first page of a class comes alone: many classes never need another.
    if (row.isAmple == 0 || !slabHasPage(base, row, sizeClass)) return false;
    if (!hasGrown(base, row, cache, sizeClass, false)) return false;
  }
  const credit = min(classCacheCredit(cache), slotsRoom(base));
  let last: u32 = 0;
  for (let rest = min(credit, <u32>abi.CACHE_REFILL_PAGES); rest != 0; rest--) {
    if (last != 0 && !slabHasPage(base, row, sizeClass)) break;
    let offset = slabClaim(base, row, sizeClass);
    if (offset == NO_UNIT) offset = slabOpen(base, row, sizeClass);
    if (offset == NO_UNIT) break;
    const slot = bindingAdd(base, arena, offset, sizeClass, 0, abi.SLOT_STATE_CACHED);
    cache.tally -= 1;
    // The lowest page is to be taken first.
    if (last == 0) cache.head = slot;
    else slotsHot(base, last).requested = slot;
    last = slot;
  }
  return last != 0;
}

/** Releases every cached block of an arena and takes the budgets back. False if there was none. */
export function classCacheDrain(base: usize, row: ArenaRow): bool {
  if (row.cacheBudget == 0) return false;
  let isDrained = false;
  for (let sizeClass: u32 = 0; sizeClass < row.cacheClassCount; sizeClass++) {
    const cache = classCacheAt(base, row, sizeClass);
    if (cache.limit == 0) continue;
    isDrained = isDrained || cache.head != 0;
    // The list ends: it has as many members as the class has budget.
    while (cache.head != 0) releaseHead(base, cache);
    cache.tally -= cache.limit;
    cache.limit = 0;
  }
  row.cacheBudget = 0;
  return isDrained;
}

/** Drains the caches of every arena. For a slot table that is full. */
export function classCacheDrainAll(base: usize): void {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    const row = arenaRow(base, arena);
    if (row.state == abi.ARENA_STATE_OPEN && arenaHasSlabs(row)) classCacheDrain(base, row);
  }
}

/**
 * Raises the budget of `cache`, the one of `sizeClass`, by a share, if there is enough. For a class
 * that has none, the others give theirs back if `mayDrain`.
 */
function hasGrown(
  base: usize,
  row: ArenaRow,
  cache: ClassCache,
  sizeClass: u32,
  mayDrain: bool,
): bool {
  const granted = <u32>blockBytes(row, sizeClass, 0);
  if (row.isAmple != 0) row.isAmple = <u32>needsLittle(base, row);
  const blockCount = classCacheShare(row, granted, cache.limit);
  const bytes = <u64>blockCount * granted;
  const capacity = arenaCapacityBytes(row);
  const free = (<u64>arenaTree(base, row).free) << row.granuleShift;
  const part = free << row.isAmple;
  const total = max(capacity >> abi.CACHE_TOTAL_SHIFT, part >> abi.CACHE_FREE_TOTAL_SHIFT);
  const isOver = row.cacheBudget + bytes > total;
  if (cache.limit != 0) {
    const most = max(capacity >> abi.CACHE_SHARE_SHIFT, part >> abi.CACHE_FREE_SHARE_SHIFT);
    if (isOver || <u64>cache.limit * granted + bytes > most) return false;
  } else if (isOver) {
    if (!mayDrain) return false;
    classCacheDrain(base, row);
    row.isAmple = <u32>needsLittle(base, row);
  }
  row.cacheBudget += <u32>bytes;
  cache.limit += blockCount;
  cache.tally += blockCount;
  return true;
}

/** Whether the pool of an arena never needed more than a small part of what the arena has. */
function needsLittle(base: usize, row: ArenaRow): bool {
  const peak = statsPool(base, row.pool).requestedPeak;
  return peak <= arenaCapacityBytes(row) >> abi.CACHE_AMPLE_SHIFT;
}

/** Gives the block freed last back to its slab or tree. */
function releaseHead(base: usize, cache: ClassCache): void {
  const slot = cache.head;
  cache.head = slotsHot(base, slot).requested;
  cache.tally += 1;
  bindingRemove(base, slot, 0);
}
