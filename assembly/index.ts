// Control plane: the exports of core.wasm. Top layer. Each export that changes something holds the
// guard of its control plane while it runs; what it does is in the module it names.
//
// `base` is the address of the control plane, a multiple of CONTROL_ALIGNMENT; that one lies there
// is verified only by controlInit and controlAttach. Every other argument may be any number.
//
// Two kinds of result: a status, or a slot, arena, epoch or count that is 0 on refusal, with the
// status in the header. Without the guard both kinds answer STATUS_BUSY and nothing is changed.
// With several threads the header's status is that of the last refusal of any of them.
import * as abi from "./abi";
import {
  arenaAllocate as allocate,
  arenaAllocateWhole as allocateWhole,
  arenaClose as close,
  arenaFree as free,
  arenaMetadataBytes as metadataBytes,
  arenaOpen as open,
  arenaPin as pin,
  arenaUnits as units,
  arenaUnpin as unpin,
} from "./arena";
import { batchFree } from "./batch";
import { bitsAlignUp } from "./bits";
import { checkAll } from "./check";
import {
  compactBegin as begin,
  compactCommit as commit,
  compactDiscard as discard,
  compactEvacuate as evacuate,
  compactNext as next,
  compactPostpone as postpone,
  compactVeto as veto,
} from "./compact";
import { ArenaRow, arenaIsOpen, arenaRow, arenaTree } from "./arena-row";
import { BLOCK_ALIGNMENT_MAX } from "./block";
import { ClassCache, TALLY_CREDIT_MASK, TALLY_TAKE } from "./class-cache";
import { stretchLongest } from "./stretch";
import { ControlHeader, controlAt, controlRefuse } from "./control";
import { formatAttach, formatBytes, formatInit } from "./format";
import { laneAdopt, laneBegin, laneEnd, laneGive, laneTake } from "./lane";
import {
  laneCacheAsk,
  laneCacheDrain,
  laneCacheFold,
  laneCacheIsAsked,
  laneCachePut,
  laneCacheSettle,
  laneCacheTake,
} from "./lane-cache";
import { lockHolder, lockLane, lockLeave, lockPoison, lockTakeOver, lockTryEnter } from "./lock";
import { recoverAll } from "./recover";
import { resizeExchange, resizeInPlace } from "./resize";
import { HotRow, slotsHot, slotsIsBound, slotsVerify } from "./slots";
import { PoolRow, statsRaise } from "./stats";
// A debug build replaces `abort` by a function of this file, which must be part of the program.
import "./panic";

/** Bits of the alignments that the blocks of a slab arena have. */
const BLOCK_ALIGNMENT_MASK: u32 = (BLOCK_ALIGNMENT_MAX << 1) - 1;

// --- Control plane ------------------------------------------------------------------------------

/** Lowest address where a control plane may lie. What is below belongs to the module. */
export function controlHeapBase(): u32 {
  return <u32>bitsAlignUp(__heap_base);
}

/** Bytes of a control plane with these table rows, or 0; see formatBytes. */
export function controlBytes(slotCapacity: u32, arenaCapacity: u32, regionBytes: u32): u32 {
  return formatBytes(slotCapacity, arenaCapacity, regionBytes);
}

/** Formats a control plane, whatever was there, its guard included; see formatInit. */
export function controlInit(
  base: u32,
  totalBytes: u32,
  slotCapacity: u32,
  arenaCapacity: u32,
): u32 {
  return formatInit(base, totalBytes, slotCapacity, arenaCapacity);
}

/** STATUS_OK if a control plane of this ABI version lies at `base`, else STATUS_BAD_MAGIC. */
export function controlAttach(base: u32): u32 {
  return formatAttach(base);
}

// --- Arenas -------------------------------------------------------------------------------------

/** Bytes of the region that an arena takes, or 0 if `capacityGranules` is out of range. */
export function arenaMetadataBytes(capacityGranules: u32, granuleShift: u32): u32 {
  return metadataBytes(capacityGranules, granuleShift);
}

/** Opens an arena and returns it, or 0; see arena.ts. */
export function arenaOpen(base: u32, pool: u32, capacityGranules: u32, granuleShift: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  const arena = open(base, pool, capacityGranules, granuleShift);
  lockLeave(base);
  return arena;
}

/** Closes an arena without live blocks and returns a status. Discards a plan that concerns it. */
export function arenaClose(base: u32, arena: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const control = controlAt(base);
  if (control.planArena == arena || control.planInto == arena) discard(base);
  if (ASC_FEATURE_THREADS) {
    laneCacheDrain(base);
    laneCacheFold(base, lockLane());
  }
  const status = close(base, arena);
  lockLeave(base);
  return status;
}

/**
 * Allocates a block and returns its slot, or 0; see arena.ts.
 *
 * This and slotFree have a short way: a block only moves between its owner and the cache of its
 * class. It takes no guard and leaves anything unusual to the module behind. It calls nothing and
 * reads and writes the rows of other modules itself, because a call would cost as much as the rest;
 * each step names the function that it stands for, and a spec compares the two. Every condition has a
 * branch of its own: of conditions that are joined the compiler makes a number and tests that, and
 * what it has worked out so far it works out again behind the branch.
 */
export function arenaAllocate(base: u32, arena: u32, requestedBytes: u32, alignment: u32): u32 {
  const control = changetype<ControlHeader>(base);
  const alignmentMask = alignment - 1;
  const row = changetype<ArenaRow>(base + abi.ARENAS_OFFSET + arena * abi.ARENA_BYTES);
  // sizeClassOf: 0 bytes and an alignment of 0 yield a class that no arena caches.
  const lastUnit = ((requestedBytes - 1) | alignmentMask) >> abi.UNIT_SHIFT;
  const shift: u32 = 27 - clz(lastUnit | 16);
  const sizeClass = (shift << 4) + (lastUnit >> shift);
  // Guard and alignment in one word and one branch.
  const isUnusual = control.guard | (alignment & (alignmentMask | ~BLOCK_ALIGNMENT_MASK));
  if (ASC_FEATURE_THREADS || isUnusual != 0) {
    return allocateGuarded(base, arena, requestedBytes, alignment);
  }
  if (arena >= control.arenaCapacity)
    return allocateGuarded(base, arena, requestedBytes, alignment);
  if (sizeClass >= row.cacheClassCount)
    return allocateGuarded(base, arena, requestedBytes, alignment);
  const cache = changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
  const slot = cache.head;
  if (slot == 0) return allocateGuarded(base, arena, requestedBytes, alignment);

  // classCacheTake
  const hot = changetype<HotRow>(base + control.hot + slot * abi.HOT_BYTES);
  cache.head = hot.requested;
  cache.tally += TALLY_TAKE;
  hot.requested = requestedBytes;
  const state = sizeClass | (abi.SLOT_STATE_LIVE << 8) | (arena << 16);
  store<u32>(changetype<usize>(hot), state, abi.HOT_OFF_SIZING);

  // charge and statsCharge
  row.usage += ((<u64>1) << abi.USAGE_COUNT_SHIFT) + requestedBytes;
  const pool = changetype<PoolRow>(base + abi.POOLS_OFFSET + row.pool * abi.POOL_BYTES);
  const headroom = pool.headroom - requestedBytes;
  pool.headroom = headroom;
  if (headroom < 0) statsRaise(pool);
  return slot;
}

/** The long way of arenaAllocate. */
function allocateGuarded(base: u32, arena: u32, requestedBytes: u32, alignment: u32): u32 {
  if (ASC_FEATURE_THREADS) {
    const cached = laneCacheTake(base, arena, requestedBytes, alignment);
    if (cached != 0) return cached;
  }
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  if (ASC_FEATURE_THREADS) settle(base, arena);
  let slot = allocate(base, arena, requestedBytes, alignment);
  if (ASC_FEATURE_THREADS && slot == 0) {
    if (laneCacheDrain(base)) slot = allocate(base, arena, requestedBytes, alignment);
    if (slot == 0) laneCacheAsk(base);
  }
  lockLeave(base);
  return slot;
}

/** Allocates an entirely free arena as one block and returns its slot, or 0; see arena.ts. */
export function arenaAllocateWhole(base: u32, arena: u32, requestedBytes: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  if (ASC_FEATURE_THREADS) laneCacheDrain(base);
  const slot = allocateWhole(base, arena, requestedBytes);
  lockLeave(base);
  return slot;
}

/** Granules of the longest free stretch of an open arena, else 0. Reads without the guard. */
export function arenaLongestFree(base: u32, arena: u32): u32 {
  if (!arenaIsOpen(base, arena)) return 0;
  return stretchLongest(arenaTree(base, arenaRow(base, arena)));
}

// --- Slots --------------------------------------------------------------------------------------

/**
 * Frees the block of a handle and returns a status. Every handle on the slot is stale afterwards.
 */
export function slotFree(base: u32, slot: u32, generation: u32): u32 {
  const control = changetype<ControlHeader>(base);
  if (ASC_FEATURE_THREADS || control.guard != 0) return freeGuarded(base, slot, generation);
  if (slot >= control.slotFresh) return freeGuarded(base, slot, generation);
  // slotsVerify, and no pin.
  const hot = changetype<HotRow>(base + control.hot + slot * abi.HOT_BYTES);
  const state = load<u32>(changetype<usize>(hot), abi.HOT_OFF_SIZING);
  if (hot.generation != generation) return freeGuarded(base, slot, generation);
  if ((state & 0xff00) != abi.SLOT_STATE_LIVE << 8) return freeGuarded(base, slot, generation);
  const row = changetype<ArenaRow>(base + abi.ARENAS_OFFSET + (state >> 16) * abi.ARENA_BYTES);
  const sizeClass = state & 0xff;
  // slotsIsSpent
  if (sizeClass >= row.cacheClassCount) return freeGuarded(base, slot, generation);
  if (generation == <u32>abi.GENERATION_MAX - 1) return freeGuarded(base, slot, generation);
  const cache = changetype<ClassCache>(base + row.caches + sizeClass * abi.CACHE_BYTES);
  const tally = cache.tally;
  if ((tally & TALLY_CREDIT_MASK) == 0) return freeGuarded(base, slot, generation);

  // the counters of arenaFree, and statsDischarge
  const requested: u64 = hot.requested;
  row.usage -= ((<u64>1) << abi.USAGE_COUNT_SHIFT) + requested;
  const pool = changetype<PoolRow>(base + abi.POOLS_OFFSET + row.pool * abi.POOL_BYTES);
  pool.headroom += requested;

  // classCachePut
  const cachedState = state ^ ((abi.SLOT_STATE_LIVE ^ abi.SLOT_STATE_CACHED) << 8);
  const tenure = <u64>(generation + 1) | ((<u64>cachedState) << 32);
  store<u64>(changetype<usize>(hot), tenure, abi.HOT_OFF_GENERATION);
  hot.requested = cache.head;
  cache.head = slot;
  cache.tally = tally - 1;
  return abi.STATUS_OK;
}

/** Before a call of a lane that changes the usage of `arena`. */
function settle(base: u32, arena: u32): void {
  if (laneCacheIsAsked(base)) laneCacheDrain(base);
  laneCacheSettle(base, arena);
}

/** The long way of slotFree. */
function freeGuarded(base: u32, slot: u32, generation: u32): u32 {
  if (ASC_FEATURE_THREADS && laneCachePut(base, slot, generation)) return abi.STATUS_OK;
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  if (ASC_FEATURE_THREADS && slotsVerify(base, slot, generation) == abi.STATUS_OK) {
    settle(base, slotsHot(base, slot).arena);
  }
  const status = free(base, slot, generation);
  lockLeave(base);
  return status;
}

/**
 * Length of the block that `slot` is bound to, in the slot units of its arena, or 0 if the slot is
 * not bound. Reads without the guard.
 */
export function slotUnits(base: u32, slot: u32): u32 {
  if (slot >= controlAt(base).slotFresh || !slotsIsBound(slotsHot(base, slot))) return 0;
  return units(base, slot);
}

/** Adds a pin and returns the slot's epoch, or 0; see arena.ts. */
export function slotPin(base: u32, slot: u32, generation: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  const epoch = pin(base, slot, generation);
  lockLeave(base);
  return epoch;
}

/** Removes a pin and returns a status. */
export function slotUnpin(base: u32, slot: u32, generation: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = unpin(base, slot, generation);
  lockLeave(base);
  return status;
}

/**
 * Status of a handle. Reads without the guard: with several threads the answer may be outdated when
 * it arrives, and only a pin keeps it true.
 */
export function slotResolve(base: u32, slot: u32, generation: u32): u32 {
  return slotsVerify(base, slot, generation);
}

/** Frees the handles of a batch and returns how many were refused; see batch.ts. */
export function slotFreeBatch(base: u32, address: u32, count: u32): u32 {
  if (!lockTryEnter(base)) {
    controlRefuse(base, abi.STATUS_BUSY);
    return count;
  }
  if (ASC_FEATURE_THREADS) laneCacheDrain(base);
  controlRefuse(base, abi.STATUS_OK);
  const refusedCount = batchFree(base, address, count);
  lockLeave(base);
  return refusedCount;
}

/** Resizes a block in place and returns a status; see resize.ts. */
export function slotResize(
  base: u32,
  slot: u32,
  generation: u32,
  requestedBytes: u32,
  alignment: u32,
): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  if (ASC_FEATURE_THREADS && slotsVerify(base, slot, generation) == abi.STATUS_OK) {
    settle(base, slotsHot(base, slot).arena);
  }
  const status = resizeInPlace(base, slot, generation, requestedBytes, alignment);
  lockLeave(base);
  return status;
}

/** Exchanges the blocks of two slots and returns a status; see resize.ts. */
export function slotExchange(
  base: u32,
  slot: u32,
  generation: u32,
  other: u32,
  otherGeneration: u32,
): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = resizeExchange(base, slot, generation, other, otherGeneration);
  lockLeave(base);
  return status;
}

// --- Lanes of a shared plane; see lane.ts -------------------------------------------------------

/** Reserves a lane for another thread and returns it, or 0 with STATUS_NO_METADATA. */
export function laneReserve(base: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  const lane = ASC_FEATURE_THREADS ? laneTake(base) : 0;
  lockLeave(base);
  return lane != 0 ? lane : controlRefuse(base, abi.STATUS_NO_METADATA);
}

/** Begins to work as the lane of this instance. STATUS_BAD_ARGUMENT if that is not reserved. */
export function laneAttach(base: u32): u32 {
  if (ASC_FEATURE_THREADS && laneBegin(base)) return abi.STATUS_OK;
  return abi.STATUS_BAD_ARGUMENT;
}

/** Frees what a lane owns whose thread has ended, and the lane; see lane.ts. */
export function laneRelease(base: u32, lane: u32): u32 {
  if (ASC_FEATURE_THREADS) return laneEnd(base, lane);
  return abi.STATUS_BAD_ARGUMENT;
}

/** Makes a block of this lane nobody's and returns a status. */
export function slotHandOver(base: u32, slot: u32, generation: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = laneGive(base, slot, generation);
  lockLeave(base);
  return status;
}

/** Makes a block that is nobody's one of this lane and returns a status. */
export function slotAdopt(base: u32, slot: u32, generation: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = laneAdopt(base, slot, generation);
  lockLeave(base);
  return status;
}

// --- Compaction ---------------------------------------------------------------------------------

/** Starts a compaction plan and returns its number of candidates; see compact.ts. */
export function compactBegin(base: u32, arena: u32, needBytes: u32, maySlide: bool): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  if (ASC_FEATURE_THREADS) laneCacheDrain(base);
  const count = begin(base, arena, needBytes, maySlide);
  lockLeave(base);
  return count;
}

/** Starts a plan that empties an arena into another one; see compact.ts. */
export function compactEvacuate(base: u32, arena: u32, into: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  if (ASC_FEATURE_THREADS) laneCacheDrain(base);
  const count = evacuate(base, arena, into);
  lockLeave(base);
  return count;
}

/** Returns the slot of the next move, described in the header, or 0; see compact.ts. */
export function compactNext(base: u32): u32 {
  if (!lockTryEnter(base)) return controlRefuse(base, abi.STATUS_BUSY);
  const slot = next(base);
  lockLeave(base);
  return slot;
}

/** Ends the pending move, whose bytes the host has copied, and returns a status; see compact.ts. */
export function compactCommit(base: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = commit(base);
  lockLeave(base);
  return status;
}

/** Gives the pending move up and returns a status. */
export function compactVeto(base: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = veto(base);
  lockLeave(base);
  return status;
}

/** Gives the pending move up for now and returns a status; see compact.ts. */
export function compactPostpone(base: u32): u32 {
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const status = postpone(base);
  lockLeave(base);
  return status;
}

// --- Recovery and check -------------------------------------------------------------------------

/**
 * Rebuilds the plane from its slots after a call that was cut off; see recover.ts.
 *
 * @returns 0; STATUS_BAD_MAGIC; or the INV_* code of damage that cannot be repaired. The plane is
 *   then no longer changed by any call.
 */
export function recover(base: u32): u32 {
  if (formatAttach(base) != abi.STATUS_OK) return abi.STATUS_BAD_MAGIC;
  if (!lockTakeOver(base, lockHolder(base))) return abi.STATUS_BUSY;
  const broken = recoverAll(base);
  if (broken == 0) lockLeave(base);
  else lockPoison(base);
  return broken;
}

/**
 * 0 if every invariant holds, the INV_* code of the first that does not, or STATUS_BAD_MAGIC or
 * STATUS_BUSY; those are below all INV_* codes. See check.ts.
 */
export function check(base: u32): u32 {
  if (formatAttach(base) != abi.STATUS_OK) return abi.STATUS_BAD_MAGIC;
  if (!lockTryEnter(base)) return abi.STATUS_BUSY;
  const broken = checkAll(base);
  lockLeave(base);
  return broken;
}
