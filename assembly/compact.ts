// Compact: plans which blocks of an arena move to a lower place, so that free blocks coalesce
// above. Layer 8. The host moves the bytes: it calls `next`, copies, and then commits or vetoes.
// Highest blocks go first, each to the lowest place that fits. One plan and one pending move at a
// time.
//
// A page goes to a lower slab of its class that has a free page. If there is none, and all pages of
// its slab may move, a new slab is opened below, and so the whole slab moves, page by page.
//
// Between `next` and `commit` the target is claimed without a slot. Everything else goes on as
// usual: blocks may be allocated, freed and pinned while a plan is active, and each step looks at
// the slot again. A slot that was freed and bound anew inside the same arena counts as what it is
// now. The caches of the arena are drained at the start, and what is cached since does not move.
import * as abi from "./abi";
import { ArenaRow, arenaIsOpen, arenaRow } from "./arena-row";
import { blockBytes, blockClaimBelow, blockIsPage, blockRelease } from "./block";
import { classCacheDrain } from "./class-cache";
import { controlAt, controlRefuse } from "./control";
import { lockLane } from "./lock";
import { NO_UNIT, SUPERBLOCK_UNIT_SHIFT, slabOpenBelow, slabRow } from "./slab";
import { HotRow, slotsHot, slotsLane, slotsRebind, slotsVerify } from "./slots";
import { sortedSlotsAt, sortedSlotsBuild } from "./sorted-slots";

/**
 * Starts a plan for `arena` and discards an older one. A block that owns its arena whole is no
 * candidate.
 *
 * @returns Number of candidates with STATUS_OK, or 0 with STATUS_NO_ARENA.
 */
export function compactBegin(base: usize, arena: u32): u32 {
  compactDiscard(base);
  if (!arenaIsOpen(base, arena)) return controlRefuse(base, abi.STATUS_NO_ARENA);
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  classCacheDrain(base, row);
  controlRefuse(base, abi.STATUS_OK);
  control.planArena = arena;
  control.planCursor = 0;
  control.planCount = row.wholeSlot == 0 ? sortedSlotsBuild(base, arena) : 0;
  return control.planCount;
}

/**
 * Claims the target of the next move and describes the move in the header. A move still pending is
 * vetoed first.
 *
 * @returns The slot to move; or 0 with STATUS_OK at the end of the plan, which it closes; or 0 with
 *   STATUS_NO_PLAN.
 */
export function compactNext(base: usize): u32 {
  const control = controlAt(base);
  if (control.planArena == 0) return controlRefuse(base, abi.STATUS_NO_PLAN);
  releaseTarget(base);
  const row = arenaRow(base, control.planArena);
  while (control.planCursor < control.planCount) {
    const slot = sortedSlotsAt(base, control.planCursor);
    control.planCursor += 1;
    if (!isMovable(base, slot)) continue;
    const hot = slotsHot(base, slot);
    const target = claimTarget(base, row, hot);
    if (target == NO_UNIT) continue;
    control.planSlot = slot;
    control.planSource = hot.offset;
    control.planTarget = target;
    control.planUnits = <u32>(blockBytes(row, hot.sizing, hot.requested) >> row.unitShift);
    control.planSizing = hot.sizing;
    control.planRequested = hot.requested;
    control.planGeneration = hot.generation;
    return slot;
  }
  control.planArena = 0;
  return controlRefuse(base, abi.STATUS_OK);
}

/**
 * Rebinds the slot of the pending move to its target and releases the source.
 *
 * @returns STATUS_OK; STATUS_PINNED or STATUS_STALE if the block was pinned or freed since `next`,
 *   and then the move is vetoed; STATUS_NO_PLAN.
 */
export function compactCommit(base: usize): u32 {
  const control = controlAt(base);
  const slot = control.planSlot;
  if (slot == 0) return abi.STATUS_NO_PLAN;
  const status =
    control.planGeneration == 0
      ? abi.STATUS_PINNED
      : slotsVerify(base, slot, control.planGeneration);
  if (status != abi.STATUS_OK) {
    releaseTarget(base);
    return status;
  }
  const row = arenaRow(base, control.planArena);
  blockRelease(base, row, control.planSizing, control.planRequested, control.planSource);
  slotsRebind(base, slot, control.planTarget);
  control.planSlot = 0;
  return abi.STATUS_OK;
}

/** Gives up the pending move; the block stays. STATUS_NO_PLAN or STATUS_OK. */
export function compactVeto(base: usize): u32 {
  if (controlAt(base).planSlot == 0) return abi.STATUS_NO_PLAN;
  releaseTarget(base);
  return abi.STATUS_OK;
}

/** Ends the plan, if there is one, and gives up its pending move. */
export function compactDiscard(base: usize): void {
  releaseTarget(base);
  controlAt(base).planArena = 0;
}

/** Whether `slot`, a candidate of the plan, is still a block that may move. */
function isMovable(base: usize, slot: u32): bool {
  const hot = slotsHot(base, slot);
  if (hot.state != abi.SLOT_STATE_LIVE || hot.sizing == abi.ORDER_WHOLE) return false;
  if (ASC_FEATURE_THREADS && slotsLane(base, slot) != lockLane()) return false;
  return hot.arena == controlAt(base).planArena;
}

/** Claims a lower place for the block of `hot`, the candidate before the cursor, or NO_UNIT. */
function claimTarget(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const sizing = <u32>hot.sizing;
  const target = blockClaimBelow(base, row, sizing, hot.requested, hot.offset);
  if (target != NO_UNIT || !blockIsPage(row, sizing)) return target;
  const index = hot.offset >> SUPERBLOCK_UNIT_SHIFT;
  return isEmptiable(base, row, index) ? slabOpenBelow(base, row, sizing, index) : NO_UNIT;
}

/**
 * Whether every claimed page of slab `index` belongs to a candidate that may move: the one before
 * the cursor or one that follows it. Cost: one look at each of them.
 */
function isEmptiable(base: usize, row: ArenaRow, index: u32): bool {
  const control = controlAt(base);
  const slab = slabRow(base, row, index);
  let movableCount: u32 = 0;
  for (let cursor = control.planCursor - 1; cursor < control.planCount; cursor++) {
    const slot = sortedSlotsAt(base, cursor);
    if (!isMovable(base, slot)) break;
    if (slotsHot(base, slot).offset >> SUPERBLOCK_UNIT_SHIFT != index) break;
    movableCount += 1;
  }
  return movableCount == <u32>slab.pageCount - slab.freeCount;
}

/** Releases the target of the pending move, if there is one. */
function releaseTarget(base: usize): void {
  const control = controlAt(base);
  if (control.planSlot == 0) return;
  const row = arenaRow(base, control.planArena);
  blockRelease(base, row, control.planSizing, control.planRequested, control.planTarget);
  control.planSlot = 0;
}
