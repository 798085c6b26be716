// Block: what a slot is bound to, in either kind of arena, named by sizing and offset. Layer 5.
//
//   sizing         arena   the block is                                       it comes from
//   ORDER_WHOLE    both    all granules                                       the tree
//   0 … orderMax   plain   2^sizing granules                                  the tree
//   0 … 95         slab    a page of this size class                          a slab
//   96 … 253       slab    a run, its class rounded up to granules            the tree
//   SIZING_EXACT   slab    a run, the requested bytes rounded up to granules  the tree
//
// A run of a class fits the next request of that class, so it may be cached; an exact run wastes
// less. A pure function of arena, sizing and requested bytes says how long a block is.
import * as abi from "./abi";
import { ArenaRow, GRANULE_UNIT_SHIFT, arenaHasSlabs, arenaTree } from "./arena-row";
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
  orderTreeRunStep,
} from "./order-tree";
import { sizeClassLastUnit, sizeClassOf, sizeClassUnits } from "./size-class";
import {
  NO_UNIT,
  SUPERBLOCK_UNIT_SHIFT,
  slabClaim,
  slabClaimBelow,
  slabLargerClass,
  slabRelease,
  slabRestore,
} from "./slab";

/** Sizing for which no arena has a block. */
export const NO_SIZING: u32 = 256;

/** Blocks of a slab arena are aligned to no more than this. */
export const BLOCK_ALIGNMENT_MAX: u32 = abi.RUN_STEP_GRANULES << abi.SLAB_GRANULE_SHIFT;

/** Whether a block of `sizing` is a page of a slab. */
export function blockIsPage(row: ArenaRow, sizing: u32): bool {
  return sizing < <u32>abi.SLAB_CLASS_COUNT && arenaHasSlabs(row);
}

/** Granules of a block that is no page. */
export function blockGranules(row: ArenaRow, sizing: u32, requested: u32): u32 {
  if (sizing == abi.ORDER_WHOLE) return row.capacity;
  if (!arenaHasSlabs(row)) return (<u32>1) << sizing;
  return sizing == abi.SIZING_EXACT ? exactGranules(requested) : classGranules(sizing);
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
  const sizeClass = sizeClassOf(sizeClassLastUnit(requested, alignment));
  if (alignment > BLOCK_ALIGNMENT_MAX) return NO_SIZING;
  const isShort = sizeClass < <u32>abi.SLAB_CLASS_COUNT || sizeClass < row.cacheClassCount;
  if (isShort) return sizeClass;
  if (isExactAligned(requested, alignment)) return abi.SIZING_EXACT;
  return sizeClass < <u32>abi.SIZE_CLASS_COUNT ? sizeClass : NO_SIZING;
}

/**
 * A sizing that holds a request for which there is no block of `sizing`, and for which there may be
 * one, or NO_SIZING.
 */
export function blockOtherSizing(
  base: usize,
  row: ArenaRow,
  sizing: u32,
  requested: u32,
  alignment: u32,
): u32 {
  if (!arenaHasSlabs(row) || sizing >= <u32>abi.SIZE_CLASS_COUNT) return NO_SIZING;
  if (sizing >= <u32>abi.SLAB_CLASS_COUNT) {
    return isExactAligned(requested, alignment) ? <u32>abi.SIZING_EXACT : NO_SIZING;
  }
  const alignmentUnits = max(alignment >> abi.UNIT_SHIFT, 1);
  const larger = slabLargerClass(base, row, sizing, alignmentUnits);
  return larger < <u32>abi.SLAB_CLASS_COUNT ? larger : NO_SIZING;
}

/**
 * Claims a block.
 *
 * @param sizing As blockSizingOf and blockOtherSizing give it.
 * @returns Its offset in the arena's slot units, or NO_UNIT.
 */
export function blockClaim(base: usize, row: ArenaRow, sizing: u32, requested: u32): u32 {
  const tree = arenaTree(base, row);
  if (!arenaHasSlabs(row)) return orderTreeClaim(tree, sizing);
  if (sizing < <u32>abi.SLAB_CLASS_COUNT) return slabClaim(base, row, sizing);
  return unitOf(orderTreeClaimRun(tree, blockGranules(row, sizing, requested)));
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
  return unitOf(orderTreeClaimRunBelow(tree, granules, offset >> GRANULE_UNIT_SHIFT));
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
  if (blockIsPage(row, sizing)) return slabRestore(base, row, sizing, offset);
  if (!arenaHasSlabs(row) && sizing > tree.orderMax) return false;
  const granules = blockGranules(row, sizing, requested);
  const shift = arenaHasSlabs(row) ? GRANULE_UNIT_SHIFT : 0;
  const step = arenaHasSlabs(row) ? orderTreeRunStep(granules) : granules;
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
    slabRelease(base, row, offset);
  } else {
    const granules = blockGranules(row, sizing, requested);
    orderTreeReleaseRun(tree, offset >> GRANULE_UNIT_SHIFT, granules);
  }
}

function classGranules(sizeClass: u32): u32 {
  const mask: u32 = (1 << GRANULE_UNIT_SHIFT) - 1;
  return (sizeClassUnits(sizeClass) + mask) >> GRANULE_UNIT_SHIFT;
}

/** Long runs come in steps, so that they start at a multiple of 64 KiB. */
function exactGranules(requested: u32): u32 {
  const granules = ((requested - 1) >> abi.SLAB_GRANULE_SHIFT) + 1;
  if (granules <= <u32>abi.RUN_FINE_GRANULES_MAX) return granules;
  return (granules + (abi.RUN_STEP_GRANULES - 1)) & ~(abi.RUN_STEP_GRANULES - 1);
}

/** Whether an exact run starts at a multiple of `alignment`: that divides its length. */
function isExactAligned(requested: u32, alignment: u32): bool {
  const granules = exactGranules(requested);
  const alignmentGranules = alignment >> abi.SLAB_GRANULE_SHIFT;
  return alignmentGranules <= 1 || (granules & (alignmentGranules - 1)) == 0;
}

function unitOf(granule: u32): u32 {
  return granule == NO_GRANULE ? NO_UNIT : granule << GRANULE_UNIT_SHIFT;
}
