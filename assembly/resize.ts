// Resize: gives a live block another length under the handle that it has. Layer 8. In place, where
// the block stays where it starts; or by an exchange with a second block, for which the host has
// copied the bytes. A pinned block is never resized, and what is refused has changed nothing.
import * as abi from "./abi";
import {
  ArenaRow,
  GRANULE_UNIT_SHIFT,
  arenaCapacityBytes,
  arenaHasSlabs,
  arenaRow,
  arenaTree,
} from "./arena-row";
import { bitsIsPowerOfTwo } from "./bits";
import {
  NO_SIZING,
  blockBytes,
  blockGranules,
  blockIsPage,
  blockRunStep,
  blockSizingOf,
} from "./block";
import { controlAt } from "./control";
import { laneCacheNote } from "./lane-cache";
import { lockLane } from "./lock";
import { orderTreeClaimAt, orderTreeReleaseRun } from "./order-tree";
import { slotsExchange, slotsHot, slotsRebind, slotsSetLength, slotsVerify } from "./slots";
import { statsRecharge } from "./stats";

/** Size classes per doubling. */
const DOUBLING: u32 = 16;

/**
 * Resizes a block in place and changes its epoch. A page stays as long as it is half used; a block
 * of the tree gives its tail back, or grows into free granules behind it.
 *
 * @param requested Bytes, at least 1.
 * @param alignment Bytes, a power of two.
 * @returns STATUS_BAD_ARGUMENT, STATUS_FOREIGN, STATUS_STALE, STATUS_PINNED; STATUS_NO_ROOM if the
 *   block would have to move; STATUS_OK. Cost: a few steps per order.
 */
export function resizeInPlace(
  base: usize,
  slot: u32,
  generation: u32,
  requested: u32,
  alignment: u32,
): u32 {
  if (requested == 0 || !bitsIsPowerOfTwo(alignment)) return abi.STATUS_BAD_ARGUMENT;
  const status = verifyUnpinned(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  const hot = slotsHot(base, slot);
  const row = arenaRow(base, hot.arena);
  const requestedBefore = hot.requested;
  const sizingBefore = <u32>hot.sizing;
  const sizing = sizingInPlace(row, sizingBefore, requested, alignment);
  const start = (<u64>hot.offset) << row.unitShift;
  if (sizing == NO_SIZING || (start & (alignment - 1)) != 0) return abi.STATUS_NO_ROOM;
  if (sizing != abi.ORDER_WHOLE && !blockIsPage(row, sizing)) {
    const granulesBefore = blockGranules(row, sizingBefore, requestedBefore);
    const granules = blockGranules(row, sizing, requested);
    const step = arenaHasSlabs(row) ? blockRunStep(sizing) : granules;
    if (!tryFit(base, row, hot.offset, granulesBefore, granules, step)) return abi.STATUS_NO_ROOM;
  }

  const requestedGrowth = <u64>requested - requestedBefore;
  const grantedBefore = blockBytes(row, sizingBefore, requestedBefore);
  const grantedGrowth = blockBytes(row, sizing, requested) - grantedBefore;
  row.usage += requestedGrowth;
  if (ASC_FEATURE_THREADS) laneCacheNote(base, row, lockLane(), requestedGrowth);
  row.claimed += grantedGrowth;
  statsRecharge(base, row.pool, requestedGrowth, grantedGrowth);
  slotsSetLength(hot, requested, sizing);
  slotsRebind(base, slot, hot.offset);
  vetoMove(base, slot);
  return abi.STATUS_OK;
}

/**
 * Exchanges the blocks of two live slots, which may lie in two arenas of one pool, and changes both
 * epochs. With the bytes copied before, and the second slot freed after it, the first one has moved.
 *
 * @returns STATUS_FOREIGN, STATUS_STALE or STATUS_PINNED, of the first slot that is so;
 *   STATUS_BAD_ARGUMENT if the pools differ; STATUS_OK.
 */
export function resizeExchange(
  base: usize,
  slot: u32,
  generation: u32,
  other: u32,
  otherGeneration: u32,
): u32 {
  let status = verifyUnpinned(base, slot, generation);
  if (status == abi.STATUS_OK) status = verifyUnpinned(base, other, otherGeneration);
  if (status != abi.STATUS_OK) return status;
  const row = arenaRow(base, slotsHot(base, slot).arena);
  const otherRow = arenaRow(base, slotsHot(base, other).arena);
  if (row.pool != otherRow.pool) return abi.STATUS_BAD_ARGUMENT;
  if (slot == other) return abi.STATUS_OK;
  if (row.wholeSlot == slot) row.wholeSlot = other;
  if (otherRow.wholeSlot == other) otherRow.wholeSlot = slot;
  slotsExchange(base, slot, other);
  vetoMove(base, slot);
  vetoMove(base, other);
  return abi.STATUS_OK;
}

function verifyUnpinned(base: usize, slot: u32, generation: u32): u32 {
  const status = slotsVerify(base, slot, generation);
  if (status != abi.STATUS_OK) return status;
  return slotsHot(base, slot).state == abi.SLOT_STATE_LIVE ? abi.STATUS_OK : abi.STATUS_PINNED;
}

/** Sizing of a block of `before` after it was resized where it is, or NO_SIZING if it has to move. */
function sizingInPlace(row: ArenaRow, before: u32, requested: u32, alignment: u32): u32 {
  if (before == abi.ORDER_WHOLE) {
    const capacity = arenaCapacityBytes(row);
    return requested <= capacity && requested > capacity >> 1 ? before : NO_SIZING;
  }
  const sizing = blockSizingOf(row, requested, alignment);
  if (!blockIsPage(row, before)) return blockIsPage(row, sizing) ? NO_SIZING : sizing;
  return sizing <= before && before < sizing + DOUBLING ? before : NO_SIZING;
}

/**
 * Gives the tail of a block of the tree back, or claims what is behind it. False if that is taken, or if
 * the block does not start at a multiple of `step` granules.
 */
function tryFit(base: usize, row: ArenaRow, offset: u32, before: u32, after: u32, step: u32): bool {
  const hasSlabs = arenaHasSlabs(row);
  const tree = arenaTree(base, row);
  const granule = hasSlabs ? offset >> GRANULE_UNIT_SHIFT : offset;
  if ((granule & (step - 1)) != 0) return false;
  if (after > before) return orderTreeClaimAt(tree, granule + before, after - before);
  orderTreeReleaseRun(tree, granule + after, before - after);
  return true;
}

/** A move of `slot` that is under way must not be committed: its block is not the planned one. */
function vetoMove(base: usize, slot: u32): void {
  const control = controlAt(base);
  if (control.planSlot == slot) control.planGeneration = 0;
}
