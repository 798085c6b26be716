// Arena: joins blocks, slots, caches and counters into allocate, free, pin and unpin. Layer 8.
// Every function leaves them in step or changes nothing.
//
// INV-ARENA-2  The requested bytes in `usage` are the sum of those of the arena's live slots.
// INV-ARENA-3  The live count in `usage` is their number.
// INV-ARENA-4  pinnedCount is the number of them that are pinned.
import * as abi from "./abi";
import {
  ArenaRow,
  arenaCapacityBytes,
  arenaIsOpen,
  arenaLayOut,
  arenaLayoutBytes,
  arenaLiveCount,
  arenaRow,
  arenaTakesSlabs,
  arenaTree,
  arenaUsageOf,
  GRANULE_UNIT_SHIFT,
} from "./arena-row";
import { bindingAdd, bindingRemove } from "./binding";
import { bitsIsPowerOfTwo } from "./bits";
import {
  BLOCK_ALIGNMENT_MAX,
  NO_SIZING,
  blockBytes,
  blockClaim,
  blockIsPage,
  blockOtherSizing,
  blockSizingOf,
} from "./block";
import {
  classCacheAt,
  classCacheDrain,
  classCacheDrainAll,
  classCacheFormat,
  classCacheHasCredit,
  classCachePut,
  classCacheRefill,
  classCacheSettle,
  classCacheTake,
} from "./class-cache";
import { controlAt, controlPlanOverlap, controlRefuse } from "./control";
import { laneCacheNote } from "./lane-cache";
import { lockLane } from "./lock";
import { mixedSlabMixAll } from "./mixed-slab";
import { orderTreeClaimWhole, orderTreeFormat } from "./order-tree";
import { regionClaim, regionExtentBytes, regionRelease } from "./region";
import { sizeClassLastUnit, sizeClassOf } from "./size-class";
import { slabFormat, NO_UNIT } from "./slab";
import {
  HotRow,
  slotsCold,
  slotsHasRoom,
  slotsHot,
  slotsIsSpent,
  slotsSetState,
  slotsVerify,
} from "./slots";
import { statsCharge, statsDischarge, statsPool } from "./stats";

/**
 * Bytes of control memory that opening an arena takes, or 0 if `capacity` granules are out of
 * range.
 */
export function arenaMetadataBytes(capacity: u32, granuleShift: u32): u32 {
  if (capacity == 0 || capacity > <u32>abi.ARENA_GRANULES_MAX) return 0;
  const hasSlabs = arenaTakesSlabs(capacity, granuleShift);
  const treeCapacity = hasSlabs ? capacity >> GRANULE_UNIT_SHIFT : capacity;
  return regionExtentBytes(arenaLayoutBytes(treeCapacity, hasSlabs));
}

/**
 * Opens an arena of `capacity` granules, all free. From SLAB_ARENA_UNITS_MIN granules of 64 bytes
 * on it is a slab arena and manages whole granules of 4 KiB.
 *
 * @param pool Below POOL_COUNT.
 * @param capacity 1 to ARENA_GRANULES_MAX.
 * @param granuleShift GRANULE_SHIFT_MIN to GRANULE_SHIFT_MAX.
 * @returns The arena, or 0 with STATUS_BAD_ARGUMENT or STATUS_NO_METADATA.
 */
export function arenaOpen(base: usize, pool: u32, capacity: u32, granuleShift: u32): u32 {
  const metadataBytes = arenaMetadataBytes(capacity, granuleShift);
  if (
    metadataBytes == 0 ||
    pool >= <u32>abi.POOL_COUNT ||
    granuleShift < <u32>abi.GRANULE_SHIFT_MIN ||
    granuleShift > <u32>abi.GRANULE_SHIFT_MAX
  ) {
    return controlRefuse(base, abi.STATUS_BAD_ARGUMENT);
  }
  const arena = lowestClosed(base);
  if (arena == 0) return controlRefuse(base, abi.STATUS_NO_METADATA);
  const metadata = regionClaim(base, metadataBytes);
  if (metadata == 0) return controlRefuse(base, abi.STATUS_NO_METADATA);

  const row = arenaRow(base, arena);
  const hasSlabs = arenaTakesSlabs(capacity, granuleShift);
  memory.fill(changetype<usize>(row), 0, abi.ARENA_BYTES);
  row.pool = pool;
  row.granuleShift = hasSlabs ? <u32>abi.SLAB_GRANULE_SHIFT : granuleShift;
  row.capacity = hasSlabs ? capacity >> GRANULE_UNIT_SHIFT : capacity;
  row.tree = metadata;
  arenaLayOut(row, hasSlabs);
  orderTreeFormat(arenaTree(base, row), row.capacity, hasSlabs);
  if (hasSlabs) {
    slabFormat(base, row);
    classCacheFormat(base, row);
  }
  // Last, so that an open arena is a whole one.
  row.state = abi.ARENA_STATE_OPEN;
  return arena;
}

/** Closes an arena without live blocks. STATUS_NO_ARENA, STATUS_NOT_EMPTY or STATUS_OK. */
export function arenaClose(base: usize, arena: u32): u32 {
  if (!arenaIsOpen(base, arena)) return abi.STATUS_NO_ARENA;
  const row = arenaRow(base, arena);
  if (arenaLiveCount(row) != 0) return abi.STATUS_NOT_EMPTY;
  classCacheDrain(base, row);
  classCacheSettle(base, row);
  // First, so that an open arena is a whole one.
  row.state = abi.ARENA_STATE_CLOSED;
  row.cacheClassCount = 0;
  regionRelease(base, row.tree, row.metadataBytes);
  return abi.STATUS_OK;
}

/**
 * Hands out the smallest block that holds `requested` bytes at `alignment`. The arena's own start
 * counts as aligned to everything. Before it refuses, caches are drained, and a request may get a
 * block of another sizing.
 *
 * @param requested Bytes, at least 1.
 * @param alignment Bytes, a power of two.
 * @returns The slot, or 0 with STATUS_BAD_ARGUMENT, STATUS_NO_ARENA, STATUS_NO_SLOT or
 * STATUS_NO_ROOM.
 */
export function arenaAllocate(base: usize, arena: u32, requested: u32, alignment: u32): u32 {
  if (requested == 0 || !bitsIsPowerOfTwo(alignment)) {
    return controlRefuse(base, abi.STATUS_BAD_ARGUMENT);
  }
  if (!arenaIsOpen(base, arena)) return controlRefuse(base, abi.STATUS_NO_ARENA);
  const row = arenaRow(base, arena);
  const cached = takeCached(base, arena, requested, alignment);
  if (cached != 0) return cached;
  if (!slotsHasRoom(base)) classCacheDrainAll(base);
  if (!slotsHasRoom(base)) return controlRefuse(base, abi.STATUS_NO_SLOT);

  const sizing = blockSizingOf(row, requested, alignment);
  if (sizing == NO_SIZING) return controlRefuse(base, abi.STATUS_NO_ROOM);
  const claim = arenaClaim(base, row, sizing, requested);
  if (<u32>claim == NO_UNIT) return controlRefuse(base, abi.STATUS_NO_ROOM);
  return bind(base, arena, <u32>claim, <u32>(claim >> 32), requested);
}

/**
 * Claims a block without a slot. Before it refuses, caches are drained, slabs become mixed, and another
 * sizing is tried.
 *
 * @param sizing As blockSizingOf gives it.
 * @returns The sizing in the upper half, and in the lower one the offset in slot units, or NO_UNIT.
 */
export function arenaClaim(base: usize, row: ArenaRow, sizing: u32, requested: u32): u64 {
  let offset = blockClaim(base, row, sizing, requested);
  if (offset == NO_UNIT && classCacheDrain(base, row)) {
    offset = blockClaim(base, row, sizing, requested);
  }
  if (offset == NO_UNIT && blockIsPage(row, sizing) && mixedSlabMixAll(base, row)) {
    offset = blockClaim(base, row, sizing, requested);
  }
  if (offset == NO_UNIT) {
    sizing = blockOtherSizing(row, sizing);
    if (sizing != NO_SIZING) offset = blockClaim(base, row, sizing, requested);
  }
  return ((<u64>sizing) << 32) | offset;
}

/**
 * Hands out an entirely free arena as one block, so that its length need not be a power of two.
 * Until the block is freed the arena has no room for others.
 *
 * @param requested Bytes, at least 1.
 * @returns The slot, or 0 with STATUS_BAD_ARGUMENT, STATUS_NO_ARENA, STATUS_NO_SLOT or
 * STATUS_NO_ROOM.
 */
export function arenaAllocateWhole(base: usize, arena: u32, requested: u32): u32 {
  if (requested == 0) return controlRefuse(base, abi.STATUS_BAD_ARGUMENT);
  if (!arenaIsOpen(base, arena)) return controlRefuse(base, abi.STATUS_NO_ARENA);
  const row = arenaRow(base, arena);
  if (!slotsHasRoom(base)) classCacheDrainAll(base);
  if (!slotsHasRoom(base)) return controlRefuse(base, abi.STATUS_NO_SLOT);
  if (arenaLiveCount(row) == 0) classCacheDrain(base, row);
  const tree = arenaTree(base, row);
  // A pending move holds its target without a slot, so the live count alone does not tell.
  const isFree = arenaLiveCount(row) == 0 && tree.free == tree.capacity;
  if (!isFree || requested > arenaCapacityBytes(row)) {
    return controlRefuse(base, abi.STATUS_NO_ROOM);
  }
  orderTreeClaimWhole(tree);
  row.wholeSlot = bind(base, arena, 0, abi.ORDER_WHOLE, requested);
  return row.wholeSlot;
}

/** Takes a block back. STATUS_FOREIGN, STATUS_STALE, STATUS_PINNED or STATUS_OK. */
export function arenaFree(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  const hot = slotsHot(base, slot);
  if (hot.state == abi.SLOT_STATE_PINNED) return abi.STATUS_PINNED;

  const row = arenaRow(base, hot.arena);
  const sizing = <u32>hot.sizing;
  const requested = hot.requested;
  count(base, row, 0 - arenaUsageOf(requested));
  statsDischarge(base, row.pool, requested);
  if (sizing < row.cacheClassCount && !slotsIsSpent(generation)) {
    const cache = classCacheAt(base, row, sizing);
    if (classCacheHasCredit(base, row, cache, sizing)) {
      classCachePut(base, cache, hot, slot);
      return abi.STATUS_OK;
    }
  }
  bindingRemove(base, slot, requested);
  return abi.STATUS_OK;
}

/** Frees a bound block whose lane is dead, pinned or not; the usage is recounted afterwards. */
export function arenaTakeBack(base: usize, slot: u32): void {
  const hot = slotsHot(base, slot);
  if (hot.state == abi.SLOT_STATE_PINNED) {
    arenaRow(base, hot.arena).pinnedCount -= 1;
    slotsCold(base, slot).pins = 0;
    slotsSetState(hot, hot.sizing, abi.SLOT_STATE_LIVE, hot.arena);
  }
  bindingRemove(base, slot, hot.requested);
}

/** Length of the block of a bound slot, in the slot units of its arena. */
export function arenaUnits(base: usize, slot: u32): u32 {
  const hot = slotsHot(base, slot);
  const row = arenaRow(base, hot.arena);
  return <u32>(blockBytes(row, hot.sizing, hot.requested) >> row.unitShift);
}

/**
 * Adds a pin: the block is neither moved nor freed while it has any.
 *
 * @returns The slot's epoch, or 0 with STATUS_FOREIGN, STATUS_STALE or STATUS_PIN_LIMIT.
 * @remarks A pin during a pending move vetoes that move, even if it is gone before the commit:
 *   its holder may have written the source after the host had copied it.
 */
export function arenaPin(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return controlRefuse(base, status);
  const hot = slotsHot(base, slot);
  const control = controlAt(base);
  if (control.planSlot == slot && controlPlanOverlap(base) != 0) {
    return controlRefuse(base, abi.STATUS_BUSY);
  }
  const cold = slotsCold(base, slot);
  if (hot.state == abi.SLOT_STATE_LIVE) {
    cold.pins = 1;
    setState(hot, abi.SLOT_STATE_PINNED);
    arenaRow(base, hot.arena).pinnedCount += 1;
  } else {
    if (cold.pins == abi.PIN_COUNT_MAX) return controlRefuse(base, abi.STATUS_PIN_LIMIT);
    cold.pins += 1;
  }
  if (control.planSlot == slot) control.planGeneration = 0;
  return cold.epoch;
}

/** Removes a pin. STATUS_FOREIGN, STATUS_STALE, STATUS_NOT_PINNED or STATUS_OK. */
export function arenaUnpin(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  const hot = slotsHot(base, slot);
  if (hot.state == abi.SLOT_STATE_LIVE) return abi.STATUS_NOT_PINNED;
  const cold = slotsCold(base, slot);
  if (cold.pins == 1) {
    setState(hot, abi.SLOT_STATE_LIVE);
    arenaRow(base, hot.arena).pinnedCount -= 1;
  } else {
    cold.pins -= 1;
  }
  return abi.STATUS_OK;
}

/** Slot of a cached block of the request's class, live again and counted, or 0. */
function takeCached(base: usize, arena: u32, requested: u32, alignment: u32): u32 {
  const row = arenaRow(base, arena);
  if (alignment > BLOCK_ALIGNMENT_MAX) return 0;
  const sizeClass = sizeClassOf(sizeClassLastUnit(requested, alignment));
  if (sizeClass >= row.cacheClassCount) return 0;
  const cache = classCacheAt(base, row, sizeClass);
  if (cache.head == 0 && !classCacheRefill(base, arena, cache, sizeClass)) return 0;
  charge(base, row, requested);
  return classCacheTake(base, cache, requested);
}

/** Binds a slot to a claimed block and counts it. */
function bind(base: usize, arena: u32, offset: u32, sizing: u32, requested: u32): u32 {
  const row = arenaRow(base, arena);
  charge(base, row, requested);
  statsPool(base, row.pool).allocations += 1;
  return bindingAdd(base, arena, offset, sizing, requested, abi.SLOT_STATE_LIVE);
}

/** Changes the usage of an arena on behalf of this lane. */
function count(base: usize, row: ArenaRow, change: u64): void {
  row.usage += change;
  if (ASC_FEATURE_THREADS) laneCacheNote(base, row, lockLane(), change);
}

function charge(base: usize, row: ArenaRow, requested: u32): void {
  count(base, row, arenaUsageOf(requested));
  statsCharge(base, row.pool, requested);
}

function setState(hot: HotRow, state: u32): void {
  slotsSetState(hot, hot.sizing, state, hot.arena);
}

/** Lowest arena that is not open, or 0 if all are. */
function lowestClosed(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) return arena;
  }
  return 0;
}
