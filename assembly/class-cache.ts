// Class cache: freed blocks of one size class in front of slabs and tree, last in, first out. Layer
// 6. A cached block keeps its slot, its place and its class; only its owner is gone. The next
// request of the class gets it back for a handful of loads and stores.
//
//   byte 0      4        8         12      16
//        ┌──────┬────────┬─────────┬───────┐
//        │ head │ credit │ granted │ limit │   one row per class, in the metadata of a slab arena
//        └──────┴────────┴─────────┴───────┘
//
// A class has no budget (limit 0) until a block of it is freed; then it takes its share out of the
// arena's reserve. When the reserve is spent, all caches are drained and every class starts again.
// So what is cached never exceeds the total budget, and no free pays for more than what its class
// once saved.
//
// INV-CACHE-1  A list visits limit - credit cached slots of its class and arena, and the lists of
//              an arena visit all of them.
// INV-CACHE-2  limit is 0 or the share of the class; the limits, in bytes, and the reserve add up
//              to the total budget.
import * as abi from "./abi";
import {
  ArenaRow,
  arenaCacheClassBytes,
  arenaCapacityBytes,
  arenaHasSlabs,
  arenaRow,
} from "./arena-row";
import { blockBytes, blockRelease } from "./block";
import { controlAt } from "./control";
import { HotRow, slotsHot, slotsSetState, slotsSetTenure, slotsUnbind } from "./slots";

@unmanaged
export class ClassCache {
  /** Slot of the block freed last, 0 if there is none. */
  head: u32;
  /** Blocks that may still be added. */
  credit: u32;
  /** Bytes of one block. */
  granted: u32;
  /** Blocks that the budget of the class pays for. */
  limit: u32;
}

if (offsetof<ClassCache>("head") != abi.CACHE_OFF_HEAD) ERROR("ClassCache.head");
if (offsetof<ClassCache>("credit") != abi.CACHE_OFF_CREDIT) ERROR("ClassCache.credit");
if (offsetof<ClassCache>("granted") != abi.CACHE_OFF_GRANTED) ERROR("ClassCache.granted");
if (offsetof<ClassCache>("limit") != abi.CACHE_OFF_LIMIT) ERROR("ClassCache.limit");
if (offsetof<ClassCache>() != abi.CACHE_BYTES) ERROR("ClassCache size");

/** Cache of `sizeClass`, which is below cacheClassCount; not checked. */
export function classCacheAt(base: usize, row: ArenaRow, sizeClass: u32): ClassCache {
  return changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
}

/** Bytes that the caches of a slab arena may hold together. */
export function classCacheBudget(row: ArenaRow): u32 {
  return <u32>(arenaCapacityBytes(row) >> abi.CACHE_TOTAL_SHIFT);
}

/** Blocks of `granted` bytes that one class may cache. */
export function classCacheShare(row: ArenaRow, granted: u32): u32 {
  const blockCount = arenaCacheClassBytes(row.capacity) / granted;
  return min(max(blockCount, 1), <u32>abi.CACHE_BLOCKS_MAX);
}

/** Formats the caches of a slab arena as empty. */
export function classCacheFormat(base: usize, row: ArenaRow): void {
  row.cacheReserve = classCacheBudget(row);
  for (let sizeClass: u32 = 0; sizeClass < row.cacheClassCount; sizeClass++) {
    const cache = classCacheAt(base, row, sizeClass);
    cache.head = 0;
    cache.credit = 0;
    cache.granted = <u32>blockBytes(row, sizeClass, 0);
    cache.limit = 0;
  }
}

/**
 * Takes the block freed last out of `cache`, the one of `sizeClass`, and makes it live. Its list is
 * not empty.
 */
export function classCacheTake(
  base: usize,
  cache: ClassCache,
  sizeClass: u32,
  requested: u32,
): u32 {
  const slot = cache.head;
  const hot = slotsHot(base, slot);
  cache.head = hot.requested;
  cache.credit += 1;
  hot.requested = requested;
  slotsSetState(hot, sizeClass, abi.SLOT_STATE_LIVE);
  return slot;
}

/**
 * Puts the block of a live slot, whose row is `hot`, into `cache`, the one of `sizeClass`, which has
 * credit, and makes the slot's handles stale.
 */
export function classCachePut(cache: ClassCache, hot: HotRow, sizeClass: u32, slot: u32): void {
  slotsSetTenure(hot, hot.generation + 1, sizeClass, abi.SLOT_STATE_CACHED);
  hot.requested = cache.head;
  cache.head = slot;
  cache.credit -= 1;
}

/** Whether `cache` has credit, after giving it a budget if it has none. */
export function classCacheHasCredit(base: usize, row: ArenaRow, cache: ClassCache): bool {
  if (cache.credit != 0) return true;
  if (cache.limit != 0) return false;
  const share = classCacheShare(row, cache.granted);
  const bytes = share * cache.granted;
  if (bytes > row.cacheReserve) classCacheDrain(base, row);
  row.cacheReserve -= bytes;
  cache.limit = share;
  cache.credit = share;
  return true;
}

/** Releases every cached block of an arena and takes the budgets back. False if there was none. */
export function classCacheDrain(base: usize, row: ArenaRow): bool {
  if (!arenaHasSlabs(row) || row.cacheReserve == classCacheBudget(row)) return false;
  let isDrained = false;
  for (let sizeClass: u32 = 0; sizeClass < row.cacheClassCount; sizeClass++) {
    const cache = classCacheAt(base, row, sizeClass);
    for (let slot = cache.head; slot != 0; slot = cache.head) {
      const hot = slotsHot(base, slot);
      cache.head = hot.requested;
      blockRelease(base, row, sizeClass, 0, hot.offset);
      slotsUnbind(base, slot);
      isDrained = true;
    }
    cache.credit = 0;
    cache.limit = 0;
  }
  row.cacheReserve = classCacheBudget(row);
  return isDrained;
}

/** Drains the caches of every arena. For a slot table that is full. */
export function classCacheDrainAll(base: usize): void {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    const row = arenaRow(base, arena);
    if (row.state == abi.ARENA_STATE_OPEN) classCacheDrain(base, row);
  }
}
