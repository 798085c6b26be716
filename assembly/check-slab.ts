// Check of slabs: what check.ts asks about superblock rows and page maps. Layer 8. Like check.ts it bounds
// every index before it is used.
import * as abi from "./abi";
import { ArenaRow } from "./arena-row";
import { mixedSlabIs, mixedSlabStep } from "./mixed-slab";
import { sizeClassUnits } from "./size-class";
import { SUPERBLOCK_UNIT_SHIFT, slabPageCount, slabPageMap, slabRow } from "./slab";

/** Whether `offset` is where a slab has a block of `sizeClass`, of which nothing is free. */
export function checkSlabHasBlock(base: usize, row: ArenaRow, sizeClass: u32, offset: u32): bool {
  const index = offset >> SUPERBLOCK_UNIT_SHIFT;
  if (index >= row.superblockCount) return false;
  const slab = slabRow(base, row, index);
  const isMixed = slab.sizeClass == abi.SIZE_CLASS_MIXED;
  if (!isMixed && slab.sizeClass != sizeClass) return false;
  const within = offset & (abi.SUPERBLOCK_UNITS - 1);
  const page = within / slab.pageUnits;
  const pageEnd = page + checkSlabPagesAt(base, row, sizeClass, offset);
  if (page * slab.pageUnits != within || pageEnd > <u32>slab.pageCount) return false;
  if (isMixed && (within & (mixedSlabStep(sizeClassUnits(sizeClass)) - 1)) != 0) return false;
  const map = slabPageMap(base, row, index);
  for (let at = page; at < pageEnd; at++) {
    if (((load<u64>(map + ((at >> 6) << 3)) >> (at & 63)) & 1) != 0) return false;
  }
  return true;
}

/** Pages of the slab at `offset` that a block of `sizeClass` takes: in a mixed slab, its units. */
export function checkSlabPagesAt(base: usize, row: ArenaRow, sizeClass: u32, offset: u32): u32 {
  const isMixed = mixedSlabIs(base, row, offset >> SUPERBLOCK_UNIT_SHIFT);
  return isMixed ? sizeClassUnits(sizeClass) : 1;
}

/** Pages of all slabs that are not free. */
export function checkSlabClaimedCount(base: usize, row: ArenaRow): u32 {
  let count: u32 = 0;
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    const slab = slabRow(base, row, index);
    if (slab.sizeClass == abi.SIZE_CLASS_NONE) continue;
    count += <u32>slab.pageCount - slab.freeCount;
  }
  return count;
}

/** INV-SLAB-1 of slab `index`. */
export function checkSlabIsExact(base: usize, row: ArenaRow, index: u32): bool {
  const slab = slabRow(base, row, index);
  const isMixed = slab.sizeClass == abi.SIZE_CLASS_MIXED;
  if (!isMixed && slab.sizeClass >= <u32>abi.SLAB_CLASS_COUNT) return false;
  if (slab.pageUnits != (isMixed ? 1 : sizeClassUnits(slab.sizeClass))) return false;
  if (slab.pageCount != slabPageCount(slab.pageUnits)) return false;
  const map = slabPageMap(base, row, index);
  let freeCount: u32 = 0;
  for (let at: u32 = 0; at < <u32>abi.PAGE_MAP_BYTES >> 3; at++) {
    const word = load<u64>(map + (at << 3));
    const first = at << 6;
    const pageCount = <u32>slab.pageCount > first ? <u32>slab.pageCount - first : 0;
    if (pageCount < 64 && word >> pageCount != 0) return false;
    if (at < <u32>slab.lowestWord && word != 0) return false;
    freeCount += <u32>popcnt(word);
  }
  return freeCount == slab.freeCount && freeCount < <u32>slab.pageCount;
}

/** Most free pages in a row of slab `index`. */
export function checkSlabLongest(base: usize, row: ArenaRow, index: u32): u32 {
  const map = slabPageMap(base, row, index);
  let longest: u32 = 0;
  let length: u32 = 0;
  for (let page: u32 = 0; page < <u32>abi.SUPERBLOCK_UNITS; page++) {
    const isFree = ((load<u64>(map + ((page >> 6) << 3)) >> (page & 63)) & 1) != 0;
    length = isFree ? length + 1 : 0;
    longest = max(longest, length);
  }
  return longest;
}
