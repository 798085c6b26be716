// Compact goal: what a round of compaction in a slab arena wants to empty, and where it puts what was
// there. Layer 8. It writes planLow and planHigh and reads nothing else of the plan.
import * as abi from "./abi";
import { ArenaRow, GRANULE_UNIT_SHIFT, arenaTree } from "./arena-row";
import { bitmapNext, NO_INDEX } from "./bitmap";
import {
  BLOCK_ALIGNMENT_MAX,
  blockClaimBelow,
  blockGranules,
  blockIsPage,
  blockRunStep,
} from "./block";
import { stretchClaimOutside, stretchFreeFrom } from "./stretch";
import { controlAt } from "./control";
import {
  MIXED_SET,
  mixedSlabClaimIn,
  mixedSlabIs,
  mixedSlabMixAll,
  mixedSlabOpen,
} from "./mixed-slab";
import { NO_GRANULE, orderTreeClaimAt } from "./order-tree";
import { sizeClassLastUnit, sizeClassOf, sizeClassUnits } from "./size-class";
import {
  NO_UNIT,
  SUPERBLOCK_UNIT_SHIFT,
  slabClaimIn,
  slabOpenAt,
  slabPartials,
  slabRow,
} from "./slab";
import { HotRow, slotsHot } from "./slots";
import { sortedSlotsAt, sortedSlotsByLength, sortedSlotsPut } from "./sorted-slots";

const SUPERBLOCK_GRANULES: u32 = 1 << abi.SUPERBLOCK_ORDER;
/** A page may become a run that is longer by this part of it, given as log2. */
const WASTE_SHIFT: u32 = 3;
/** After so many rounds the window is as long as all that is free, whatever is needed. */
const NEAR_ROUND_COUNT: u32 = 5;
/** A pinned block in a window weighs more than any bytes. */
const PIN_WEIGHT: u64 = 1 << 40;

/**
 * Makes slabs with a free page mixed ones, and decides which mixed slabs are emptied: as many of those
 * with the least in them as the others have room for.
 *
 * @param count Entries of the sorted slots, by offset.
 * @returns Number of candidates, which are the first of the sorted slots, by falling length.
 */
export function compactGoalPack(base: usize, row: ArenaRow, count: u32): u32 {
  mixedSlabMixAll(base, row);
  // The greatest rank for which what is below it fits into what is not.
  let low: u32 = 0;
  let high: u32 = (abi.SUPERBLOCK_UNITS + 1) << RANK_SHIFT;
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (hasRoomFrom(base, row, middle)) low = middle;
    else high = middle;
  }
  controlAt(base).planLow = low;
  let candidateCount: u32 = 0;
  for (let entry: u32 = 0; entry < count; entry++) {
    const slot = sortedSlotsAt(base, entry);
    const hot = slotsHot(base, slot);
    if (!blockIsPage(row, hot.sizing)) continue;
    const index = hot.offset >> SUPERBLOCK_UNIT_SHIFT;
    if (!mixedSlabIs(base, row, index) || rankOf(base, row, index) >= low) continue;
    sortedSlotsPut(base, candidateCount, slot);
    candidateCount += 1;
  }
  sortedSlotsByLength(base, candidateCount, false);
  return candidateCount;
}

/** Claims a place in a mixed slab that is not to be emptied, or NO_UNIT. */
export function compactGoalClaimPack(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const low = controlAt(base).planLow;
  const from = hot.offset >> SUPERBLOCK_UNIT_SHIFT;
  if (!mixedSlabIs(base, row, from) || rankOf(base, row, from) >= low) return NO_UNIT;
  const units = sizeClassUnits(hot.sizing);
  const partials = slabPartials(base, row, MIXED_SET);
  const origin = base + row.tree;
  let index = bitmapNext(partials, origin, 0);
  while (index != NO_INDEX) {
    if (rankOf(base, row, index) >= low) {
      const offset = mixedSlabClaimIn(base, row, index, units);
      if (offset != NO_UNIT) return offset;
    }
    index = bitmapNext(partials, origin, index + 1);
  }
  return NO_UNIT;
}

/**
 * Finds the window, as long as what is needed or else as all that is free, in which the blocks have the
 * fewest bytes, pinned ones avoided.
 *
 * @param count Entries of the sorted slots, by falling offset.
 * @returns Number of candidates, which are the first of the sorted slots: long ones first, and the
 *   pages of a slab one after the other.
 */
export function compactGoalWindow(base: usize, row: ArenaRow, count: u32): u32 {
  const control = controlAt(base);
  const free = arenaTree(base, row).free;
  // What is free in a slab counts once its blocks have become runs.
  const need = control.planNeed;
  const isNear = need != 0 && control.planRound <= NEAR_ROUND_COUNT;
  const length = isNear && need <= free + mixedFree(base, row) ? need : free;
  control.planLow = lightestWindow(base, row, count, length);
  control.planHigh = control.planLow + length;
  let candidateCount: u32 = 0;
  for (let entry: u32 = 0; entry < count; entry++) {
    const slot = sortedSlotsAt(base, entry);
    if (!isInWindow(base, row, slotsHot(base, slot))) continue;
    sortedSlotsPut(base, candidateCount, slot);
    candidateCount += 1;
  }
  sortedSlotsByLength(base, candidateCount, true);
  return candidateCount;
}

/** Claims a place outside the window, or a lower one in it, for a block in the window; or NO_UNIT. */
export function compactGoalClaimWindow(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const control = controlAt(base);
  if (!isInWindow(base, row, hot)) return NO_UNIT;
  if (blockIsPage(row, hot.sizing)) return claimPageOutside(base, row, hot);
  if (hot.sizing == abi.SIZING_SHORT) {
    const sizeClass = sizeClassOf(sizeClassLastUnit(hot.requested, BLOCK_ALIGNMENT_MAX));
    const offset = claimInSlabOutside(base, row, MIXED_SET, sizeClass);
    if (offset != NO_UNIT) {
      control.planTargetSizing = sizeClass;
      return offset;
    }
  }
  const granule = stretchClaimOutside(
    arenaTree(base, row),
    blockGranules(row, hot.sizing, hot.requested),
    blockRunStep(hot.sizing),
    control.planLow,
    control.planHigh,
  );
  if (granule != NO_GRANULE) return granule << GRANULE_UNIT_SHIFT;
  // What may slide gathers at the high end later, at no more than its own bytes.
  if (control.planMaySlide != 0) return NO_UNIT;
  return blockClaimBelow(base, row, hot.sizing, hot.requested, hot.offset);
}

/**
 * Chooses between which blocks runs slide up: with a need, between those that have as much free space
 * between them and move the fewest bytes; else within the last window.
 *
 * @param count Entries of the sorted slots, by falling offset.
 * @returns Number of candidates, which are the first of the sorted slots, by falling offset.
 */
export function compactGoalSlide(base: usize, row: ArenaRow, count: u32): u32 {
  const control = controlAt(base);
  if (control.planNeed != 0) {
    control.planLow = 0;
    control.planHigh = row.capacity;
    findInterval(base, row, count, control.planNeed);
  }
  let candidateCount: u32 = 0;
  for (let entry: u32 = 0; entry < count; entry++) {
    const slot = sortedSlotsAt(base, entry);
    if (!isInWindow(base, row, slotsHot(base, slot))) continue;
    sortedSlotsPut(base, candidateCount, slot);
    candidateCount += 1;
  }
  return candidateCount;
}

/** Claims for a run what is free above it, and what is missing to its length below that; or NO_UNIT. */
export function compactGoalClaimSlide(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const control = controlAt(base);
  if (blockIsPage(row, hot.sizing) || !isInWindow(base, row, hot)) return NO_UNIT;
  const tree = arenaTree(base, row);
  const start = extentStart(row, hot);
  const end = extentEnd(row, hot);
  const reach = max(control.planHigh, end) - end;
  const free = min(stretchFreeFrom(tree, end, reach), reach);
  const step = blockRunStep(hot.sizing);
  const above = stretchClaimOutside(tree, end - start, step, 0, end + free);
  if (above != NO_GRANULE) return above << GRANULE_UNIT_SHIFT;
  const shift = free & ~(step - 1);
  if (shift == 0) return NO_UNIT;
  orderTreeClaimAt(tree, max(end, start + shift), min(shift, end - start));
  return (start + shift) << GRANULE_UNIT_SHIFT;
}

/**
 * Writes planLow and planHigh: from the end of one block, or an end of the arena, to the start of
 * another, with `need` free granules between them, no slab and no pinned block, and the fewest
 * bytes. Cost: two looks at each block.
 */
function findInterval(base: usize, row: ArenaRow, count: u32, need: u32): void {
  const control = controlAt(base);
  let bestWeight: u64 = u64.MAX_VALUE;
  // The interval ends where block `first` - 1 starts and holds the blocks from `first` to `last`.
  let first: u32 = 0;
  let high = row.capacity;
  let weight: u64 = 0;
  let blockGranuleCount: u32 = 0;
  for (let last: u32 = 0; last <= count; last++) {
    const hot = slotsHot(base, sortedSlotsAt(base, min(last, count - 1)));
    const low = last == count ? 0 : extentEnd(row, hot);
    // Block `last` bounds the interval from below; drop what the need does not want from the top.
    while (first < last && high - low - blockGranuleCount >= need) {
      if (weight < bestWeight) {
        bestWeight = weight;
        control.planLow = low;
        control.planHigh = high;
      }
      const top = slotsHot(base, sortedSlotsAt(base, first));
      weight -= top.requested;
      blockGranuleCount -= extentEnd(row, top) - extentStart(row, top);
      high = extentStart(row, top);
      first += 1;
    }
    if (last == count) return;
    if (hot.state != abi.SLOT_STATE_LIVE || blockIsPage(row, hot.sizing)) {
      first = last + 1;
      high = extentStart(row, hot);
      weight = 0;
      blockGranuleCount = 0;
    } else {
      weight += hot.requested;
      blockGranuleCount += extentEnd(row, hot) - extentStart(row, hot);
    }
  }
}

/**
 * Claims a place for a page of a slab in the window: in a slab of its kind outside, where there is room
 * or a superblock for all that is in its slab.
 */
function claimPageOutside(base: usize, row: ArenaRow, hot: HotRow): u32 {
  const from = hot.offset >> SUPERBLOCK_UNIT_SHIFT;
  const set = mixedSlabIs(base, row, from) ? MIXED_SET : <u32>hot.sizing;
  let offset = claimInSlabOutside(base, row, set, hot.sizing);
  if (offset != NO_UNIT) return offset;
  const slab = slabRow(base, row, from);
  // A slab with little in it is not worth another superblock, as long as its blocks can be runs.
  const isSparse = (<u32>slab.pageCount - slab.freeCount) << 2 < <u32>slab.pageCount;
  offset = isSparse
    ? claimInSlabOutside(base, row, MIXED_SET, hot.sizing)
    : claimSlabOutside(base, row, hot, from);
  if (offset == NO_UNIT) offset = claimAsRun(base, row, hot, from);
  return offset == NO_UNIT && isSparse ? claimSlabOutside(base, row, hot, from) : offset;
}

/** Claims a page of `sizeClass` in a slab outside the window, one of those in partial set `set`. */
function claimInSlabOutside(base: usize, row: ArenaRow, set: u32, sizeClass: u32): u32 {
  const control = controlAt(base);
  const partials = slabPartials(base, row, set);
  const origin = base + row.tree;
  let index = bitmapNext(partials, origin, 0);
  while (index != NO_INDEX) {
    const granule = index << abi.SUPERBLOCK_ORDER;
    if (granule + SUPERBLOCK_GRANULES <= control.planLow || granule >= control.planHigh) {
      const offset =
        set == MIXED_SET
          ? mixedSlabClaimIn(base, row, index, sizeClassUnits(sizeClass))
          : slabClaimIn(base, row, sizeClass, index);
      if (offset != NO_UNIT) return offset;
    }
    index = bitmapNext(partials, origin, index + 1);
  }
  return NO_UNIT;
}

/** Opens a slab outside the window for what is in slab `from`, and claims a place there for a page. */
function claimSlabOutside(base: usize, row: ArenaRow, hot: HotRow, from: u32): u32 {
  const control = controlAt(base);
  if (!isEmptiable(base, row, from)) return NO_UNIT;
  const granule = stretchClaimOutside(
    arenaTree(base, row),
    SUPERBLOCK_GRANULES,
    SUPERBLOCK_GRANULES,
    control.planLow,
    control.planHigh,
  );
  if (granule == NO_GRANULE) return NO_UNIT;
  if (!mixedSlabIs(base, row, from)) return slabOpenAt(base, row, hot.sizing, granule);
  mixedSlabOpen(base, row, granule >> abi.SUPERBLOCK_ORDER);
  return mixedSlabClaimIn(base, row, granule >> abi.SUPERBLOCK_ORDER, sizeClassUnits(hot.sizing));
}

/** Claims a run outside the window for a page that wastes little as one. */
function claimAsRun(base: usize, row: ArenaRow, hot: HotRow, from: u32): u32 {
  const control = controlAt(base);
  const units = sizeClassUnits(hot.sizing);
  const granules = blockGranules(row, abi.SIZING_SHORT, hot.requested);
  if (granules << GRANULE_UNIT_SHIFT > units + (units >> WASTE_SHIFT)) return NO_UNIT;
  if (!isEmptiable(base, row, from)) return NO_UNIT;
  const tree = arenaTree(base, row);
  const granule = stretchClaimOutside(tree, granules, 1, control.planLow, control.planHigh);
  if (granule == NO_GRANULE) return NO_UNIT;
  control.planTargetSizing = abi.SIZING_SHORT;
  return granule << GRANULE_UNIT_SHIFT;
}

/**
 * Whether all that is claimed of slab `index` belongs to candidates that may move: the one before the
 * cursor or one that follows it. Cost: one look at each of them.
 */
function isEmptiable(base: usize, row: ArenaRow, index: u32): bool {
  const control = controlAt(base);
  const slab = slabRow(base, row, index);
  const isMixed = mixedSlabIs(base, row, index);
  const claimed = <u32>slab.pageCount - slab.freeCount;
  let movable: u32 = 0;
  for (let cursor = control.planCursor - 1; cursor < control.planCount; cursor++) {
    const hot = slotsHot(base, sortedSlotsAt(base, cursor));
    if (hot.state != abi.SLOT_STATE_LIVE) break;
    if (hot.offset >> SUPERBLOCK_UNIT_SHIFT != index) break;
    movable += isMixed ? sizeClassUnits(hot.sizing) : 1;
  }
  return movable == claimed;
}

/** Rank of a mixed slab: what is claimed in it, then its index, so that no two are the same. */
const RANK_SHIFT: u32 = 15;

function rankOf(base: usize, row: ArenaRow, index: u32): u32 {
  return ((abi.SUPERBLOCK_UNITS - slabRow(base, row, index).freeCount) << RANK_SHIFT) | index;
}

/** Whether what is in mixed slabs of lower rank than `rank` is no more than is free in the others. */
function hasRoomFrom(base: usize, row: ArenaRow, rank: u32): bool {
  let claimed: u64 = 0;
  let free: u64 = 0;
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    if (!mixedSlabIs(base, row, index)) continue;
    const freeCount = slabRow(base, row, index).freeCount;
    if (rankOf(base, row, index) < rank) claimed += <u64>abi.SUPERBLOCK_UNITS - freeCount;
    else free += freeCount;
  }
  return claimed <= free;
}

/** Granules that the free units of mixed slabs would be. */
function mixedFree(base: usize, row: ArenaRow): u32 {
  let units: u64 = 0;
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    if (mixedSlabIs(base, row, index)) units += slabRow(base, row, index).freeCount;
  }
  return <u32>(units >> GRANULE_UNIT_SHIFT);
}

/** First granule of what has to be empty for the block of `hot` to be gone: a page's whole slab. */
function extentStart(row: ArenaRow, hot: HotRow): u32 {
  const granule = hot.offset >> GRANULE_UNIT_SHIFT;
  return blockIsPage(row, hot.sizing) ? granule & ~(SUPERBLOCK_GRANULES - 1) : granule;
}

/** First granule behind it. */
function extentEnd(row: ArenaRow, hot: HotRow): u32 {
  const start = extentStart(row, hot);
  if (blockIsPage(row, hot.sizing)) return start + SUPERBLOCK_GRANULES;
  return start + blockGranules(row, hot.sizing, hot.requested);
}

function isInWindow(base: usize, row: ArenaRow, hot: HotRow): bool {
  const control = controlAt(base);
  return extentStart(row, hot) < control.planHigh && extentEnd(row, hot) > control.planLow;
}

function weightOf(hot: HotRow): u64 {
  return hot.state == abi.SLOT_STATE_PINNED ? PIN_WEIGHT : <u64>hot.requested;
}

/**
 * First granule of the window of `length` in which the blocks weigh least. Such a window starts where a
 * block ends or ends where one starts, or at an end of the arena. Cost: a few looks at each block.
 */
function lightestWindow(base: usize, row: ArenaRow, count: u32, length: u32): u32 {
  let best: u32 = row.capacity - length;
  let bestWeight: u64 = u64.MAX_VALUE;
  for (let isByEnd = 0; isByEnd < 2; isByEnd++) {
    // Blocks from `entered` on, by falling offset, reach into the window or lie below it; those before
    // `left` lie behind it.
    let weight: u64 = 0;
    let entered: u32 = 0;
    let left: u32 = 0;
    for (let entry: u32 = 0; entry <= count; entry++) {
      let low: u32 = 0;
      if (entry < count) {
        const hot = slotsHot(base, sortedSlotsAt(base, entry));
        const edge = isByEnd != 0 ? extentEnd(row, hot) : extentStart(row, hot);
        if (isByEnd == 0 && edge < length) continue;
        low = isByEnd != 0 ? edge : edge - length;
        if (low > row.capacity - length) continue;
      }
      const high = low + length;
      while (entered < count) {
        const hot = slotsHot(base, sortedSlotsAt(base, entered));
        if (extentEnd(row, hot) <= low) break;
        weight += weightOf(hot);
        entered += 1;
      }
      while (left < entered) {
        const hot = slotsHot(base, sortedSlotsAt(base, left));
        if (extentStart(row, hot) < high) break;
        weight -= weightOf(hot);
        left += 1;
      }
      if (weight < bestWeight) {
        bestWeight = weight;
        best = low;
      }
    }
  }
  return best;
}
