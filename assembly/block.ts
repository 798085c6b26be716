// Block: what a slot is bound to, in either kind of arena, named by sizing and offset. Layer 5.
//
//   sizing         arena   the block is                                       it comes from
//   ORDER_WHOLE    both    all granules                                       the tree
//   0 … orderMax   plain   2^sizing granules                                  the tree
//   0 … 95         slab    a page of this size class, or as many units        a slab, a mixed slab
//   96 … 251       slab    a run, its class rounded up to granules            the tree
//   SIZING_SHORT   slab    a run, where a page is asked for and none is left   the tree
//   SIZING_ALIGNED slab    a run in steps of ALIGNED_GRANULES                 the tree
//   SIZING_EXACT   slab    a run, the requested bytes rounded up to granules  the tree
//
// A run of a class fits the next request of that class, so it may be cached; an exact run wastes
// less. Every block of a slab arena is aligned to what its length is a multiple of, as far as
// BLOCK_ALIGNMENT_MAX; requests beyond that get a run, which starts with a granule at least. A pure function of arena, sizing and requested bytes says how long a block is.
import * as abi from "./abi";
import {
  ArenaRow,
  GRANULE_UNIT_SHIFT,
  arenaHasSlabs,
  arenaSharesSlabs,
  arenaTree,
} from "./arena-row";
import { bitsOrderOf } from "./bits";
import {
  NO_GRANULE,
  orderTreeClaim,
  orderTreeClaimAt,
  orderTreeClaimBelow,
  orderTreeClaimRun,
  orderTreeClaimRunBelow,
  orderTreeClaimWhole,
  orderTreeRelease,
  orderTreeReleaseRun,
  orderTreeReleaseWhole,
} from "./order-tree";
import { sizeClassLastUnit, sizeClassOf, sizeClassUnits } from "./size-class";
import {
  mixedSlabClaim,
  mixedSlabClaimNew,
  mixedSlabIs,
  mixedSlabRelease,
  mixedSlabRestore,
} from "./mixed-slab";
import {
  NO_UNIT,
  SUPERBLOCK_UNIT_SHIFT,
  slabClaim,
  slabClaimBelow,
  slabOpen,
  slabRelease,
  slabRestore,
} from "./slab";

/** Sizing for which no arena has a block. */
export const NO_SIZING: u32 = 256;

/** Bytes of alignment that a block of any size class can be asked for. */
export const BLOCK_ALIGNMENT_MAX: u32 = abi.ALIGNED_UNITS << abi.UNIT_SHIFT;
/** Bytes of the largest alignment that a run can have. */
const RUN_ALIGNMENT_MAX: u32 = abi.ALIGNED_GRANULES << abi.SLAB_GRANULE_SHIFT;
/** Shorter blocks are no runs: they would leave nearly all of a granule unused. */
export const RUN_UNITS_MIN: u32 = 8;

/** Whether a block of `sizing` is a page of a slab. */
export function blockIsPage(row: ArenaRow, sizing: u32): bool {
  return sizing < <u32>abi.SLAB_CLASS_COUNT && arenaHasSlabs(row);
}

/** Granules of a block that is no page. */
export function blockGranules(row: ArenaRow, sizing: u32, requested: u32): u32 {
  if (sizing == abi.ORDER_WHOLE) return row.capacity;
  if (!arenaHasSlabs(row)) return (<u32>1) << sizing;
  if (sizing < <u32>abi.SIZE_CLASS_COUNT) return classGranules(sizing);
  const granules = ((requested - 1) >> abi.SLAB_GRANULE_SHIFT) + 1;
  const step = blockRunStep(sizing);
  return (granules + step - 1) & ~(step - 1);
}

/** Granules that start and length of a run of `sizing` are a multiple of. */
export function blockRunStep(sizing: u32): u32 {
  return sizing == abi.SIZING_ALIGNED ? <u32>abi.ALIGNED_GRANULES : 1;
}

/** Bytes of a block. */
export function blockBytes(row: ArenaRow, sizing: u32, requested: u32): u64 {
  if (blockIsPage(row, sizing)) return (<u64>sizeClassUnits(sizing)) << abi.UNIT_SHIFT;
  return (<u64>blockGranules(row, sizing, requested)) << row.granuleShift;
}

/**
 * The sizing that a request asks for, or NO_SIZING if no block of the arena's kind is aligned so.
 *
 * @param requested Bytes, at least 1; not checked.
 * @param alignment Bytes, a power of two; not checked.
 */
export function blockSizingOf(row: ArenaRow, requested: u32, alignment: u32): u32 {
  if (!arenaHasSlabs(row)) return bitsOrderOf(requested, alignment, row.granuleShift);
  if (alignment > BLOCK_ALIGNMENT_MAX) {
    if (alignment > RUN_ALIGNMENT_MAX) return NO_SIZING;
    const isByGranule = alignment <= (<u32>1) << abi.SLAB_GRANULE_SHIFT;
    return isByGranule ? abi.SIZING_EXACT : abi.SIZING_ALIGNED;
  }
  const sizeClass = sizeClassOf(sizeClassLastUnit(requested, alignment));
  const isOfClass = sizeClass < max(<u32>abi.SLAB_CLASS_COUNT, row.cacheClassCount);
  return isOfClass ? sizeClass : <u32>abi.SIZING_EXACT;
}

/**
 * The sizing that may have a block where there is none of `sizing`: that of a run which is no longer
 * than the request, or NO_SIZING.
 */
export function blockOtherSizing(row: ArenaRow, sizing: u32): u32 {
  if (!arenaHasSlabs(row) || sizing >= <u32>abi.SIZE_CLASS_COUNT) return NO_SIZING;
  if (sizing >= <u32>abi.SLAB_CLASS_COUNT) return abi.SIZING_EXACT;
  return sizeClassUnits(sizing) < RUN_UNITS_MIN ? NO_SIZING : <u32>abi.SIZING_SHORT;
}

/**
 * Claims a block. A run starts at a multiple of what divides its length where it can: runs of the same
 * lengths then leave gaps that each other fill.
 *
 * @param sizing As blockSizingOf and blockOtherSizing give it.
 * @returns Its offset in the arena's slot units, or NO_UNIT.
 */
export function blockClaim(base: usize, row: ArenaRow, sizing: u32, requested: u32): u32 {
  const tree = arenaTree(base, row);
  if (!arenaHasSlabs(row)) return orderTreeClaim(tree, sizing);
  if (sizing < <u32>abi.SLAB_CLASS_COUNT) {
    let offset = slabClaim(base, row, sizing);
    if (offset != NO_UNIT) return offset;
    const units = sizeClassUnits(sizing);
    if (arenaSharesSlabs(row)) {
      offset = mixedSlabClaim(base, row, units);
      return offset == NO_UNIT ? mixedSlabClaimNew(base, row, units) : offset;
    }
    offset = slabOpen(base, row, sizing);
    return offset == NO_UNIT ? mixedSlabClaim(base, row, units) : offset;
  }
  const granules = blockGranules(row, sizing, requested);
  const step = blockRunStep(sizing);
  const tidyStep = max(step, min(granules & -granules, <u32>abi.ALIGNED_GRANULES));
  const granule = orderTreeClaimRun(tree, granules, tidyStep);
  const isTidy = granule != NO_GRANULE || tidyStep == step;
  return unitOf(isTidy ? granule : orderTreeClaimRun(tree, granules, step));
}

/** Claims a block like the one at `offset` at a lower place, in a lower slab if it is a page. */
export function blockClaimBelow(
  base: usize,
  row: ArenaRow,
  sizing: u32,
  requested: u32,
  offset: u32,
): u32 {
  const tree = arenaTree(base, row);
  if (!arenaHasSlabs(row)) return orderTreeClaimBelow(tree, sizing, offset);
  if (sizing < <u32>abi.SLAB_CLASS_COUNT) {
    return slabClaimBelow(base, row, sizing, offset >> SUPERBLOCK_UNIT_SHIFT);
  }
  const granules = blockGranules(row, sizing, requested);
  const limit = offset >> GRANULE_UNIT_SHIFT;
  return unitOf(orderTreeClaimRunBelow(tree, granules, blockRunStep(sizing), limit));
}

/**
 * Claims the block that a slot says it has, in an arena where nothing is cached. False if the arena
 * can have no such block, or if any of it is claimed already; any numbers are allowed but 0
 * requested bytes.
 */
export function blockRestore(
  base: usize,
  row: ArenaRow,
  sizing: u32,
  requested: u32,
  offset: u32,
): bool {
  const tree = arenaTree(base, row);
  if (sizing == abi.ORDER_WHOLE) {
    if (offset != 0 || tree.free != tree.capacity) return false;
    orderTreeClaimWhole(tree);
    return true;
  }
  if (blockIsPage(row, sizing)) {
    const isPlaced = slabRestore(base, row, sizing, offset);
    return isPlaced || mixedSlabRestore(base, row, sizing, offset);
  }
  if (!arenaHasSlabs(row) && sizing > tree.orderMax) return false;
  const granules = blockGranules(row, sizing, requested);
  const shift = arenaHasSlabs(row) ? GRANULE_UNIT_SHIFT : 0;
  const step = arenaHasSlabs(row) ? blockRunStep(sizing) : granules;
  const granule = offset >> shift;
  if (granule << shift != offset || (granule & (step - 1)) != 0) return false;
  return orderTreeClaimAt(tree, granule, granules);
}

/** Gives the block at `offset` back. */
export function blockRelease(
  base: usize,
  row: ArenaRow,
  sizing: u32,
  requested: u32,
  offset: u32,
): void {
  const tree = arenaTree(base, row);
  if (sizing == abi.ORDER_WHOLE) {
    orderTreeReleaseWhole(tree);
    row.wholeSlot = 0;
  } else if (!arenaHasSlabs(row)) {
    orderTreeRelease(tree, sizing, offset);
  } else if (sizing < <u32>abi.SLAB_CLASS_COUNT) {
    releasePage(base, row, sizing, offset);
  } else {
    const granules = blockGranules(row, sizing, requested);
    orderTreeReleaseRun(tree, offset >> GRANULE_UNIT_SHIFT, granules);
  }
}

function classGranules(sizeClass: u32): u32 {
  const mask: u32 = (1 << GRANULE_UNIT_SHIFT) - 1;
  return (sizeClassUnits(sizeClass) + mask) >> GRANULE_UNIT_SHIFT;
}

function releasePage(base: usize, row: ArenaRow, sizeClass: u32, offset: u32): void {
  if (!mixedSlabIs(base, row, offset >> SUPERBLOCK_UNIT_SHIFT)) slabRelease(base, row, offset);
  else mixedSlabRelease(base, row, offset, sizeClassUnits(sizeClass));
}

function unitOf(granule: u32): u32 {
  return granule == NO_GRANULE ? NO_UNIT : granule << GRANULE_UNIT_SHIFT;
}
