// Check: compares every table with the invariants written beside it. Layer 9. It names the first
// one broken and repairs nothing. It trusts the header's layout (format.ts verifies it before) and
// no other word: each index is bounded before it is used, and each loop by a table length, so a
// damaged plane yields an answer.
//
// That bound blocks do not overlap is seen by sorting them, in the array that a compaction plan
// uses. While a plan is active, INV-TREE-4 is therefore checked by sums alone.
//
// Cost: open arenas × used slots. For tests, and for a host that suspects damage.
import * as abi from "./abi";
import {
  ArenaRow,
  GRANULE_UNIT_SHIFT,
  SLAB_SET_COUNT,
  arenaHasSlabs,
  arenaIsLaidOut,
  arenaIsOpen,
  arenaRequested,
  arenaRow,
  arenaTree,
  arenaUsageOf,
} from "./arena-row";
import { bitmapBytes, bitmapHas, bitmapIsExact, bitmapWordCount } from "./bitmap";
import { CONTROL_ALIGNMENT, bitsFloorLog2 } from "./bits";
import { blockBytes, blockGranules, blockIsPage, blockRunStep } from "./block";
import {
  checkSlabClaimedCount,
  checkSlabHasBlock,
  checkSlabIsExact,
  checkSlabLongest,
  checkSlabPagesAt,
} from "./check-slab";
import { classCacheAt, classCacheCredit } from "./class-cache";
import { controlAt, controlPlanOverlap } from "./control";
import { laneCacheDrift, laneCacheHasOthers, laneCacheIsElsewhere } from "./lane-cache";
import { MIXED_SET, mixedSlabIs } from "./mixed-slab";
import {
  OrderTree,
  orderTreeFreeAt,
  orderTreeIsMapExact,
  orderTreeRow,
  orderTreeRowsEnd,
} from "./order-tree";
import { FreeExtent, regionExtentBytes } from "./region";
import { sizeClassUnits } from "./size-class";
import { SUPERBLOCK_UNIT_SHIFT, slabPartialWords, slabPartials, slabRow } from "./slab";
import { HotRow, slotsCold, slotsHot, slotsIsBound, slotsIsLive, slotsLane } from "./slots";
import { sortedSlotsAt, sortedSlotsBuild } from "./sorted-slots";
import { statsPool, statsRequested } from "./stats";

/** What a check answers if its invariants hold; anything else is the code of a broken one. */
const HOLDS: u32 = 0;
/** The lower halves of the buddy pairs in a word of free blocks. */
const EVEN_BITS: u64 = 0x5555555555555555;

/** First INV_* code that does not hold at `base`, or 0. The header's layout is valid. */
export function checkAll(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  // The order matters: each check relies on the ones before it. A tree may be read only where the
  // region check has found it, and sums mean something only over blocks that exist.
  let broken = checkRegion(base);
  for (let arena: u32 = 1; arena < arenaCapacity && broken == HOLDS; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    const row = arenaRow(base, arena);
    broken = checkTree(base, row);
    if (broken == HOLDS && arenaHasSlabs(row)) broken = checkSlabs(base, row);
  }
  if (broken == HOLDS) broken = checkSlotStates(base);
  if (broken == HOLDS) broken = checkSlotFreeList(base);
  if (broken == HOLDS) broken = checkSlotBlocks(base);
  for (let arena: u32 = 1; arena < arenaCapacity && broken == HOLDS; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    broken = checkArena(base, arena);
    if (broken == HOLDS) broken = checkCaches(base, arena);
  }
  for (let pool: u32 = 0; pool < <u32>abi.POOL_COUNT && broken == HOLDS; pool++) {
    broken = checkPool(base, pool);
  }
  return broken;
}

/** INV-REGION-1: steps from extent to extent; each is the next free one or an open arena's tree. */
function checkRegion(base: usize): u32 {
  const control = controlAt(base);
  const end = control.region + control.regionBytes;
  let offset = control.region;
  let free = control.regionFreeHead;
  let isAfterFree = false;
  let treeCount: u32 = 0;
  // At least CONTROL_ALIGNMENT bytes per step.
  while (offset < end) {
    const isFree = offset == free;
    const bytes = isFree ? changetype<FreeExtent>(base + offset).bytes : treeBytesAt(base, offset);
    if (bytes == 0 || bytes % CONTROL_ALIGNMENT != 0 || bytes > end - offset) {
      return abi.INV_REGION_1;
    }
    if (isFree) {
      if (isAfterFree) return abi.INV_REGION_1;
      free = changetype<FreeExtent>(base + offset).nextOffset;
    } else {
      treeCount += 1;
    }
    isAfterFree = isFree;
    offset += bytes;
  }
  return free == 0 && treeCount == openCount(base) ? HOLDS : abi.INV_REGION_1;
}

/**
 * Bytes of the open arena's tree that starts at `offset`, or 0 if there is none or it is
 * implausible.
 */
function treeBytesAt(base: usize, offset: u32): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    const row = arenaRow(base, arena);
    if (row.state != abi.ARENA_STATE_OPEN || row.tree != offset) continue;
    return arenaIsLaidOut(row) ? regionExtentBytes(row.metadataBytes) : 0;
  }
  return 0;
}

/** Number of open arenas, and so of the trees that the region must hold. */
function openCount(base: usize): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  let count: u32 = 0;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (arenaIsOpen(base, arena)) count += 1;
  }
  return count;
}

/** INV-TREE-1 to INV-TREE-3, INV-TREE-5, and the part of INV-TREE-4 that the tree knows alone. */
function checkTree(base: usize, row: ArenaRow): u32 {
  const tree = arenaTree(base, row);
  const orderMax = bitsFloorLog2(row.capacity);
  if (tree.capacity != row.capacity || tree.orderMax != orderMax) return abi.INV_TREE_2;
  let offset = orderTreeRowsEnd(orderMax);
  let mask: u32 = 0;
  let free: u64 = 0;
  for (let order: u32 = 0; order <= orderMax; order++) {
    const blockCount = row.capacity >> order;
    const bitmap = orderTreeRow(tree, order);
    if (!bitmapIsExact(bitmap, changetype<usize>(tree), offset, blockCount)) return abi.INV_TREE_2;

    const words = changetype<usize>(tree) + offset;
    const wordCount = bitmapWordCount(blockCount);
    let freeCount: u32 = 0;
    for (let i: u32 = 0; i < wordCount; i++) {
      const word = load<u64>(words + (i << 3));
      if ((word & (word >> 1) & EVEN_BITS) != 0) return abi.INV_TREE_1;
      freeCount += <u32>popcnt(word);
    }
    if (freeCount != bitmap.setCount) return abi.INV_TREE_3;
    if (freeCount != 0) mask |= (<u32>1) << order;
    free += (<u64>freeCount) << order;
    offset += bitmapBytes(blockCount);
  }
  if (mask != tree.mask) return abi.INV_TREE_3;
  if (free != tree.free) return abi.INV_TREE_4;
  if (tree.shortMap != (arenaHasSlabs(row) ? offset : 0)) return abi.INV_TREE_2;
  return orderTreeIsMapExact(tree) ? HOLDS : abi.INV_TREE_5;
}

/** INV-SLOT-1: every row below slotFresh has a state, and the header counts each state rightly. */
function checkSlotStates(base: usize): u32 {
  const control = controlAt(base);
  const slotFresh = control.slotFresh;
  if (slotFresh == 0 || slotFresh > control.slotCapacity) return abi.INV_SLOT_1;
  let freeCount: u32 = 0;
  let boundCount: u32 = 0;
  let retiredCount: u32 = 0;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const state = <u32>slotsHot(base, slot).state;
    if (state == abi.SLOT_STATE_FREE) freeCount += 1;
    else if (slotsIsBound(slotsHot(base, slot))) boundCount += 1;
    else if (state == abi.SLOT_STATE_RETIRED) retiredCount += 1;
    else return abi.INV_SLOT_1;
  }
  const isCounted =
    freeCount == control.slotFreeCount &&
    boundCount == control.slotBoundCount &&
    retiredCount == control.slotRetiredCount;
  return isCounted ? HOLDS : abi.INV_SLOT_1;
}

/**
 * INV-SLOT-3: a list of free slots that ends after as many steps as there are free slots repeats
 * none and leaves none out.
 */
function checkSlotFreeList(base: usize): u32 {
  const control = controlAt(base);
  let slot = control.slotFreeHead;
  for (let rest = control.slotFreeCount; rest > 0; rest--) {
    if (slot == 0 || slot >= control.slotFresh) return abi.INV_SLOT_3;
    if (slotsHot(base, slot).state != abi.SLOT_STATE_FREE) return abi.INV_SLOT_3;
    slot = slotsHot(base, slot).requested;
  }
  return slot == 0 ? HOLDS : abi.INV_SLOT_3;
}

/** INV-SLOT-2, row by row; what it establishes, the checks of arenas rely on. */
function checkSlotBlocks(base: usize): u32 {
  const slotFresh = controlAt(base).slotFresh;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (!slotsIsBound(hot)) continue;
    const cold = slotsCold(base, slot);
    if (!arenaIsOpen(base, hot.arena)) return abi.INV_SLOT_2;
    if (hot.generation == 0 || hot.generation == <u32>abi.GENERATION_MAX) return abi.INV_SLOT_2;
    if (cold.epoch == 0) return abi.INV_SLOT_2;
    const row = arenaRow(base, hot.arena);
    // Another lane may be putting or taking it at this moment.
    const isElsewhere = ASC_FEATURE_THREADS && laneCacheIsElsewhere(base, slot);
    if (isElsewhere && isInArena(row, slot, hot)) continue;
    if (cold.lane > <u16>abi.LANE_COUNT_MAX) return abi.INV_SLOT_2;
    const isLive = slotsIsLive(hot);
    if (!isLive && hot.sizing >= row.cacheClassCount) return abi.INV_SLOT_2;
    if (hot.state == abi.SLOT_STATE_PINNED && !isPinCount(cold.pins)) return abi.INV_SLOT_2;
    if (isLive && hot.requested == 0) return abi.INV_SLOT_2;
    if (!isInArena(row, slot, hot)) return abi.INV_SLOT_2;
    if (isLive && hot.requested > blockBytes(row, hot.sizing, hot.requested)) {
      return abi.INV_SLOT_2;
    }
  }
  return HOLDS;
}

function isPinCount(pins: u32): bool {
  return pins != 0 && pins <= <u32>abi.PIN_COUNT_MAX;
}

/** Whether the arena of `row` has a block of this sizing where `hot` says, which `slot` may own. */
function isInArena(row: ArenaRow, slot: u32, hot: HotRow): bool {
  const sizing = <u32>hot.sizing;
  if (sizing == abi.ORDER_WHOLE) return hot.offset == 0 && row.wholeSlot == slot;
  if (row.wholeSlot != 0) return false;
  if (blockIsPage(row, sizing)) return hot.offset >> SUPERBLOCK_UNIT_SHIFT < row.superblockCount;
  if (!arenaHasSlabs(row)) {
    const index = hot.offset >> sizing;
    const isAligned = index << sizing == hot.offset;
    return sizing <= bitsFloorLog2(row.capacity) && isAligned && index < row.capacity >> sizing;
  }
  const granules = blockGranules(row, sizing, hot.requested);
  const granule = hot.offset >> GRANULE_UNIT_SHIFT;
  if (granule << GRANULE_UNIT_SHIFT != hot.offset) return false;
  if ((granule & (blockRunStep(sizing) - 1)) != 0) return false;
  return granules <= row.capacity && granule <= row.capacity - granules;
}

/**
 * INV-ARENA-1 to INV-ARENA-4, INV-SLAB-3 and INV-TREE-4: first the sums, where the target of a
 * pending move counts as claimed, then the tiling.
 */
function checkArena(base: usize, arena: u32): u32 {
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  const tree = arenaTree(base, row);
  let claimedBytes: u64 = 0;
  let usage: u64 = 0;
  let pinnedCount: u32 = 0;
  let pageCount: u32 = 0;
  let claimed = (<u64>row.slabCount) << abi.SUPERBLOCK_ORDER;
  for (let slot: u32 = 1; slot < control.slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (!slotsIsBound(hot) || hot.arena != arena) continue;
    if (!blockIsPage(row, hot.sizing)) claimed += blockGranules(row, hot.sizing, hot.requested);
    else if (checkSlabHasBlock(base, row, hot.sizing, hot.offset)) {
      pageCount += checkSlabPagesAt(base, row, hot.sizing, hot.offset);
    } else return abi.INV_SLAB_3;
    claimedBytes += blockBytes(row, hot.sizing, hot.requested);
    if (!slotsIsLive(hot)) continue;
    usage += arenaUsageOf(hot.requested);
    if (hot.state == abi.SLOT_STATE_PINNED) pinnedCount += 1;
  }
  if (claimedBytes != row.claimed) return abi.INV_ARENA_1;
  const isCounting = ASC_FEATURE_THREADS && laneCacheHasOthers(base);
  if (ASC_FEATURE_THREADS) usage -= laneCacheDrift(base, arena);
  if (usage != row.usage && !isCounting) {
    const isCounted = usage >> abi.USAGE_COUNT_SHIFT == row.usage >> abi.USAGE_COUNT_SHIFT;
    return isCounted ? abi.INV_ARENA_2 : abi.INV_ARENA_3;
  }
  if (pinnedCount != row.pinnedCount) return abi.INV_ARENA_4;

  if (control.planInto == arena && control.planSlot != 0) {
    const sizing = control.planTargetSizing;
    const overlap = controlPlanOverlap(base) >> GRANULE_UNIT_SHIFT;
    if (overlap != 0) claimed += overlap;
    else if (!blockIsPage(row, sizing)) {
      claimed += blockGranules(row, sizing, control.planRequested);
    } else if (checkSlabHasBlock(base, row, sizing, control.planTarget)) {
      pageCount += checkSlabPagesAt(base, row, sizing, control.planTarget);
    } else return abi.INV_SLAB_3;
  }
  if (pageCount != checkSlabClaimedCount(base, row)) return abi.INV_SLAB_3;
  if (claimed + tree.free != row.capacity) return abi.INV_TREE_4;
  if (control.planArena != 0) return HOLDS;
  return checkTiling(base, arena);
}

/**
 * INV-TREE-4 and INV-SLAB-3, that bound blocks and slabs do not overlap and free blocks fill the
 * gaps, with none left over. Each bound block ends at or below the next, and each gap between them
 * must be made of free blocks; of pages only the first one of a slab counts, for the whole of it.
 */
function checkTiling(base: usize, arena: u32): u32 {
  const row = arenaRow(base, arena);
  const tree = arenaTree(base, row);
  const shift = arenaHasSlabs(row) ? GRANULE_UNIT_SHIFT : 0;
  let freeCount: u32 = 0;
  let offset: u32 = 0;
  let pageEnd: u32 = 0;
  for (let rest = sortedSlotsBuild(base, arena); rest > 0; rest--) {
    const hot = slotsHot(base, sortedSlotsAt(base, rest - 1));
    let start = hot.offset >> shift;
    let end: u32;
    if (blockIsPage(row, hot.sizing)) {
      if (hot.offset < pageEnd) return abi.INV_SLAB_3;
      pageEnd = hot.offset + sizeClassUnits(hot.sizing);
      start = (start >> abi.SUPERBLOCK_ORDER) << abi.SUPERBLOCK_ORDER;
      end = start + (1 << abi.SUPERBLOCK_ORDER);
      if (end == offset) continue;
    } else {
      end = start + blockGranules(row, hot.sizing, hot.requested);
    }
    if (start < offset) return abi.INV_TREE_4;
    freeCount += freeBlocksBetween(tree, offset, start);
    offset = end;
  }
  freeCount += freeBlocksBetween(tree, offset, row.capacity);

  // A gap that is not tiled counts too few blocks; so does a free block beneath another block.
  let expected: u32 = 0;
  for (let order: u32 = 0; order <= tree.orderMax; order++) {
    expected += orderTreeRow(tree, order).setCount;
  }
  return freeCount == expected ? HOLDS : abi.INV_TREE_4;
}

/**
 * Number of free blocks that tile the granules `from` to `to`; 0 if they do not. Steps: as many.
 */
function freeBlocksBetween(tree: OrderTree, from: u32, to: u32): u32 {
  let count: u32 = 0;
  while (from < to) {
    const granules = orderTreeFreeAt(tree, from);
    if (granules == 0 || granules > to - from) return 0;
    count += 1;
    from += granules;
  }
  return count;
}

/** INV-SLAB-1, then INV-SLAB-2: each partial set is exact and has as many members as fit it. */
function checkSlabs(base: usize, row: ArenaRow): u32 {
  let slabCount: u32 = 0;
  let partialCount: u32 = 0;
  for (let index: u32 = 0; index < row.superblockCount; index++) {
    const slab = slabRow(base, row, index);
    if (slab.sizeClass == abi.SIZE_CLASS_NONE) continue;
    if (!checkSlabIsExact(base, row, index)) return abi.INV_SLAB_1;
    if (mixedSlabIs(base, row, index) && checkSlabLongest(base, row, index) > <u32>slab.room) {
      return abi.INV_SLAB_4;
    }
    slabCount += 1;
    if (slab.freeCount != 0) partialCount += 1;
  }
  if (slabCount != row.slabCount) return abi.INV_SLAB_1;

  let setCount: u32 = 0;
  for (let sizeClass: u32 = 0; sizeClass < SLAB_SET_COUNT; sizeClass++) {
    const slabClass = sizeClass == MIXED_SET ? <u32>abi.SIZE_CLASS_MIXED : sizeClass;
    const words = slabPartialWords(row, sizeClass);
    const partials = slabPartials(base, row, sizeClass);
    const origin = base + row.tree;
    if (!bitmapIsExact(partials, origin, words, row.superblockCount)) return abi.INV_SLAB_2;
    let memberCount: u32 = 0;
    for (let index: u32 = 0; index < row.superblockCount; index++) {
      if (!bitmapHas(partials, origin, index)) continue;
      const slab = slabRow(base, row, index);
      if (slab.sizeClass != slabClass || slab.freeCount == 0) return abi.INV_SLAB_2;
      memberCount += 1;
    }
    if (memberCount != partials.setCount) return abi.INV_SLAB_2;
    setCount += memberCount;
  }
  return setCount == partialCount ? HOLDS : abi.INV_SLAB_2;
}

/** INV-CACHE-1 and INV-CACHE-2 of one arena, whose slots are checked. */
function checkCaches(base: usize, arena: u32): u32 {
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  if (!arenaHasSlabs(row)) return HOLDS;
  let budget: u64 = 0;
  let cachedCount: u32 = 0;
  for (let sizeClass: u32 = 0; sizeClass < row.cacheClassCount; sizeClass++) {
    const cache = classCacheAt(base, row, sizeClass);
    const credit = classCacheCredit(cache);
    if (credit > cache.limit) return abi.INV_CACHE_1;
    budget += cache.limit * blockBytes(row, sizeClass, 0);
    let slot = cache.head;
    for (let rest = cache.limit - credit; rest > 0; rest--) {
      if (slot == 0 || slot >= control.slotFresh) return abi.INV_CACHE_1;
      const hot = slotsHot(base, slot);
      if (hot.state != abi.SLOT_STATE_CACHED || hot.sizing != sizeClass) return abi.INV_CACHE_1;
      if (hot.arena != arena) return abi.INV_CACHE_1;
      slot = hot.requested;
      cachedCount += 1;
    }
    if (slot != 0) return abi.INV_CACHE_1;
  }
  if (budget != row.cacheBudget) return abi.INV_CACHE_2;
  for (let slot: u32 = 1; slot < control.slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (hot.state != abi.SLOT_STATE_CACHED || hot.arena != arena) continue;
    // What a lane has cached is in no list of the arena.
    if (!ASC_FEATURE_THREADS || slotsLane(base, slot) == 0) cachedCount -= 1;
  }
  return cachedCount == 0 ? HOLDS : abi.INV_CACHE_1;
}

/** INV-POOL-1 of one pool; that an arena's pool exists is checked with the first. */
function checkPool(base: usize, pool: u32): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  let claimed: u64 = 0;
  let requested: u64 = 0;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    const row = arenaRow(base, arena);
    if (row.pool >= <u32>abi.POOL_COUNT) return abi.INV_POOL_1;
    if (row.pool != pool) continue;
    claimed += row.claimed;
    requested += arenaRequested(row);
  }
  const row = statsPool(base, pool);
  const isSum = row.claimed == claimed && statsRequested(row) == requested;
  const isOrdered = row.headroom >= 0 && claimed <= row.claimedPeak;
  return isSum && isOrdered && requested <= row.requestedPeak ? HOLDS : abi.INV_POOL_1;
}
