// Short way: allocation and free when all they do is to move a block between its owner and the
// cache of its class. Layer 8. Anything unusual is left to arena.ts, which runs under the guard and
// does the same and more.
//
// The rows of other modules are read and written here without their functions: the modules are
// compiled for size, and a call would cost as much as the rest. Each step names the function that it
// stands for, and the specs compare the two.
import * as abi from "./abi";
import { ArenaRow } from "./arena-row";
import { ClassCache } from "./class-cache";
import { controlAt } from "./control";
import { ColdRow, HotRow } from "./slots";
import { PoolRow } from "./stats";

/** Blocks of a slab arena are aligned to no more than this, less 1. */
const ALIGNMENT_MASK_MAX: u32 = (abi.RUN_STEP_GRANULES << abi.SLAB_GRANULE_SHIFT) - 1;
/** The last generation that a slot hands out: freeing it retires the slot. */
const GENERATION_LAST: u32 = <u32>abi.GENERATION_MAX - 1;

/**
 * Allocates a cached block of the request's class.
 *
 * @returns The slot; or 0 if there is none, or if only arenaAllocate can tell. Nothing is changed
 *   then.
 */
export function shortWayAllocate(base: usize, arena: u32, requested: u32, alignment: u32): u32 {
  if (ASC_FEATURE_THREADS) return 0;
  const control = controlAt(base);
  const alignmentMask = alignment - 1;
  if (control.guard != 0 || arena >= control.arenaCapacity) return 0;
  // An alignment of 0 has the largest mask.
  if (alignmentMask > ALIGNMENT_MASK_MAX || (alignment & alignmentMask) != 0) return 0;

  // sizeClassOf: 0 bytes yield a class that no arena caches, and a closed arena caches none.
  const row = changetype<ArenaRow>(base + abi.ARENAS_OFFSET + arena * abi.ARENA_BYTES);
  const lastUnit = ((requested - 1) | alignmentMask) >> abi.UNIT_SHIFT;
  const shift: u32 = 27 - clz(lastUnit | 16);
  const sizeClass = (shift << 4) + (lastUnit >> shift);
  if (sizeClass >= row.cacheClassCount) return 0;
  const cache = changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
  const slot = cache.head;
  if (slot == 0) return 0;

  // classCacheTake
  const hot = changetype<HotRow>(base + control.hot + slot * abi.HOT_BYTES);
  const granted: u64 = cache.granted;
  cache.head = hot.requested;
  cache.credit += 1;
  hot.requested = requested;
  store<u32>(changetype<usize>(hot), sizeClass | (abi.SLOT_STATE_LIVE << 8), abi.HOT_OFF_SIZING);

  // arenaCharge and statsCharge
  row.liveCount += 1;
  row.granted += granted;
  row.requested += requested;
  const pool = changetype<PoolRow>(base + abi.POOLS_OFFSET + row.pool * abi.POOL_BYTES);
  const requestedNow = pool.requested + requested;
  pool.requested = requestedNow;
  pool.requestedTotal += requested;
  if (requestedNow > pool.requestedPeak) pool.requestedPeak = requestedNow;
  const grantedNow = pool.granted + granted;
  pool.granted = grantedNow;
  pool.grantedTotal += granted;
  if (grantedNow > pool.grantedPeak) pool.grantedPeak = grantedNow;
  const liveCount = pool.liveCount + 1;
  pool.liveCount = liveCount;
  pool.allocations += 1;
  if (liveCount > pool.liveCountPeak) pool.liveCountPeak = liveCount;
  return slot;
}

/**
 * Frees a block into the cache of its class.
 *
 * @returns Whether it is freed; if not, nothing is changed, and arenaFree knows why.
 */
export function shortWayFree(base: usize, slot: u32, generation: u32): bool {
  if (ASC_FEATURE_THREADS) return false;
  const control = controlAt(base);
  if (control.guard != 0 || slot >= control.slotFresh) return false;
  // slotsVerify; state and pins in one comparison: live, and no pin.
  const hot = changetype<HotRow>(base + control.hot + slot * abi.HOT_BYTES);
  const state = load<u32>(changetype<usize>(hot), abi.HOT_OFF_SIZING);
  if (hot.generation != generation || state >> 8 != abi.SLOT_STATE_LIVE) return false;
  const cold = changetype<ColdRow>(base + control.cold + slot * abi.COLD_BYTES);
  const row = changetype<ArenaRow>(base + abi.ARENAS_OFFSET + cold.arena * abi.ARENA_BYTES);
  const sizeClass = state & 0xff;
  if (sizeClass >= row.cacheClassCount || generation == GENERATION_LAST) return false;
  const cache = changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
  const credit = cache.credit;
  if (credit == 0) return false;

  // arenaDischarge and statsDischarge
  const granted: u64 = cache.granted;
  const requested: u64 = hot.requested;
  row.liveCount -= 1;
  row.granted -= granted;
  row.requested -= requested;
  const pool = changetype<PoolRow>(base + abi.POOLS_OFFSET + row.pool * abi.POOL_BYTES);
  pool.requested -= requested;
  pool.granted -= granted;
  pool.liveCount -= 1;

  // classCachePut
  hot.generation = generation + 1;
  hot.requested = cache.head;
  store<u32>(changetype<usize>(hot), sizeClass | (abi.SLOT_STATE_CACHED << 8), abi.HOT_OFF_SIZING);
  cache.head = slot;
  cache.credit = credit - 1;
  return true;
}
