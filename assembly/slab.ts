// Slab: a superblock of a slab arena's tree, cut into equal pages of one size class. Layer 4. It
// knows pages by their offsets; who owns one is not its business. A slab starts with the first page
// that is needed and goes back to the tree with the last one.
//
// Small blocks never lie in the tree itself: one of them in the tail of a large run would outlive
// the run and keep its block from coalescing.
//
//   superblock row   byte 0           2           4           6            8           12     14    16
//                         ┌───────────┬───────────┬───────────┬────────────┬───────────┬──────┬─────┐
//                         │ sizeClass │ pageCount │ freeCount │ lowestWord │ pageUnits │ room │ (0) │
//                         └───────────┴───────────┴───────────┴────────────┴───────────┴──────┴─────┘
//   page map         bit i = page i is free; bits from pageCount on are 0
//   partial set      of a class: superblock s is a slab of the class and has a free page
//
// Of a superblock that is no slab only `sizeClass` is valid, and is SIZE_CLASS_NONE; its page map
// may hold anything. `room` belongs to mixed-slab.ts, whose slabs have rows, maps and a set here too.
//
// INV-SLAB-1  A slab's row is what its class implies; freeCount counts its page map, is below
//             pageCount, and no word below lowestWord has a free page; slabCount counts the slabs.
// INV-SLAB-2  The partial set of a class holds exactly its slabs with a free page.
// INV-SLAB-3  The bound blocks of a slab (with the target of a pending move) are pages of it, not
//             free, no two the same, and pageCount - freeCount of them.
import * as abi from "./abi";
import { ArenaRow, GRANULE_UNIT_SHIFT, SLAB_SET_COUNT, arenaTree } from "./arena-row";
import { Bitmap, bitmapAdd, bitmapBytes, bitmapFormat, bitmapLowest, bitmapRemove } from "./bitmap";
import {
  NO_GRANULE,
  orderTreeClaimAt,
  orderTreeClaimSuperblock,
  orderTreeRelease,
} from "./order-tree";
import { sizeClassUnits } from "./size-class";

/** Refusal value in place of an offset in units. */
export const NO_UNIT: u32 = u32.MAX_VALUE;

@unmanaged
export class SuperblockRow {
  sizeClass: u16;
  pageCount: u16;
  freeCount: u16;
  /** No word of the page map below this one has a free page. */
  lowestWord: u16;
  pageUnits: u32;
  /** Of a mixed slab. */
  room: u16;
}

if (offsetof<SuperblockRow>("sizeClass") != abi.SUPERBLOCK_OFF_SIZE_CLASS) ERROR("sizeClass");
if (offsetof<SuperblockRow>("pageCount") != abi.SUPERBLOCK_OFF_PAGE_COUNT) ERROR("pageCount");
if (offsetof<SuperblockRow>("freeCount") != abi.SUPERBLOCK_OFF_FREE_COUNT) ERROR("freeCount");
if (offsetof<SuperblockRow>("lowestWord") != abi.SUPERBLOCK_OFF_LOWEST_WORD) ERROR("lowestWord");
if (offsetof<SuperblockRow>("pageUnits") != abi.SUPERBLOCK_OFF_PAGE_UNITS) ERROR("pageUnits");
if (offsetof<SuperblockRow>("room") != abi.SUPERBLOCK_OFF_ROOM) ERROR("room");
if (offsetof<SuperblockRow>() > <usize>abi.SUPERBLOCK_BYTES) ERROR("SuperblockRow size");
if (abi.PAGE_MAP_BYTES << 3 != abi.SUPERBLOCK_UNITS) ERROR("a page map has a bit per unit");

/** log2 of the units of a superblock. */
export const SUPERBLOCK_UNIT_SHIFT: u32 = abi.SUPERBLOCK_ORDER + GRANULE_UNIT_SHIFT;

if (1 << SUPERBLOCK_UNIT_SHIFT != abi.SUPERBLOCK_UNITS) ERROR("a superblock is SUPERBLOCK_UNITS");

/** Row of superblock `index` of a slab arena. */
export function slabRow(base: usize, row: ArenaRow, index: u32): SuperblockRow {
  return changetype<SuperblockRow>(base + row.superblocks + index * abi.SUPERBLOCK_BYTES);
}

/** Address of the page map of superblock `index`. */
export function slabPageMap(base: usize, row: ArenaRow, index: u32): usize {
  return base + row.pageMaps + index * abi.PAGE_MAP_BYTES;
}

/** The partial set of `sizeClass`, or of the mixed slabs. Its words count from the arena's metadata on. */
export function slabPartials(base: usize, row: ArenaRow, sizeClass: u32): Bitmap {
  return changetype<Bitmap>(base + row.partials + sizeClass * abi.ORDER_BYTES);
}

/** Offset of the words of the partial set of `sizeClass` from the arena's metadata. */
export function slabPartialWords(row: ArenaRow, sizeClass: u32): u32 {
  const words = row.partials - row.tree + SLAB_SET_COUNT * abi.ORDER_BYTES;
  return words + sizeClass * bitmapBytes(row.superblockCount);
}

/** Pages of `pageUnits` in a slab. */
export function slabPageCount(pageUnits: u32): u32 {
  return abi.SUPERBLOCK_UNITS / pageUnits;
}

/** Formats the tables of a slab arena that has no slab. */
export function slabFormat(base: usize, row: ArenaRow): void {
  const origin = base + row.tree;
  for (let sizeClass: u32 = 0; sizeClass < SLAB_SET_COUNT; sizeClass++) {
    const words = slabPartialWords(row, sizeClass);
    bitmapFormat(slabPartials(base, row, sizeClass), origin, words, row.superblockCount);
  }
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    slabRow(base, row, index).sizeClass = <u16>abi.SIZE_CLASS_NONE;
  }
  row.slabCount = 0;
}

/** Claims a page of `sizeClass`: the lowest one of the lowest slab that has any, or NO_UNIT. */
export function slabClaim(base: usize, row: ArenaRow, sizeClass: u32): u32 {
  const partials = slabPartials(base, row, sizeClass);
  if (partials.setCount == 0) return NO_UNIT;
  return claimPage(base, row, partials, bitmapLowest(partials, base + row.tree));
}

/** Claims the first page of a new slab, or NO_UNIT. Cost: one claim in the tree. */
export function slabOpen(base: usize, row: ArenaRow, sizeClass: u32): u32 {
  return claimSlab(base, row, sizeClass, orderTreeClaimSuperblock(arenaTree(base, row)));
}

/** Whether a slab of `sizeClass` has a free page. */
export function slabHasPage(base: usize, row: ArenaRow, sizeClass: u32): bool {
  return slabPartials(base, row, sizeClass).setCount != 0;
}

/**
 * Claims a page of `sizeClass` in a slab below superblock `limit` that has one, or NO_UNIT.
 */
export function slabClaimBelow(base: usize, row: ArenaRow, sizeClass: u32, limit: u32): u32 {
  const partials = slabPartials(base, row, sizeClass);
  if (partials.setCount == 0) return NO_UNIT;
  const index = bitmapLowest(partials, base + row.tree);
  return index < limit ? claimPage(base, row, partials, index) : NO_UNIT;
}

/** Makes the superblock at `granule`, which is claimed, a slab and claims its first page. */
export function slabOpenAt(base: usize, row: ArenaRow, sizeClass: u32, granule: u32): u32 {
  return claimSlab(base, row, sizeClass, granule);
}

/** Claims a page of slab `index` of `sizeClass`, which has one. */
export function slabClaimIn(base: usize, row: ArenaRow, sizeClass: u32, index: u32): u32 {
  return claimPage(base, row, slabPartials(base, row, sizeClass), index);
}

/** Gives back the page at `offset` units, and with the last page its slab. */
export function slabRelease(base: usize, row: ArenaRow, offset: u32): void {
  const index = offset >> SUPERBLOCK_UNIT_SHIFT;
  const slab = slabRow(base, row, index);
  const page = (offset & (abi.SUPERBLOCK_UNITS - 1)) / slab.pageUnits;
  const address = slabPageMap(base, row, index) + ((page >> 6) << 3);
  const word = load<u64>(address);
  assert(((word >> (page & 63)) & 1) == 0);
  store<u64>(address, word | ((<u64>1) << (page & 63)));
  if (page >> 6 < slab.lowestWord) slab.lowestWord = <u16>(page >> 6);

  const partials = slabPartials(base, row, slab.sizeClass);
  if (slab.freeCount == 0) bitmapAdd(partials, base + row.tree, index);
  slab.freeCount += 1;
  if (slab.freeCount == slab.pageCount) slabClose(base, row, index, slab.sizeClass);
}

/** Gives back slab `index`, which has no page left and is in the partial set of `sizeClass`. */
export function slabClose(base: usize, row: ArenaRow, index: u32, sizeClass: u32): void {
  bitmapRemove(slabPartials(base, row, sizeClass), base + row.tree, index);
  slabRow(base, row, index).sizeClass = <u16>abi.SIZE_CLASS_NONE;
  row.slabCount -= 1;
  orderTreeRelease(arenaTree(base, row), abi.SUPERBLOCK_ORDER, index << abi.SUPERBLOCK_ORDER);
}

/** Claims the lowest free page of slab `index`, a member of `partials`. */
function claimPage(base: usize, row: ArenaRow, partials: Bitmap, index: u32): u32 {
  const slab = slabRow(base, row, index);
  assert(slab.freeCount != 0);
  const map = slabPageMap(base, row, index);
  let at = <u32>slab.lowestWord;
  let word = load<u64>(map + (at << 3));
  // Ends inside the map, because a page is free.
  while (word == 0) {
    at += 1;
    word = load<u64>(map + (at << 3));
  }
  store<u64>(map + (at << 3), word & (word - 1));
  slab.lowestWord = <u16>at;
  slab.freeCount -= 1;
  if (slab.freeCount == 0) bitmapRemove(partials, base + row.tree, index);
  const page = (at << 6) + <u32>ctz(word);
  return (index << SUPERBLOCK_UNIT_SHIFT) + page * slab.pageUnits;
}

/** Makes the superblock at `granule` a slab and claims its first page; passes NO_GRANULE on. */
function claimSlab(base: usize, row: ArenaRow, sizeClass: u32, granule: u32): u32 {
  if (granule == NO_GRANULE) return NO_UNIT;
  const index = granule >> abi.SUPERBLOCK_ORDER;
  openSlab(base, row, sizeClass, index);
  return claimPage(base, row, slabPartials(base, row, sizeClass), index);
}

/**
 * Claims the page of `sizeClass` at `offset` units, whose slab is opened if it is none yet. False if
 * there can be no such page, or if it is not free; any offset is allowed.
 */
export function slabRestore(base: usize, row: ArenaRow, sizeClass: u32, offset: u32): bool {
  const index = offset >> SUPERBLOCK_UNIT_SHIFT;
  if (index >= row.superblockCount) return false;
  const pageUnits = sizeClassUnits(sizeClass);
  const within = offset & (abi.SUPERBLOCK_UNITS - 1);
  const page = within / pageUnits;
  if (page * pageUnits != within || page >= slabPageCount(pageUnits)) return false;
  const slab = slabRow(base, row, index);
  if (slab.sizeClass == abi.SIZE_CLASS_NONE) {
    const granule = index << abi.SUPERBLOCK_ORDER;
    if (!orderTreeClaimAt(arenaTree(base, row), granule, 1 << abi.SUPERBLOCK_ORDER)) return false;
    openSlab(base, row, sizeClass, index);
  }
  if (slab.sizeClass != sizeClass) return false;
  const address = slabPageMap(base, row, index) + ((page >> 6) << 3);
  const bit = (<u64>1) << (page & 63);
  const word = load<u64>(address);
  if ((word & bit) == 0) return false;
  store<u64>(address, word ^ bit);
  slab.freeCount -= 1;
  const partials = slabPartials(base, row, sizeClass);
  if (slab.freeCount == 0) bitmapRemove(partials, base + row.tree, index);
  return true;
}

/** Makes superblock `index`, which is claimed, a slab whose pages are all free. */
function openSlab(base: usize, row: ArenaRow, sizeClass: u32, index: u32): void {
  const slab = slabRow(base, row, index);
  const pageUnits = sizeClassUnits(sizeClass);
  const pageCount = slabPageCount(pageUnits);
  slab.sizeClass = <u16>sizeClass;
  slab.pageCount = <u16>pageCount;
  slab.freeCount = <u16>pageCount;
  slab.lowestWord = 0;
  slab.pageUnits = pageUnits;
  row.slabCount += 1;

  const map = slabPageMap(base, row, index);
  memory.fill(map, 0, abi.PAGE_MAP_BYTES);
  memory.fill(map, 0xff, (pageCount >> 6) << 3);
  const rest = pageCount & 63;
  if (rest != 0) store<u64>(map + ((pageCount >> 6) << 3), ((<u64>1) << rest) - 1);

  bitmapAdd(slabPartials(base, row, sizeClass), base + row.tree, index);
}
