// Arena row: one per arena in the control plane's table, and how its metadata is laid out in the
// region. Layer 3. There are two kinds of arena.
//
//   plain  blocks of the order tree, from one granule on; slot offsets count in granules
//   slab   pages of slabs up to 32 KiB, runs of 4 KiB granules above; slot offsets count in units
//
//   byte 0       4      8              12         16     20              24      32        40
//        ┌───────┬──────┬──────────────┬──────────┬──────┬───────────────┬───────┬─────────┐
//        │ state │ pool │ granuleShift │ capacity │ tree │ metadataBytes │ usage │ claimed │
//        └───────┴──────┴──────────────┴──────────┴──────┴───────────────┴───────┴─────────┘
//   byte 40            44            48          52       56                60          64
//        ┌─────────────┬─────────────┬───────────┬────────┬─────────────────┬───────────┐
//        │ pinnedCount │ cacheBudget │ wholeSlot │ caches │ cacheClassCount │ unitShift │
//        └─────────────┴─────────────┴───────────┴────────┴─────────────────┴───────────┘
//   byte 64         68            72         76                80          84        88         128
//        ┌──────────┬─────────────┬──────────┬─────────────────┬───────────┬─────────┬──────────┐
//        │ partials │ superblocks │ pageMaps │ superblockCount │ slabCount │ isAmple │ reserved │
//        └──────────┴─────────────┴──────────┴─────────────────┴───────────┴─────────┴──────────┘
//
//   usage   bit 0                40          64     one word, so that the short way of allocation
//           ┌────────────────────┬───────────┐      and free counts both at once
//           │ requested          │ liveCount │
//           └────────────────────┴───────────┘
//
// Metadata: a plain arena has the tree alone.
//
//        ┌────────────┬──────────────┬────────────┬─────────────────┬───────────┐
//        │ order tree │ partial sets │ cache rows │ superblock rows │ page maps │
//        └────────────┴──────────────┴────────────┴─────────────────┴───────────┘
//
// Of a closed arena `state` and `cacheClassCount` are valid, and the latter is 0.
import * as abi from "./abi";
import { bitmapBytes } from "./bitmap";
import { bitsAlignUp } from "./bits";
import { controlAt } from "./control";
import { OrderTree, orderTreeBytes } from "./order-tree";
import { sizeClassOf, sizeClassUnits } from "./size-class";

@unmanaged
export class ArenaRow {
  state: u32;
  pool: u32;
  /** log2 of the granule's bytes. */
  granuleShift: u32;
  /** Granules. */
  capacity: u32;
  /** Offset of the order tree from `base`. */
  tree: u32;
  metadataBytes: u32;
  /** Live blocks, and their requested bytes. */
  usage: u64;
  /** Granted bytes of live and cached blocks. */
  claimed: u64;
  pinnedCount: u32;
  /** Bytes of the budgets of all class caches. */
  cacheBudget: u32;
  /** Slot that owns the whole arena, 0 if none. */
  wholeSlot: u32;
  caches: u32;
  cacheClassCount: u32;
  unitShift: u32;
  partials: u32;
  /** 0 in a plain arena. */
  superblocks: u32;
  pageMaps: u32;
  superblockCount: u32;
  slabCount: u32;
  /** Belongs to class-cache.ts. */
  isAmple: u32;
}

if (offsetof<ArenaRow>("state") != abi.ARENA_OFF_STATE) ERROR("ArenaRow.state");
if (offsetof<ArenaRow>("pool") != abi.ARENA_OFF_POOL) ERROR("ArenaRow.pool");
if (offsetof<ArenaRow>("granuleShift") != abi.ARENA_OFF_GRANULE_SHIFT) ERROR("ArenaRow shift");
if (offsetof<ArenaRow>("capacity") != abi.ARENA_OFF_CAPACITY) ERROR("ArenaRow.capacity");
if (offsetof<ArenaRow>("tree") != abi.ARENA_OFF_TREE) ERROR("ArenaRow.tree");
if (offsetof<ArenaRow>("metadataBytes") != abi.ARENA_OFF_METADATA_BYTES) ERROR("metadataBytes");
if (offsetof<ArenaRow>("usage") != abi.ARENA_OFF_USAGE) ERROR("ArenaRow.usage");
if (offsetof<ArenaRow>("claimed") != abi.ARENA_OFF_CLAIMED) ERROR("ArenaRow.claimed");
if (offsetof<ArenaRow>("pinnedCount") != abi.ARENA_OFF_PINNED_COUNT) ERROR("ArenaRow.pinnedCount");
if (offsetof<ArenaRow>("cacheBudget") != abi.ARENA_OFF_CACHE_BUDGET) ERROR("ArenaRow.cacheBudget");
if (offsetof<ArenaRow>("wholeSlot") != abi.ARENA_OFF_WHOLE_SLOT) ERROR("ArenaRow.wholeSlot");
if (offsetof<ArenaRow>("caches") != abi.ARENA_OFF_CACHES) ERROR("ArenaRow.caches");
if (offsetof<ArenaRow>("cacheClassCount") != abi.ARENA_OFF_CACHE_CLASS_COUNT)
  ERROR("ArenaRow.cacheClassCount");
if (offsetof<ArenaRow>("unitShift") != abi.ARENA_OFF_UNIT_SHIFT) ERROR("ArenaRow.unitShift");
if (offsetof<ArenaRow>("partials") != abi.ARENA_OFF_PARTIALS) ERROR("ArenaRow.partials");
if (offsetof<ArenaRow>("superblocks") != abi.ARENA_OFF_SUPERBLOCKS) ERROR("ArenaRow.superblocks");
if (offsetof<ArenaRow>("pageMaps") != abi.ARENA_OFF_PAGE_MAPS) ERROR("ArenaRow.pageMaps");
if (offsetof<ArenaRow>("superblockCount") != abi.ARENA_OFF_SUPERBLOCK_COUNT)
  ERROR("ArenaRow.superblockCount");
if (offsetof<ArenaRow>("slabCount") != abi.ARENA_OFF_SLAB_COUNT) ERROR("ArenaRow.slabCount");
if (offsetof<ArenaRow>("isAmple") != abi.ARENA_OFF_IS_AMPLE) ERROR("ArenaRow.isAmple");
if (offsetof<ArenaRow>() > <usize>abi.ARENA_BYTES) ERROR("ArenaRow size");

/** log2 of the units of a slab arena's granule. */
export const GRANULE_UNIT_SHIFT: u32 = abi.SLAB_GRANULE_SHIFT - abi.UNIT_SHIFT;

/** Partial sets: one per class that lives in slabs, and one of the mixed slabs. */
export const SLAB_SET_COUNT: u32 = abi.SLAB_CLASS_COUNT + 1;

/** Row of `arena`, which is below arenaCapacity; not checked. */
export function arenaRow(base: usize, arena: u32): ArenaRow {
  return changetype<ArenaRow>(base + abi.ARENAS_OFFSET + arena * abi.ARENA_BYTES);
}

/** Order tree of an open arena. */
export function arenaTree(base: usize, row: ArenaRow): OrderTree {
  return changetype<OrderTree>(base + row.tree);
}

/** Whether `arena`, any number, is an open arena. Row 0 is never open. */
export function arenaIsOpen(base: usize, arena: u32): bool {
  if (arena >= controlAt(base).arenaCapacity) return false;
  return arenaRow(base, arena).state == abi.ARENA_STATE_OPEN;
}

/** Whether the open arena of `row` is divided into slabs and runs. */
export function arenaHasSlabs(row: ArenaRow): bool {
  return row.superblocks != 0;
}

/** Whether the slabs of a slab arena serve all classes from the start. */
export function arenaSharesSlabs(row: ArenaRow): bool {
  return row.superblockCount < <u32>abi.CLASS_SLABS_FROM;
}

/** What one more live block of `requested` bytes adds to the usage of its arena. */
export function arenaUsageOf(requested: u32): u64 {
  return ((<u64>1) << abi.USAGE_COUNT_SHIFT) + requested;
}

/** Number of live blocks. */
export function arenaLiveCount(row: ArenaRow): u32 {
  return <u32>(row.usage >> abi.USAGE_COUNT_SHIFT);
}

/** Requested bytes of the live blocks. */
export function arenaRequested(row: ArenaRow): u64 {
  return row.usage & (((<u64>1) << abi.USAGE_COUNT_SHIFT) - 1);
}

/** Bytes that the arena manages. */
export function arenaCapacityBytes(row: ArenaRow): u64 {
  return (<u64>row.capacity) << row.granuleShift;
}

/** Whether an arena of `capacity` granules of this length becomes a slab arena. */
export function arenaTakesSlabs(capacity: u32, granuleShift: u32): bool {
  return granuleShift == <u32>abi.UNIT_SHIFT && capacity >= <u32>abi.SLAB_ARENA_UNITS_MIN;
}

/** Bytes of the longest block that is cached in an arena of `capacity` granules. */
function cachedBytesMax(capacity: u32): u32 {
  return <u32>(((<u64>capacity) << abi.SLAB_GRANULE_SHIFT) >> abi.CACHE_SHARE_SHIFT);
}

/** Classes that have a cache in a slab arena of `capacity` granules. */
export function arenaCacheClassCount(capacity: u32): u32 {
  const units = cachedBytesMax(capacity) >> abi.UNIT_SHIFT;
  const sizeClass = sizeClassOf(units - 1);
  const classCount = sizeClassUnits(sizeClass) == units ? sizeClass + 1 : sizeClass;
  // The numbers above are taken: they say that a block is a run, or the whole arena.
  return min(classCount, <u32>abi.SIZE_CLASS_COUNT);
}

/** Bytes of the metadata of an arena of `capacity` granules, 1 to ARENA_GRANULES_MAX. */
export function arenaLayoutBytes(capacity: u32, hasSlabs: bool): u32 {
  if (!hasSlabs) return treeEnd(capacity, false);
  return pageMapsStart(capacity) + (capacity >> abi.SUPERBLOCK_ORDER) * abi.PAGE_MAP_BYTES;
}

/** Writes every field that follows from `tree`, `capacity`, `granuleShift` and the kind of arena. */
export function arenaLayOut(row: ArenaRow, hasSlabs: bool): void {
  const capacity = row.capacity;
  row.metadataBytes = arenaLayoutBytes(capacity, hasSlabs);
  row.unitShift = hasSlabs ? <u32>abi.UNIT_SHIFT : row.granuleShift;
  if (!hasSlabs) return;
  row.partials = row.tree + treeEnd(capacity, true);
  row.caches = row.tree + cachesStart(capacity);
  row.superblocks = row.tree + superblocksStart(capacity);
  row.pageMaps = row.tree + pageMapsStart(capacity);
  row.superblockCount = capacity >> abi.SUPERBLOCK_ORDER;
  row.cacheClassCount = arenaCacheClassCount(capacity);
}

/** Whether the fields of `row`, any words, are those that arenaLayOut writes. */
export function arenaIsLaidOut(row: ArenaRow): bool {
  const capacity = row.capacity;
  const hasSlabs = arenaHasSlabs(row);
  if (capacity == 0 || capacity > <u32>abi.ARENA_GRANULES_MAX) return false;
  const isSmall = capacity < <u32>abi.SLAB_ARENA_UNITS_MIN >> GRANULE_UNIT_SHIFT;
  if (hasSlabs && (isSmall || row.granuleShift != abi.SLAB_GRANULE_SHIFT)) return false;
  if (row.metadataBytes != arenaLayoutBytes(capacity, hasSlabs)) return false;
  if (!hasSlabs) {
    const isBare = (row.partials | row.caches | row.pageMaps | row.superblockCount) == 0;
    return isBare && row.cacheClassCount == 0 && row.unitShift == row.granuleShift;
  }
  return (
    row.unitShift == abi.UNIT_SHIFT &&
    row.partials == row.tree + treeEnd(capacity, true) &&
    row.caches == row.tree + cachesStart(capacity) &&
    row.superblocks == row.tree + superblocksStart(capacity) &&
    row.pageMaps == row.tree + pageMapsStart(capacity) &&
    row.superblockCount == capacity >> abi.SUPERBLOCK_ORDER &&
    row.cacheClassCount == arenaCacheClassCount(capacity)
  );
}

function treeEnd(capacity: u32, hasSlabs: bool): u32 {
  return <u32>bitsAlignUp(orderTreeBytes(capacity, hasSlabs));
}

function cachesStart(capacity: u32): u32 {
  const setBytes = abi.ORDER_BYTES + bitmapBytes(capacity >> abi.SUPERBLOCK_ORDER);
  return treeEnd(capacity, true) + <u32>bitsAlignUp(SLAB_SET_COUNT * setBytes);
}

function superblocksStart(capacity: u32): u32 {
  return cachesStart(capacity) + <u32>bitsAlignUp(arenaCacheClassCount(capacity) * abi.CACHE_BYTES);
}

function pageMapsStart(capacity: u32): u32 {
  const rowsBytes = (capacity >> abi.SUPERBLOCK_ORDER) * abi.SUPERBLOCK_BYTES;
  return superblocksStart(capacity) + <u32>bitsAlignUp(rowsBytes);
}
