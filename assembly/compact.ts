// Compact: plans which blocks of an arena move to a lower place, so that free blocks coalesce
// above. Layer 5. The host moves the bytes: it calls `next`, copies, and then commits or vetoes.
// Highest blocks go first, each to the lowest place that fits. One plan and one pending move at a
// time.
//
// Between `next` and `commit` the target is claimed without a slot. Everything else goes on as
// usual: blocks may be allocated, freed and pinned while a plan is active, and each step looks at
// the slot again. A slot that was freed and bound anew inside the same arena counts as what it is
// now.
import * as abi from "./abi";
import { arenaBlockGranules, arenaIsOpen, arenaRow, arenaTree } from "./arena";
import { bitsFloorLog2 } from "./bits";
import { controlAt, controlRefuse } from "./control";
import { NO_GRANULE, orderTreeClaimBelow, orderTreeRelease } from "./order-tree";
import { slotsCold, slotsHot, slotsRebind, slotsVerify } from "./slots";
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
  control.status = abi.STATUS_OK;
  control.planArena = arena;
  control.planCursor = 0;
  control.planCount = arenaRow(base, arena).wholeSlot == 0 ? sortedSlotsBuild(base, arena) : 0;
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
    const target = orderTreeClaimBelow(arenaTree(base, row), hot.order, hot.offset);
    if (target == NO_GRANULE) continue;
    control.planSlot = slot;
    control.planSource = hot.offset;
    control.planTarget = target;
    control.planGranules = arenaBlockGranules(row, hot.order);
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
  const tree = arenaTree(base, arenaRow(base, control.planArena));
  orderTreeRelease(tree, slotsHot(base, slot).order, control.planSource);
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
  if (hot.state != abi.SLOT_STATE_LIVE || hot.pins != 0) return false;
  if (hot.order == abi.ORDER_WHOLE) return false;
  return slotsCold(base, slot).arena == controlAt(base).planArena;
}

/** Releases the target of the pending move, if there is one. */
function releaseTarget(base: usize): void {
  const control = controlAt(base);
  if (control.planSlot == 0) return;
  const tree = arenaTree(base, arenaRow(base, control.planArena));
  orderTreeRelease(tree, bitsFloorLog2(control.planGranules), control.planTarget);
  control.planSlot = 0;
}
