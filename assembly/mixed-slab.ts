// Mixed slab: a slab that holds blocks of many size classes, each where enough units lie free. Layer
// 4. Classes with few blocks share one instead of leaving most of a slab each unused. A slab of one
// class becomes mixed where it lies: its blocks stay, and what was free between them serves all.
//
//   superblock row   sizeClass = SIZE_CLASS_MIXED, pageUnits = 1: a page is a unit, and so
//                    pageCount, freeCount and page map count units
//   room             no stretch of free units is longer than this
//
// A block starts at a multiple of the largest power of two that divides its length, as far as
// ALIGNED_UNITS.
//
// INV-SLAB-4  room of a mixed slab is at least its longest stretch of free units.
import * as abi from "./abi";
import { ArenaRow, arenaTree } from "./arena-row";
import { bitmapAdd, bitmapNext, bitmapRemove, NO_INDEX } from "./bitmap";
import { NO_GRANULE, orderTreeClaimAt, orderTreeClaimSuperblock } from "./order-tree";
import { sizeClassUnits } from "./size-class";
import {
  NO_UNIT,
  SUPERBLOCK_UNIT_SHIFT,
  SuperblockRow,
  slabClose,
  slabPageMap,
  slabPartials,
  slabRow,
} from "./slab";

/** The set of mixed slabs with a free unit: it follows those of the classes. */
export const MIXED_SET: u32 = abi.SLAB_CLASS_COUNT;

/** Words of a page map. */
const MAP_WORDS: u32 = abi.PAGE_MAP_BYTES >> 3;

/** Whether superblock `index` is a mixed slab. */
export function mixedSlabIs(base: usize, row: ArenaRow, index: u32): bool {
  return slabRow(base, row, index).sizeClass == abi.SIZE_CLASS_MIXED;
}

/** What the start of a block of `units` in a mixed slab is a multiple of. */
export function mixedSlabStep(units: u32): u32 {
  return min(units & -units, <u32>abi.ALIGNED_UNITS);
}

/**
 * Claims `units` in the lowest mixed slab that has room for them.
 *
 * @returns Offset in units, or NO_UNIT. Cost: one look at each mixed slab, and one pass over the map
 *   of each that seems to have room and has not.
 */
export function mixedSlabClaim(base: usize, row: ArenaRow, units: u32): u32 {
  const partials = slabPartials(base, row, MIXED_SET);
  const origin = base + row.tree;
  let index = partials.setCount == 0 ? NO_INDEX : bitmapNext(partials, origin, 0);
  while (index != NO_INDEX) {
    const offset = mixedSlabClaimIn(base, row, index, units);
    if (offset != NO_UNIT) return offset;
    index = bitmapNext(partials, origin, index + 1);
  }
  return NO_UNIT;
}

/** Claims `units` at the start of a new mixed slab, or NO_UNIT. Cost: one claim in the tree. */
export function mixedSlabClaimNew(base: usize, row: ArenaRow, units: u32): u32 {
  const granule = orderTreeClaimSuperblock(arenaTree(base, row));
  if (granule == NO_GRANULE) return NO_UNIT;
  const index = granule >> abi.SUPERBLOCK_ORDER;
  mixedSlabOpen(base, row, index);
  return mixedSlabClaimIn(base, row, index, units);
}

/** Claims the lowest `units` that fit in mixed slab `index`, or NO_UNIT. */
export function mixedSlabClaimIn(base: usize, row: ArenaRow, index: u32, units: u32): u32 {
  const slab = slabRow(base, row, index);
  if (units > <u32>slab.room) return NO_UNIT;
  const step = mixedSlabStep(units);
  const start = findFree(slabPageMap(base, row, index), slab, units, step);
  if (start != NO_UNIT) {
    claimUnits(base, row, index, start, units);
    return (index << SUPERBLOCK_UNIT_SHIFT) + start;
  }
  // A longer stretch would have held them at a multiple of the step.
  slab.room = <u16>(units + step - 2);
  return NO_UNIT;
}

/** Makes superblock `index`, which is claimed, a mixed slab of which everything is free. */
export function mixedSlabOpen(base: usize, row: ArenaRow, index: u32): void {
  const slab = slabRow(base, row, index);
  slab.sizeClass = <u16>abi.SIZE_CLASS_MIXED;
  slab.pageCount = <u16>abi.SUPERBLOCK_UNITS;
  slab.freeCount = <u16>abi.SUPERBLOCK_UNITS;
  slab.lowestWord = 0;
  slab.pageUnits = 1;
  slab.room = <u16>abi.SUPERBLOCK_UNITS;
  memory.fill(slabPageMap(base, row, index), 0xff, abi.PAGE_MAP_BYTES);
  bitmapAdd(slabPartials(base, row, MIXED_SET), base + row.tree, index);
  row.slabCount += 1;
}

/** Gives back the `units` at `offset` of a mixed slab, and with the last of them the slab. */
export function mixedSlabRelease(base: usize, row: ArenaRow, offset: u32, units: u32): void {
  const index = offset >> SUPERBLOCK_UNIT_SHIFT;
  const slab = slabRow(base, row, index);
  const start = offset & (abi.SUPERBLOCK_UNITS - 1);
  const map = slabPageMap(base, row, index);
  markUnits(map, start, units, true);
  if (start >> 6 < <u32>slab.lowestWord) slab.lowestWord = <u16>(start >> 6);
  if (slab.freeCount == 0) {
    bitmapAdd(slabPartials(base, row, MIXED_SET), base + row.tree, index);
  }
  slab.freeCount += <u16>units;
  const low = freeStart(map, start);
  const high = nextUnit(map, start + units, abi.SUPERBLOCK_UNITS, false);
  slab.room = <u16>max(<u32>slab.room, high - low);
  if (slab.freeCount == slab.pageCount) slabClose(base, row, index, MIXED_SET);
}

/**
 * Claims the place of a block of `sizeClass` at `offset` units, any numbers, of which its superblock may
 * be free, a mixed slab, or a slab of one class that becomes mixed. False if it is not free.
 */
export function mixedSlabRestore(base: usize, row: ArenaRow, sizeClass: u32, offset: u32): bool {
  const index = offset >> SUPERBLOCK_UNIT_SHIFT;
  if (index >= row.superblockCount) return false;
  const slab = slabRow(base, row, index);
  if (slab.sizeClass == abi.SIZE_CLASS_NONE) {
    const granule = index << abi.SUPERBLOCK_ORDER;
    if (!orderTreeClaimAt(arenaTree(base, row), granule, 1 << abi.SUPERBLOCK_ORDER)) return false;
    mixedSlabOpen(base, row, index);
  } else if (slab.sizeClass != abi.SIZE_CLASS_MIXED) mix(base, row, index, slab);
  const units = sizeClassUnits(sizeClass);
  const start = offset & (abi.SUPERBLOCK_UNITS - 1);
  const end = start + units;
  if (end > <u32>abi.SUPERBLOCK_UNITS) return false;
  const map = slabPageMap(base, row, index);
  if (nextUnit(map, start, end, false) < end) return false;
  claimUnits(base, row, index, start, units);
  return true;
}

/**
 * Makes every slab of one class that has a free page a mixed one.
 *
 * @returns Whether there was one. Cost: one look at each superblock, and at each page of these.
 */
export function mixedSlabMixAll(base: usize, row: ArenaRow): bool {
  let isAny = false;
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    const slab = slabRow(base, row, index);
    if (slab.sizeClass >= <u32>abi.SLAB_CLASS_COUNT || slab.freeCount == 0) continue;
    mix(base, row, index, slab);
    isAny = true;
  }
  return isAny;
}

/**
 * The lowest multiple of `step` from which on `units` are free, or NO_UNIT. Cost: one look at each word
 * from the slab's lowest one on.
 */
function findFree(map: usize, slab: SuperblockRow, units: u32, step: u32): u32 {
  // Bits at multiples of the step.
  const starts = u64.MAX_VALUE / (((<u64>1) << step) - 1);
  let at = <u32>slab.lowestWord;
  while (at < MAP_WORDS && load<u64>(map + (at << 3)) == 0) at += 1;
  slab.lowestWord = <u16>min(at, MAP_WORDS - 1);
  // Free units that touch the next word from below.
  let below: u32 = 0;
  for (; at < MAP_WORDS; at++) {
    const word = load<u64>(map + (at << 3));
    if (word == 0) {
      below = 0;
      continue;
    }
    const start = ((at << 6) - below + step - 1) & ~(step - 1);
    const above = <u32>ctz(~word);
    if ((at << 6) + above >= start + units) return start;
    if (units <= 64) {
      // Bit i stays if bits i to i + units - 1 are set.
      let runs = word;
      let length: u32 = 1;
      for (; length << 1 <= units; length <<= 1) runs &= runs >> length;
      runs &= runs >> (units - length);
      runs &= starts;
      if (runs != 0) return (at << 6) + <u32>ctz(runs);
    }
    below = ~word == 0 ? below + 64 : <u32>clz(~word);
  }
  return NO_UNIT;
}

/** Claims `units` from unit `start` of mixed slab `index` on, which are free. */
function claimUnits(base: usize, row: ArenaRow, index: u32, start: u32, units: u32): void {
  const slab = slabRow(base, row, index);
  markUnits(slabPageMap(base, row, index), start, units, false);
  slab.freeCount -= <u16>units;
  if (slab.freeCount == 0) {
    bitmapRemove(slabPartials(base, row, MIXED_SET), base + row.tree, index);
  }
}

/** Makes slab `index` of one class a mixed one. */
function mix(base: usize, row: ArenaRow, index: u32, slab: SuperblockRow): void {
  const origin = base + row.tree;
  if (slab.freeCount != 0) bitmapRemove(slabPartials(base, row, slab.sizeClass), origin, index);
  const map = slabPageMap(base, row, index);
  const pageUnits = sizeClassUnits(slab.sizeClass);
  const tail = <u32>slab.pageCount * pageUnits;
  markUnits(map, tail, abi.SUPERBLOCK_UNITS - tail, true);
  // From the last page down: what is written lies at or behind the bits still to be read.
  for (let page = <u32>slab.pageCount; page > 0; page--) {
    const last = page - 1;
    const isFree = ((load<u64>(map + ((last >> 6) << 3)) >> (last & 63)) & 1) != 0;
    markUnits(map, last * pageUnits, pageUnits, isFree);
  }
  slab.freeCount = <u16>(<u32>slab.freeCount * pageUnits + (abi.SUPERBLOCK_UNITS - tail));
  slab.sizeClass = <u16>abi.SIZE_CLASS_MIXED;
  slab.pageCount = <u16>abi.SUPERBLOCK_UNITS;
  slab.pageUnits = 1;
  slab.lowestWord = 0;
  slab.room = slab.freeCount;
  if (slab.freeCount != 0) bitmapAdd(slabPartials(base, row, MIXED_SET), origin, index);
}

/** First unit from `from` on that is free, or is not, or something from `end` on if none is below. */
function nextUnit(map: usize, from: u32, end: u32, isFree: bool): u32 {
  const flip: u64 = isFree ? 0 : u64.MAX_VALUE;
  end = min(end, <u32>abi.SUPERBLOCK_UNITS);
  while (from < end) {
    const word = (load<u64>(map + ((from >> 6) << 3)) ^ flip) >> (from & 63);
    if (word != 0) return from + <u32>ctz(word);
    from = (from | 63) + 1;
  }
  return from;
}

/** First unit of the free ones that end before unit `end`, or `end` if the one before is not free. */
function freeStart(map: usize, end: u32): u32 {
  while (end > 0) {
    const last = end - 1;
    const word = ~load<u64>(map + ((last >> 6) << 3)) << (63 - (last & 63));
    const touching = min(<u32>clz(word), (last & 63) + 1);
    end -= touching;
    if (touching == 0 || (end & 63) != 0) break;
  }
  return end;
}

/** Marks `units` from `start` on free or not. */
function markUnits(map: usize, start: u32, units: u32, isFree: bool): void {
  const end = start + units;
  while (start < end) {
    const length = min(end - start, 64 - (start & 63));
    const mask = (u64.MAX_VALUE >> (64 - length)) << (start & 63);
    const address = map + ((start >> 6) << 3);
    const word = load<u64>(address);
    store<u64>(address, isFree ? word | mask : word & ~mask);
    start += length;
  }
}
