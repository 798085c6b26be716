// Arena: joins a tree, the slots and the counters into allocate, free, pin and unpin. Layer 4.
// Every function leaves tree, slot and counters in step or changes nothing.
//
//   byte 0       4      8              12         16     20          24          28            32
//        ┌───────┬──────┬──────────────┬──────────┬──────┬───────────┬───────────┬─────────────┐
//        │ state │ pool │ granuleShift │ capacity │ tree │ treeBytes │ liveCount │ pinnedCount │
//        └───────┴──────┴──────────────┴──────────┴──────┴───────────┴───────────┴─────────────┘
//   byte 32        40          48          52         64
//        ┌─────────┬───────────┬───────────┬──────────┐
//        │ granted │ requested │ wholeSlot │ reserved │
//        └─────────┴───────────┴───────────┴──────────┘
//
// Only `state` is valid in a closed arena.
//
// INV-ARENA-1  granted = sum of the granted bytes of the arena's live slots.
// INV-ARENA-2  requested = sum of their requested bytes.
// INV-ARENA-3  liveCount = their number.
// INV-ARENA-4  pinnedCount = the number of them with pins above 0.
import * as abi from "./abi";
import { bitsIsPowerOfTwo, bitsOrderOf } from "./bits";
import { controlAt, controlRefuse } from "./control";
import {
  NO_GRANULE,
  OrderTree,
  orderTreeBytes,
  orderTreeClaim,
  orderTreeClaimWhole,
  orderTreeFormat,
  orderTreeRelease,
  orderTreeReleaseWhole,
} from "./order-tree";
import { regionClaim, regionExtentBytes, regionRelease } from "./region";
import {
  slotsAcquire,
  slotsCold,
  slotsHasRoom,
  slotsHot,
  slotsRecycle,
  slotsVerify,
} from "./slots";
import { statsCharge, statsDischarge } from "./stats";

@unmanaged
export class ArenaRow {
  state: u32;
  pool: u32;
  /** log2 of the granule's bytes. */
  granuleShift: u32;
  /** Granules. */
  capacity: u32;
  /** Offset of the order tree from `base`. */
  tree: u32;
  treeBytes: u32;
  liveCount: u32;
  pinnedCount: u32;
  /** Bytes in blocks handed out, not bytes requested. */
  granted: u64;
  requested: u64;
  /** Slot that owns the whole arena, 0 if none. */
  wholeSlot: u32;
  reserved0: u32;
  reserved1: u64;
}

if (offsetof<ArenaRow>("state") != abi.ARENA_OFF_STATE) ERROR("ArenaRow.state");
if (offsetof<ArenaRow>("pool") != abi.ARENA_OFF_POOL) ERROR("ArenaRow.pool");
if (offsetof<ArenaRow>("granuleShift") != abi.ARENA_OFF_GRANULE_SHIFT) ERROR("ArenaRow shift");
if (offsetof<ArenaRow>("capacity") != abi.ARENA_OFF_CAPACITY) ERROR("ArenaRow.capacity");
if (offsetof<ArenaRow>("tree") != abi.ARENA_OFF_TREE) ERROR("ArenaRow.tree");
if (offsetof<ArenaRow>("treeBytes") != abi.ARENA_OFF_TREE_BYTES) ERROR("ArenaRow.treeBytes");
if (offsetof<ArenaRow>("liveCount") != abi.ARENA_OFF_LIVE_COUNT) ERROR("ArenaRow.liveCount");
if (offsetof<ArenaRow>("pinnedCount") != abi.ARENA_OFF_PINNED_COUNT) ERROR("ArenaRow.pinnedCount");
if (offsetof<ArenaRow>("granted") != abi.ARENA_OFF_GRANTED) ERROR("ArenaRow.granted");
if (offsetof<ArenaRow>("requested") != abi.ARENA_OFF_REQUESTED) ERROR("ArenaRow.requested");
if (offsetof<ArenaRow>("wholeSlot") != abi.ARENA_OFF_WHOLE_SLOT) ERROR("ArenaRow.wholeSlot");
if (offsetof<ArenaRow>() != abi.ARENA_BYTES) ERROR("ArenaRow size");

/** Row of `arena`, which is below arenaCapacity; not checked. */
export function arenaRow(base: usize, arena: u32): ArenaRow {
  return changetype<ArenaRow>(base + controlAt(base).arenas + arena * abi.ARENA_BYTES);
}

/** Order tree of an open arena. */
export function arenaTree(base: usize, row: ArenaRow): OrderTree {
  return changetype<OrderTree>(base + row.tree);
}

/** Whether `arena`, any number, is an open arena. Row 0 is never open. */
export function arenaIsOpen(base: usize, arena: u32): bool {
  if (arena >= controlAt(base).arenaCapacity) return false;
  return arenaRow(base, arena).state == abi.ARENA_STATE_OPEN;
}

/** Granules of a block of `order`, which may be ORDER_WHOLE. */
export function arenaBlockGranules(row: ArenaRow, order: u32): u32 {
  return order == abi.ORDER_WHOLE ? row.capacity : (<u32>1) << order;
}

/** Bytes of a block of `order`, which may be ORDER_WHOLE. */
export function arenaBlockBytes(row: ArenaRow, order: u32): u64 {
  return (<u64>arenaBlockGranules(row, order)) << row.granuleShift;
}

/**
 * Bytes of control memory that opening an arena takes, or 0 if `capacity` granules are out of
 * range.
 */
export function arenaMetadataBytes(capacity: u32): u32 {
  if (capacity == 0 || capacity > <u32>abi.ARENA_GRANULES_MAX) return 0;
  return regionExtentBytes(orderTreeBytes(capacity));
}

/**
 * Opens an arena of `capacity` granules, all free.
 *
 * @param pool Below POOL_COUNT.
 * @param capacity 1 to ARENA_GRANULES_MAX.
 * @param granuleShift GRANULE_SHIFT_MIN to GRANULE_SHIFT_MAX.
 * @returns The arena, or 0 with STATUS_BAD_ARGUMENT or STATUS_NO_METADATA.
 */
export function arenaOpen(base: usize, pool: u32, capacity: u32, granuleShift: u32): u32 {
  const treeBytes = arenaMetadataBytes(capacity);
  if (
    treeBytes == 0 ||
    pool >= <u32>abi.POOL_COUNT ||
    granuleShift < <u32>abi.GRANULE_SHIFT_MIN ||
    granuleShift > <u32>abi.GRANULE_SHIFT_MAX
  ) {
    return controlRefuse(base, abi.STATUS_BAD_ARGUMENT);
  }
  const arena = lowestClosed(base);
  if (arena == 0) return controlRefuse(base, abi.STATUS_NO_METADATA);
  const tree = regionClaim(base, treeBytes);
  if (tree == 0) return controlRefuse(base, abi.STATUS_NO_METADATA);

  const row = arenaRow(base, arena);
  memory.fill(changetype<usize>(row), 0, abi.ARENA_BYTES);
  row.state = abi.ARENA_STATE_OPEN;
  row.pool = pool;
  row.granuleShift = granuleShift;
  row.capacity = capacity;
  row.tree = tree;
  row.treeBytes = treeBytes;
  orderTreeFormat(arenaTree(base, row), capacity);
  return arena;
}

/** Closes an arena without live blocks. STATUS_NO_ARENA, STATUS_NOT_EMPTY or STATUS_OK. */
export function arenaClose(base: usize, arena: u32): u32 {
  if (!arenaIsOpen(base, arena)) return abi.STATUS_NO_ARENA;
  const row = arenaRow(base, arena);
  if (row.liveCount != 0) return abi.STATUS_NOT_EMPTY;
  regionRelease(base, row.tree, row.treeBytes);
  row.state = abi.ARENA_STATE_CLOSED;
  return abi.STATUS_OK;
}

/**
 * Hands out the smallest block that holds `requested` bytes at `alignment`. The arena's own start
 * counts as aligned to everything.
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
  if (!slotsHasRoom(base)) return controlRefuse(base, abi.STATUS_NO_SLOT);
  const row = arenaRow(base, arena);
  const order = bitsOrderOf(requested, alignment, row.granuleShift);
  const offset = orderTreeClaim(arenaTree(base, row), order);
  if (offset == NO_GRANULE) return controlRefuse(base, abi.STATUS_NO_ROOM);
  return bind(base, arena, offset, order, requested);
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
  if (!slotsHasRoom(base)) return controlRefuse(base, abi.STATUS_NO_SLOT);
  const row = arenaRow(base, arena);
  const tree = arenaTree(base, row);
  // A pending move holds its target without a slot, so the live count alone does not tell.
  const isFree = row.liveCount == 0 && tree.free == tree.capacity;
  if (!isFree || requested > arenaBlockBytes(row, abi.ORDER_WHOLE)) {
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
  if (hot.pins != 0) return abi.STATUS_PINNED;

  const row = arenaRow(base, slotsCold(base, slot).arena);
  const tree = arenaTree(base, row);
  const order = <u32>hot.order;
  if (order == abi.ORDER_WHOLE) {
    orderTreeReleaseWhole(tree);
    row.wholeSlot = 0;
  } else {
    orderTreeRelease(tree, order, hot.offset);
  }
  const granted = arenaBlockBytes(row, order);
  row.liveCount -= 1;
  row.granted -= granted;
  row.requested -= hot.requested;
  statsDischarge(base, row.pool, hot.requested, granted);
  slotsRecycle(base, slot);
  return abi.STATUS_OK;
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
  if (hot.pins == abi.PIN_COUNT_MAX) return controlRefuse(base, abi.STATUS_PIN_LIMIT);
  const cold = slotsCold(base, slot);
  if (hot.pins == 0) arenaRow(base, cold.arena).pinnedCount += 1;
  hot.pins += 1;
  const control = controlAt(base);
  if (control.planSlot == slot) control.planGeneration = 0;
  return cold.epoch;
}

/** Removes a pin. STATUS_FOREIGN, STATUS_STALE, STATUS_NOT_PINNED or STATUS_OK. */
export function arenaUnpin(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  const hot = slotsHot(base, slot);
  if (hot.pins == 0) return abi.STATUS_NOT_PINNED;
  hot.pins -= 1;
  if (hot.pins == 0) arenaRow(base, slotsCold(base, slot).arena).pinnedCount -= 1;
  return abi.STATUS_OK;
}

/** Binds a slot to a claimed block and counts it. */
function bind(base: usize, arena: u32, offset: u32, order: u32, requested: u32): u32 {
  const row = arenaRow(base, arena);
  const granted = arenaBlockBytes(row, order);
  row.liveCount += 1;
  row.granted += granted;
  row.requested += requested;
  statsCharge(base, row.pool, requested, granted);
  return slotsAcquire(base, arena, offset, order, requested);
}

/** Lowest arena that is not open, or 0 if all are. */
function lowestClosed(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) return arena;
  }
  return 0;
}
