// Check: compares every table with the invariants written beside it. Layer 6. It names the first
// one broken and repairs nothing. It trusts the header's layout (format.ts verifies it before) and
// no other word: each index is bounded before it is used, and each loop by a table length, so a
// damaged plane yields an answer.
//
// That live blocks do not overlap is seen by sorting them, in the array that a compaction plan
// uses. While a plan is active, INV-TREE-4 is therefore checked by sums alone.
//
// Cost: open arenas × used slots. For tests, and for a host that suspects damage.
import * as abi from "./abi";
import {
  ArenaRow,
  arenaBlockBytes,
  arenaBlockGranules,
  arenaIsOpen,
  arenaMetadataBytes,
  arenaRow,
  arenaTree,
} from "./arena";
import { Bitmap, bitmapBytes, bitmapLevel, bitmapWordCount } from "./bitmap";
import { CONTROL_ALIGNMENT, bitsFloorLog2 } from "./bits";
import { controlAt } from "./control";
import { OrderTree, orderTreeIsFree, orderTreeRow, orderTreeRowsEnd } from "./order-tree";
import { FreeExtent } from "./region";
import { slotsCold, slotsHot } from "./slots";
import { sortedSlotsAt, sortedSlotsBuild } from "./sorted-slots";
import { statsPool } from "./stats";

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
    if (arenaIsOpen(base, arena)) broken = checkTree(base, arenaRow(base, arena));
  }
  if (broken == HOLDS) broken = checkSlotStates(base);
  if (broken == HOLDS) broken = checkSlotFreeList(base);
  if (broken == HOLDS) broken = checkSlotBlocks(base);
  for (let arena: u32 = 1; arena < arenaCapacity && broken == HOLDS; arena++) {
    if (arenaIsOpen(base, arena)) broken = checkArena(base, arena);
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
    return row.treeBytes == arenaMetadataBytes(row.capacity) ? row.treeBytes : 0;
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

/** INV-TREE-1 to INV-TREE-3, and the part of INV-TREE-4 that the tree knows alone. */
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
    if (!isExact(bitmap, tree, offset, blockCount)) return abi.INV_TREE_2;

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
  return free == tree.free ? HOLDS : abi.INV_TREE_4;
}

/** INV-TREE-2 of one order, whose words start at `offset` from the tree. */
function isExact(bitmap: Bitmap, tree: OrderTree, offset: u32, blockCount: u32): bool {
  if (bitmap.bitCount != blockCount) return false;
  let bitCount = blockCount;
  let level: u32 = 0;
  // Ends with the level of one word, which has no level above.
  while (true) {
    if (bitmapLevel(bitmap, level) != offset) return false;
    const wordCount = bitmapWordCount(bitCount);
    const words = changetype<usize>(tree) + offset;
    const lastBits = bitCount & 63;
    const last = load<u64>(words + ((wordCount - 1) << 3));
    if (lastBits != 0 && last >> lastBits != 0) return false;
    level += 1;
    if (wordCount == 1) return bitmap.levelCount == level;

    const summary = words + (wordCount << 3);
    for (let i: u32 = 0; i < wordCount; i++) {
      const isUsed = load<u64>(words + (i << 3)) != 0;
      const bit = (load<u64>(summary + ((i >> 6) << 3)) >> (i & 63)) & 1;
      if (isUsed != (bit != 0)) return false;
    }
    offset += wordCount << 3;
    bitCount = wordCount;
  }
}

/** INV-SLOT-1: every row below slotFresh has a state, and the header counts each state rightly. */
function checkSlotStates(base: usize): u32 {
  const control = controlAt(base);
  const slotFresh = control.slotFresh;
  if (slotFresh == 0 || slotFresh > control.slotCapacity) return abi.INV_SLOT_1;
  let freeCount: u32 = 0;
  let liveCount: u32 = 0;
  let retiredCount: u32 = 0;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const state = <u32>slotsHot(base, slot).state;
    if (state == abi.SLOT_STATE_FREE) freeCount += 1;
    else if (state == abi.SLOT_STATE_LIVE) liveCount += 1;
    else if (state == abi.SLOT_STATE_RETIRED) retiredCount += 1;
    else return abi.INV_SLOT_1;
  }
  const isCounted =
    freeCount == control.slotFreeCount &&
    liveCount == control.slotLiveCount &&
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
    slot = slotsCold(base, slot).next;
  }
  return slot == 0 ? HOLDS : abi.INV_SLOT_3;
}

/** INV-SLOT-2, row by row; what it establishes, the checks of arenas rely on. */
function checkSlotBlocks(base: usize): u32 {
  const slotFresh = controlAt(base).slotFresh;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (hot.state != abi.SLOT_STATE_LIVE) continue;
    const cold = slotsCold(base, slot);
    if (!arenaIsOpen(base, cold.arena)) return abi.INV_SLOT_2;
    if (hot.generation == 0 || hot.generation == <u32>abi.GENERATION_MAX) return abi.INV_SLOT_2;
    if (cold.epoch == 0) return abi.INV_SLOT_2;
    const row = arenaRow(base, cold.arena);
    if (!isInArena(row, slot, hot.order, hot.offset)) return abi.INV_SLOT_2;
    if (hot.requested == 0 || hot.requested > arenaBlockBytes(row, hot.order)) {
      return abi.INV_SLOT_2;
    }
  }
  return HOLDS;
}

/** Whether the arena of `row` has a block of `order` at `offset`, which `slot` may own. */
function isInArena(row: ArenaRow, slot: u32, order: u32, offset: u32): bool {
  if (order == abi.ORDER_WHOLE) return offset == 0 && row.wholeSlot == slot;
  if (row.wholeSlot != 0 || order > bitsFloorLog2(row.capacity)) return false;
  const index = offset >> order;
  return index << order == offset && index < row.capacity >> order;
}

/**
 * INV-ARENA-1 to INV-ARENA-4, and INV-TREE-4: first the sums, where the target of a pending move
 * counts as claimed, then the tiling.
 */
function checkArena(base: usize, arena: u32): u32 {
  const control = controlAt(base);
  const row = arenaRow(base, arena);
  const tree = arenaTree(base, row);
  let granted: u64 = 0;
  let requested: u64 = 0;
  let liveCount: u32 = 0;
  let pinnedCount: u32 = 0;
  let claimed: u64 = 0;
  for (let slot: u32 = 1; slot < control.slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (hot.state != abi.SLOT_STATE_LIVE || slotsCold(base, slot).arena != arena) continue;
    granted += arenaBlockBytes(row, hot.order);
    requested += hot.requested;
    liveCount += 1;
    if (hot.pins != 0) pinnedCount += 1;
    claimed += arenaBlockGranules(row, hot.order);
  }
  if (granted != row.granted) return abi.INV_ARENA_1;
  if (requested != row.requested) return abi.INV_ARENA_2;
  if (liveCount != row.liveCount) return abi.INV_ARENA_3;
  if (pinnedCount != row.pinnedCount) return abi.INV_ARENA_4;

  if (control.planArena == arena && control.planSlot != 0) claimed += control.planGranules;
  if (claimed + tree.free != row.capacity) return abi.INV_TREE_4;
  if (control.planArena != 0) return HOLDS;
  return isTiled(base, arena) ? HOLDS : abi.INV_TREE_4;
}

/**
 * Whether live blocks and free blocks tile the arena, with no free block left over. Each live block
 * ends at or below the next, and each gap between them must be made of free blocks.
 */
function isTiled(base: usize, arena: u32): bool {
  const row = arenaRow(base, arena);
  const tree = arenaTree(base, row);
  let freeCount: u32 = 0;
  let offset: u32 = 0;
  for (let rest = sortedSlotsBuild(base, arena); rest > 0; rest--) {
    const hot = slotsHot(base, sortedSlotsAt(base, rest - 1));
    if (hot.offset < offset) return false;
    freeCount += freeBlocksBetween(tree, offset, hot.offset);
    offset = hot.offset + arenaBlockGranules(row, hot.order);
  }
  freeCount += freeBlocksBetween(tree, offset, row.capacity);

  // A gap that is not tiled counts too few blocks; so does a free block beneath another block.
  let expected: u32 = 0;
  for (let order: u32 = 0; order <= tree.orderMax; order++) {
    expected += orderTreeRow(tree, order).setCount;
  }
  return freeCount == expected;
}

/**
 * Number of free blocks that tile the granules `from` to `to`; 0 if they do not. Steps: as many.
 */
function freeBlocksBetween(tree: OrderTree, from: u32, to: u32): u32 {
  let count: u32 = 0;
  while (from < to) {
    const granules = freeGranulesAt(tree, from);
    if (granules == 0 || granules > to - from) return 0;
    count += 1;
    from += granules;
  }
  return count;
}

/** Granules of the smallest free block that starts at `offset`, or 0 if none does. */
function freeGranulesAt(tree: OrderTree, offset: u32): u32 {
  for (let order: u32 = 0; order <= tree.orderMax; order++) {
    const index = offset >> order;
    if (index << order != offset || index >= tree.capacity >> order) return 0;
    if (orderTreeIsFree(tree, order, index)) return (<u32>1) << order;
  }
  return 0;
}

/** INV-POOL-1 of one pool; that an arena's pool exists is checked with the first. */
function checkPool(base: usize, pool: u32): u32 {
  const arenaCapacity = controlAt(base).arenaCapacity;
  let granted: u64 = 0;
  let requested: u64 = 0;
  let liveCount: u64 = 0;
  for (let arena: u32 = 1; arena < arenaCapacity; arena++) {
    if (!arenaIsOpen(base, arena)) continue;
    const row = arenaRow(base, arena);
    if (row.pool >= <u32>abi.POOL_COUNT) return abi.INV_POOL_1;
    if (row.pool != pool) continue;
    granted += row.granted;
    requested += row.requested;
    liveCount += row.liveCount;
  }
  const row = statsPool(base, pool);
  const isSum = row.granted == granted && row.requested == requested && row.liveCount == liveCount;
  const isOrdered =
    granted <= row.grantedPeak &&
    row.grantedPeak <= row.grantedTotal &&
    requested <= row.requestedPeak &&
    row.requestedPeak <= row.requestedTotal &&
    liveCount <= row.liveCountPeak &&
    row.liveCountPeak <= row.allocations;
  return isSum && isOrdered ? HOLDS : abi.INV_POOL_1;
}
