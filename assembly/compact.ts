// Compact: plans which blocks of an arena move, so that what is free becomes one piece. Layer 8. The
// host moves the bytes: it calls `next`, copies, and then commits or vetoes. One plan and one pending
// move at a time.
//
// A plan is a few rounds, each with a goal, over those blocks that the goal concerns. In a plain arena
// every block goes to the lowest place that fits, the highest one first. In a slab arena:
//
//   1. GOAL_PACK: slabs with a free page become mixed slabs, and those with the least in them are
//      emptied into the others.
//   2. GOAL_WINDOW: where the blocks in a window as long as the free space have the fewest bytes, they
//      go to places outside it, long ones first, each to the tightest place. Whatever finds none goes
//      to the low end of the window. Repeated as long as it helps.
//   3. GOAL_SLIDE: runs slide up within an interval that holds as much free space as is needed, or
//      within the window. Such a move may overlap its own source; only callers that copy and commit
//      at once ask for it, and its block cannot be pinned in between.
//
// No compactor that ends with one piece can move less than what such a window holds.
//
// A plan that evacuates has one round, GOAL_EVACUATE: every block goes into another arena of the pool,
// long ones first. What finds no place there stays, and another plan may take it elsewhere.
//
// Between `next` and `commit` the target is claimed without a slot. Everything else goes on as
// usual: blocks may be allocated, freed and pinned while a plan is active, and each step looks at
// the slot again. A slot that was freed and bound anew inside the same arena counts as what it is
// now. The caches of the arena are drained at the start, and what is cached since does not move.
import * as abi from "./abi";
import { arenaClaim } from "./arena";
import {
  ArenaRow,
  GRANULE_UNIT_SHIFT,
  arenaHasSlabs,
  arenaIsOpen,
  arenaRow,
  arenaTree,
  arenaUsageOf,
} from "./arena-row";
import { RUN_UNITS_MIN, blockBytes, blockClaimBelow, blockIsPage, blockRelease } from "./block";
import { classCacheDrain } from "./class-cache";
import {
  compactGoalClaimPack,
  compactGoalClaimSlide,
  compactGoalClaimWindow,
  compactGoalPack,
  compactGoalSlide,
  compactGoalWindow,
} from "./compact-goal";
import { controlAt, controlPlanOverlap, controlRefuse } from "./control";
import { laneCacheNote } from "./lane-cache";
import { lockLane } from "./lock";
import { NO_GRANULE, orderTreeClaimRun, orderTreeReleaseRun } from "./order-tree";
import { NO_UNIT } from "./slab";
import { HotRow, slotsHot, slotsLane, slotsRebind, slotsSetState, slotsVerify } from "./slots";
import { sortedSlotsAt, sortedSlotsBuild, sortedSlotsByLength } from "./sorted-slots";
import { statsRecharge } from "./stats";

/** Rounds of one plan. A round that moves nothing is the last of its goal. */
const ROUND_COUNT_MAX: u32 = 16;

/**
 * Starts a plan for `arena` and discards an older one. A block that owns its arena whole is no
 * candidate.
 *
 * @param needBytes Bytes that are to be free in a row; the plan ends when they are. 0: everything.
 * @param maySlide Whether moves may overlap their own source, as the last goal wants.
 * @returns Number of candidates of the first round with STATUS_OK, or 0 with STATUS_NO_ARENA. A plan
 *   without candidates in its first round may have some later.
 */
export function compactBegin(base: usize, arena: u32, needBytes: u32, maySlide: bool): u32 {
  compactDiscard(base);
  if (!arenaIsOpen(base, arena)) return controlRefuse(base, abi.STATUS_NO_ARENA);
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  classCacheDrain(base, row);
  control.planNeed = needBytes == 0 ? 0 : ((needBytes - 1) >> row.granuleShift) + 1;
  // What is too short for a run needs a superblock, wherever one begins.
  const isShort = needBytes < RUN_UNITS_MIN << abi.UNIT_SHIFT && arenaHasSlabs(row);
  if (needBytes != 0 && isShort) control.planNeed = (2 << abi.SUPERBLOCK_ORDER) - 1;
  control.planMaySlide = maySlide ? 1 : 0;
  const goal = arenaHasSlabs(row) ? abi.GOAL_PACK : abi.GOAL_LOWER;
  return begin(base, arena, arena, goal, row.wholeSlot == 0 ? 0 : ROUND_COUNT_MAX);
}

/**
 * Starts a plan that moves the blocks of `arena` into `into`, and discards an older one.
 *
 * @param into Another arena of the same pool, of slabs if `arena` is, with slot units of the same length.
 * @returns Number of candidates with STATUS_OK, or 0 with STATUS_NO_ARENA or STATUS_BAD_ARGUMENT.
 */
export function compactEvacuate(base: usize, arena: u32, into: u32): u32 {
  compactDiscard(base);
  if (!arenaIsOpen(base, arena) || !arenaIsOpen(base, into)) {
    return controlRefuse(base, abi.STATUS_NO_ARENA);
  }
  const row = arenaRow(base, arena);
  const target = arenaRow(base, into);
  const isAlike = row.pool == target.pool && row.unitShift == target.unitShift;
  if (arena == into || !isAlike || arenaHasSlabs(row) != arenaHasSlabs(target)) {
    return controlRefuse(base, abi.STATUS_BAD_ARGUMENT);
  }
  return begin(base, arena, into, abi.GOAL_EVACUATE, 0);
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
  do {
    while (control.planCursor < control.planCount) {
      const slot = sortedSlotsAt(base, control.planCursor);
      control.planCursor += 1;
      if (!isMovable(base, slot)) continue;
      const hot = slotsHot(base, slot);
      control.planTargetSizing = hot.sizing;
      const target = claimTarget(base, row, hot);
      if (target == NO_UNIT) continue;
      control.planSlot = slot;
      control.planSource = hot.offset;
      control.planTarget = target;
      const sizing = control.planTargetSizing;
      control.planUnits = <u32>(blockBytes(row, sizing, hot.requested) >> row.unitShift);
      control.planSizing = hot.sizing;
      control.planRequested = hot.requested;
      control.planGeneration = hot.generation;
      return slot;
    }
  } while (nextRound(base, row));
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
  bindTarget(base, slot);
  releasePlanned(base, control.planArena, control.planSource, control.planSizing);
  control.planSlot = 0;
  control.planIsCopied = 0;
  control.planMoved += 1;
  return abi.STATUS_OK;
}

/** Gives up the pending move; the block stays. STATUS_NO_PLAN or STATUS_OK. */
export function compactVeto(base: usize): u32 {
  if (controlAt(base).planSlot == 0) return abi.STATUS_NO_PLAN;
  releaseTarget(base);
  return abi.STATUS_OK;
}

/**
 * Gives up the pending move for now: it is the first that the next call looks at. STATUS_NO_PLAN or
 * STATUS_OK.
 */
export function compactPostpone(base: usize): u32 {
  const status = compactVeto(base);
  if (status == abi.STATUS_OK) controlAt(base).planCursor -= 1;
  return status;
}

/** Ends the plan, if there is one, and gives up its pending move. */
export function compactDiscard(base: usize): void {
  releaseTarget(base);
  controlAt(base).planArena = 0;
}

/** Begins the first round of a plan, after `round` others, and returns the number of its candidates. */
function begin(base: usize, arena: u32, into: u32, goal: u32, round: u32): u32 {
  const control = controlAt(base);
  controlRefuse(base, abi.STATUS_OK);
  control.planArena = arena;
  control.planInto = into;
  control.planGoal = goal;
  control.planRound = round;
  beginRound(base, arenaRow(base, arena));
  return control.planCount;
}

/** Gathers the candidates of a round. */
function beginRound(base: usize, row: ArenaRow): void {
  const control = controlAt(base);
  control.planCursor = 0;
  control.planMoved = 0;
  control.planCount = 0;
  if (control.planRound >= ROUND_COUNT_MAX) return;
  control.planRound += 1;
  const count = sortedSlotsBuild(base, control.planArena);
  if (control.planGoal == abi.GOAL_PACK) control.planCount = compactGoalPack(base, row, count);
  else if (control.planGoal == abi.GOAL_LOWER) control.planCount = count;
  else if (control.planGoal == abi.GOAL_EVACUATE) {
    sortedSlotsByLength(base, count, false);
    control.planCount = count;
  } else if (control.planGoal == abi.GOAL_SLIDE) {
    control.planCount = compactGoalSlide(base, row, count);
  } else control.planCount = compactGoalWindow(base, row, count);
}

/** Goes on to the next round; false at the end of the plan. */
function nextRound(base: usize, row: ArenaRow): bool {
  const control = controlAt(base);
  const hasMoved = control.planMoved != 0;
  if (control.planRound >= ROUND_COUNT_MAX || isNeedMet(base, row)) return false;
  const goal = control.planGoal;
  if (goal == abi.GOAL_EVACUATE) return false;
  if (goal == abi.GOAL_WINDOW && !hasMoved) {
    if (control.planMaySlide == 0) return false;
    control.planGoal = abi.GOAL_SLIDE;
  } else if (goal == abi.GOAL_SLIDE) {
    // What slid may have left places for what did not.
    if (control.planNeed == 0 || !hasMoved) return false;
    control.planGoal = abi.GOAL_WINDOW;
  } else if (goal == abi.GOAL_PACK) control.planGoal = abi.GOAL_WINDOW;
  else if (!hasMoved) return false;
  beginRound(base, row);
  return true;
}

/** Whether there is a need, and as much is free in a row. */
function isNeedMet(base: usize, row: ArenaRow): bool {
  const need = controlAt(base).planNeed;
  if (need == 0 || !arenaHasSlabs(row)) return false;
  const tree = arenaTree(base, row);
  const granule = orderTreeClaimRun(tree, need, 1);
  if (granule == NO_GRANULE) return false;
  orderTreeReleaseRun(tree, granule, need);
  return true;
}

/** Whether `slot`, a candidate of the plan, is still a block that may move. */
function isMovable(base: usize, slot: u32): bool {
  const hot = slotsHot(base, slot);
  if (hot.state != abi.SLOT_STATE_LIVE || hot.sizing == abi.ORDER_WHOLE) return false;
  if (ASC_FEATURE_THREADS && slotsLane(base, slot) != lockLane()) return false;
  return hot.arena == controlAt(base).planArena;
}

/** Claims a place for the block of `hot` that serves the goal of the round, or NO_UNIT. */
function claimTarget(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const goal = controlAt(base).planGoal;
  if (goal == abi.GOAL_LOWER) {
    return blockClaimBelow(base, row, hot.sizing, hot.requested, hot.offset);
  }
  if (goal == abi.GOAL_EVACUATE) return claimAcross(base, hot);
  if (goal == abi.GOAL_WINDOW) return compactGoalClaimWindow(base, row, hot);
  if (goal == abi.GOAL_SLIDE) return compactGoalClaimSlide(base, row, hot);
  return blockIsPage(row, hot.sizing) ? compactGoalClaimPack(base, row, hot) : NO_UNIT;
}

/** Claims a place for the block of `hot` in the arena that the plan moves into, or NO_UNIT. */
function claimAcross(base: usize, hot: HotRow): u32 {
  const control = controlAt(base);
  const row = arenaRow(base, control.planInto);
  let sizing = <u32>hot.sizing;
  const isRunOfClass = sizing >= <u32>abi.SLAB_CLASS_COUNT && sizing < <u32>abi.SIZE_CLASS_COUNT;
  // A longer or shorter arena has caches for other classes.
  if (arenaHasSlabs(row) && isRunOfClass && sizing >= row.cacheClassCount) {
    sizing = abi.SIZING_EXACT;
  }
  const claim = arenaClaim(base, row, sizing, hot.requested);
  control.planTargetSizing = <u32>(claim >> 32);
  return <u32>claim;
}

/** Binds the slot of the pending move to its target, and counts it there. */
function bindTarget(base: usize, slot: u32): void {
  const control = controlAt(base);
  const hot = slotsHot(base, slot);
  const source = arenaRow(base, control.planArena);
  const target = arenaRow(base, control.planInto);
  const sizing = control.planTargetSizing;
  // From this store on recover.ts ends the move.
  control.planIsCopied = 1;
  slotsRebind(base, slot, control.planTarget);
  slotsSetState(hot, sizing, abi.SLOT_STATE_LIVE, control.planInto);
  const usage = arenaUsageOf(hot.requested);
  source.usage -= usage;
  target.usage += usage;
  if (ASC_FEATURE_THREADS) {
    laneCacheNote(base, source, lockLane(), 0 - usage);
    laneCacheNote(base, target, lockLane(), usage);
  }
  const before = blockBytes(source, control.planSizing, hot.requested);
  const after = blockBytes(target, sizing, hot.requested);
  source.claimed -= before;
  target.claimed += after;
  statsRecharge(base, source.pool, 0, after - before);
}

/** Releases the target of the pending move, if there is one. */
function releaseTarget(base: usize): void {
  const control = controlAt(base);
  if (control.planSlot == 0) return;
  releasePlanned(base, control.planInto, control.planTarget, control.planTargetSizing);
  control.planSlot = 0;
}

/**
 * Releases source or target of the pending move, whichever starts at `offset` of `arena`. Of two that
 * overlap, only what is not part of the other one too.
 */
function releasePlanned(base: usize, arena: u32, offset: u32, sizing: u32): void {
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  const shift = controlPlanOverlap(base);
  if (shift == 0) {
    blockRelease(base, row, sizing, control.planRequested, offset);
    return;
  }
  const start = offset == control.planSource ? offset : offset + control.planUnits - shift;
  const tree = arenaTree(base, row);
  orderTreeReleaseRun(tree, start >> GRANULE_UNIT_SHIFT, shift >> GRANULE_UNIT_SHIFT);
}
