// Order tree: hands out the blocks of one arena and coalesces them. Layer 2. It keeps its books
// outside the arena and never touches the bytes it manages; who owns a block is not its business.
// Source: Kenneth C. Knowlton, "A fast storage allocator", CACM 1965 — split and coalesce by buddies.
//
//   byte 0      4          8          12     16         20         24
//        ┌──────┬──────────┬──────────┬──────┬──────────┬──────────┬─────────────┬─ ─
//        │ mask │ orderMax │ capacity │ free │ shortMap │ reserved │ order 0 row │ …
//        └──────┴──────────┴──────────┴──────┴──────────┴──────────┴─────────────┴─ ─
//   then, behind the rows: the bitmap words of each order, and the short map
//
// A block is (order, index): the granules index << order to (index + 1) << order, of which only
// those inside the capacity exist. The row of an order is the bitmap of its free blocks. A capacity
// that is no power of two starts as one block per set bit of it, from the largest down. Nothing can
// join those: what would be their buddy reaches past the capacity and is therefore never free.
//
// A run is any number of granules in a row. It is claimed from one block that has room for it, and
// what the block has too much is free at once; or from several that touch. It is given back as the
// blocks it is made of.
//
// A tree with runs has a short map: a word per superblock, whose bits are its granules that lie in
// free blocks shorter than a superblock. It tells in one step how far such blocks touch.
//
// INV-TREE-1  A block and its buddy are never both free.
// INV-TREE-2  Each row has the levels its order implies; a summary bit is 1 exactly when its word
//             is not 0, and bits past the end are 0.
// INV-TREE-3  A row counts its bits; mask bit k is 1 exactly when row k counts any.
// INV-TREE-4  Free blocks and live blocks (with the target of a pending move) tile the capacity,
//             and `free` is the sum of the free blocks.
// INV-TREE-5  The short map has the granules of the free blocks below SUPERBLOCK_ORDER, and no other.
import * as abi from "./abi";
import { bitsCeilLog2, bitsFloorLog2, bitsIsPowerOfTwo } from "./bits";
import {
  Bitmap,
  bitmapAdd,
  bitmapBytes,
  bitmapFormat,
  bitmapLowest,
  bitmapNext,
  bitmapRemove,
  NO_INDEX,
} from "./bitmap";

/** Refusal value in place of a granule offset. */
export const NO_GRANULE: u32 = u32.MAX_VALUE;
/** Stretches of each order that claimStretch looks at. */
const LOOK_COUNT_MAX: u32 = 8;
const SUPERBLOCK_GRANULES: u32 = 1 << abi.SUPERBLOCK_ORDER;
const WITHIN_SUPERBLOCK: u32 = SUPERBLOCK_GRANULES - 1;

if (SUPERBLOCK_GRANULES != 64) ERROR("a word of the short map is a superblock");

@unmanaged
export class OrderTree {
  mask: u32;
  orderMax: u32;
  /** Granules. */
  capacity: u32;
  /** Granules in free blocks. */
  free: u32;
  shortMap: u32;
}

if (offsetof<OrderTree>("mask") != abi.TREE_OFF_MASK) ERROR("OrderTree.mask");
if (offsetof<OrderTree>("orderMax") != abi.TREE_OFF_ORDER_MAX) ERROR("OrderTree.orderMax");
if (offsetof<OrderTree>("capacity") != abi.TREE_OFF_CAPACITY) ERROR("OrderTree.capacity");
if (offsetof<OrderTree>("free") != abi.TREE_OFF_FREE) ERROR("OrderTree.free");
if (offsetof<OrderTree>("shortMap") != abi.TREE_OFF_SHORT_MAP) ERROR("OrderTree.shortMap");
if (offsetof<OrderTree>() > <usize>abi.TREE_HEADER_BYTES) ERROR("OrderTree size");

/** Bytes of the tree's header and rows, where its bitmap words begin. */
export function orderTreeRowsEnd(orderMax: u32): u32 {
  return abi.TREE_HEADER_BYTES + (orderMax + 1) * abi.ORDER_BYTES;
}

/** Bytes of a tree of `capacity` granules, 1 to ARENA_GRANULES_MAX, with runs or without. */
export function orderTreeBytes(capacity: u32, hasRuns: bool): u32 {
  return shortMapStart(capacity) + (hasRuns ? shortWordCount(capacity) << 3 : 0);
}

/** Words of the short map of a tree of `capacity` granules. */
function shortWordCount(capacity: u32): u32 {
  return (capacity + WITHIN_SUPERBLOCK) >> abi.SUPERBLOCK_ORDER;
}

/** The granules of superblock `index` that lie in shorter free blocks. The tree has runs. */
function shortWord(tree: OrderTree, index: u32): u64 {
  return load<u64>(changetype<usize>(tree) + tree.shortMap + (index << 3));
}

/** Offset of what follows the bitmap words from the tree. */
function shortMapStart(capacity: u32): u32 {
  const orderMax = bitsFloorLog2(capacity);
  let bytes = orderTreeRowsEnd(orderMax);
  for (let order: u32 = 0; order <= orderMax; order++) bytes += bitmapBytes(capacity >> order);
  return bytes;
}

/** The bitmap of the free blocks of `order`, at most orderMax. */
export function orderTreeRow(tree: OrderTree, order: u32): Bitmap {
  return changetype<Bitmap>(
    changetype<usize>(tree) + abi.TREE_HEADER_BYTES + order * abi.ORDER_BYTES,
  );
}

/** Whether block `index` of `order` is free. The block or its buddy exists; not checked. */
export function orderTreeIsFree(tree: OrderTree, order: u32, index: u32): bool {
  const words = changetype<usize>(tree) + orderTreeRow(tree, order).level0;
  return ((load<u64>(words + ((index >> 6) << 3)) >> (index & 63)) & 1) != 0;
}

/**
 * Formats `tree`, with runs or without, with all `capacity` granules free. The memory may hold
 * anything before.
 */
export function orderTreeFormat(tree: OrderTree, capacity: u32, hasRuns: bool): void {
  const orderMax = bitsFloorLog2(capacity);
  tree.mask = 0;
  tree.orderMax = orderMax;
  tree.capacity = capacity;
  tree.free = 0;
  let offset = orderTreeRowsEnd(orderMax);
  for (let order: u32 = 0; order <= orderMax; order++) {
    const blockCount = capacity >> order;
    bitmapFormat(orderTreeRow(tree, order), changetype<usize>(tree), offset, blockCount);
    offset += bitmapBytes(blockCount);
  }
  tree.shortMap = hasRuns ? offset : 0;
  if (hasRuns) {
    const words = changetype<usize>(tree) + offset;
    memory.fill(words, 0, shortWordCount(capacity) << 3);
  }
  orderTreeReleaseWhole(tree);
}

/**
 * Claims a block of `order`: the lowest one of the smallest order that has any, split as needed
 * with the lower half kept.
 *
 * @param order 0 to 31; an order above orderMax is refused.
 * @returns Granule offset of the block, or NO_GRANULE. Cost: one split per order passed.
 */
export function orderTreeClaim(tree: OrderTree, order: u32): u32 {
  const candidates = (tree.mask >> order) << order;
  if (candidates == 0) return NO_GRANULE;
  return claimLowest(tree, ctz(candidates), (<u32>1) << order);
}

/**
 * Claims a block of `order` at the lowest address where one fits, if that is below `limit`.
 *
 * @param limit Granule offset. The place found ends at or before it, if a live block starts there.
 * @returns Granule offset of the block, or NO_GRANULE. Cost: one descent per order that has a free
 * block.
 */
export function orderTreeClaimBelow(tree: OrderTree, order: u32, limit: u32): u32 {
  return claimBelow(tree, order, (<u32>1) << order, limit);
}

/**
 * Claims a run of `granules`, a multiple of `step`, at a multiple of `step`, in a tight stretch; if none was found, from the lowest of the smallest
 * free blocks that hold it. A power of two fits the lowest free block of its order without rest.
 *
 * @param granules 1 to ARENA_GRANULES_MAX.
 * @returns Granule offset of the run, or NO_GRANULE. Cost: that of claimStretch, and one split per
 *   order passed.
 */
export function orderTreeClaimRun(tree: OrderTree, granules: u32, step: u32): u32 {
  const order = bitsCeilLog2(granules);
  const candidates = (tree.mask >> order) << order;
  const isExact = bitsIsPowerOfTwo(granules) && ((tree.mask >> order) & 1) != 0;
  // A run that starts at a multiple of its own length lies in one block.
  if (!isExact && step != granules) {
    const from = order > 2 ? order - 2 : 0;
    const offset = claimStretch(tree, from, granules, step, u32.MAX_VALUE, false, tree.capacity);
    if (offset != NO_GRANULE) return offset;
  }
  return candidates == 0 ? NO_GRANULE : claimLowest(tree, ctz(candidates), granules);
}

/** Claims a superblock at a tight place if there is one, else at the lowest; or NO_GRANULE. */
export function orderTreeClaimSuperblock(tree: OrderTree): u32 {
  const granules = SUPERBLOCK_GRANULES;
  const from: u32 = abi.SUPERBLOCK_ORDER;
  const offset = claimStretch(tree, from, granules, granules, granules << 1, false, tree.capacity);
  if (offset != NO_GRANULE) return offset;
  return orderTreeClaimBelow(tree, abi.SUPERBLOCK_ORDER, tree.capacity);
}

/** Claims a run like orderTreeClaimRun, but at a low place below `limit`, or NO_GRANULE. */
export function orderTreeClaimRunBelow(tree: OrderTree, granules: u32, step: u32, limit: u32): u32 {
  const order = bitsCeilLog2(granules);
  const from = order > 2 ? order - 2 : 0;
  const offset = claimStretch(tree, from, granules, step, limit, true, limit);
  if (offset != NO_GRANULE) return offset;
  return claimBelow(tree, order, granules, limit);
}

/**
 * Claims the granules from `start` on, wherever their borders lie. False, and nothing is changed,
 * unless all of them are free; any numbers are allowed.
 */
export function orderTreeClaimAt(tree: OrderTree, start: u32, granules: u32): bool {
  if (granules == 0 || granules > tree.capacity || start > tree.capacity - granules) return false;
  // The block that the first granule lies in is found at its order.
  let order: u32 = 0;
  while (!orderTreeHasFree(tree, order, start >> order)) {
    order += 1;
    if (order > tree.orderMax) return false;
  }
  const end = start + granules;
  let to = ((start >> order) + 1) << order;
  while (to < end) {
    const free = orderTreeFreeAt(tree, to);
    if (free == 0) return false;
    to += free;
  }
  claimFree(tree, start, granules);
  return true;
}

/** Whether block `index` of `order` exists and is free. */
export function orderTreeHasFree(tree: OrderTree, order: u32, index: u32): bool {
  return index < tree.capacity >> order && orderTreeIsFree(tree, order, index);
}

/** Gives back the run of `granules` at `offset`, as claimed. Cost: one release per block of it. */
export function orderTreeReleaseRun(tree: OrderTree, offset: u32, granules: u32): void {
  while (granules != 0) {
    const order = min(ctz(offset), bitsFloorLog2(granules));
    orderTreeRelease(tree, order, offset);
    offset += (<u32>1) << order;
    granules -= (<u32>1) << order;
  }
}

/**
 * Gives back the block of `order` at granule `offset` and coalesces it with its buddy as long as
 * that is free. That the block is claimed is not checked in a release build. Cost: one step per
 * order joined.
 */
export function orderTreeRelease(tree: OrderTree, order: u32, offset: u32): void {
  assert(order <= tree.orderMax && offset >> order < tree.capacity >> order);
  tree.free += (<u32>1) << order;
  let index = offset >> order;
  const orderMax = tree.orderMax;
  while (order < orderMax && orderTreeIsFree(tree, order, index ^ 1)) {
    removeFree(tree, order, index ^ 1);
    index >>= 1;
    order += 1;
  }
  addFree(tree, order, index);
}

/** Granules of the smallest free block that starts at `offset`, or 0 if none does. */
export function orderTreeFreeAt(tree: OrderTree, offset: u32): u32 {
  const orderEnd = min(ctz(offset), tree.orderMax) + 1;
  for (let order: u32 = 0; order < orderEnd; order++) {
    const index = offset >> order;
    if (index >= tree.capacity >> order) return 0;
    const words = changetype<usize>(tree) + orderTreeRow(tree, order).level0;
    if ((load<u64>(words + ((index >> 6) << 3)) >> (index & 63)) & 1) return (<u32>1) << order;
  }
  return 0;
}

/**
 * Whether the short map, if there is one, has every granule of the blocks that it is about, and no
 * more granules than they have. The rows are exact. Cost: one look at every place for such a block.
 */
export function orderTreeIsMapExact(tree: OrderTree): bool {
  if (tree.shortMap == 0) return true;
  let blockGranules: u32 = 0;
  for (let order: u32 = 0; order < <u32>abi.SUPERBLOCK_ORDER && order <= tree.orderMax; order++) {
    const block = ((<u64>1) << ((<u64>1) << order)) - 1;
    for (let index: u32 = 0; index < tree.capacity >> order; index++) {
      if (!orderTreeIsFree(tree, order, index)) continue;
      const offset = index << order;
      const word = shortWord(tree, offset >> abi.SUPERBLOCK_ORDER);
      if (((word >> (offset & WITHIN_SUPERBLOCK)) & block) != block) return false;
      blockGranules += (<u32>1) << order;
    }
  }
  let mapGranules: u32 = 0;
  for (let index: u32 = 0; index < shortWordCount(tree.capacity); index++) {
    mapGranules += <u32>popcnt(shortWord(tree, index));
  }
  return mapGranules == blockGranules;
}

/** Claims every granule of an entirely free tree. That it is entirely free is not checked. */
export function orderTreeClaimWhole(tree: OrderTree): void {
  assert(tree.free == tree.capacity);
  for (let rest = tree.capacity; rest != 0; rest &= rest - 1) {
    const order = ctz(rest);
    removeFree(tree, order, startIndex(tree, order));
  }
  tree.free = 0;
}

/** Frees every granule of a tree that has no free block. */
export function orderTreeReleaseWhole(tree: OrderTree): void {
  assert(tree.free == 0);
  for (let rest = tree.capacity; rest != 0; rest &= rest - 1) {
    const order = ctz(rest);
    addFree(tree, order, startIndex(tree, order));
  }
  tree.free = tree.capacity;
}

/**
 * Index of the one block of `order` in an entirely free tree, for a set bit `order` of its
 * capacity.
 */
function startIndex(tree: OrderTree, order: u32): u32 {
  return (tree.capacity >> order) - 1;
}

/** Claims the first `granules` of the lowest free block of order `from`, which has one. */
function claimLowest(tree: OrderTree, from: u32, granules: u32): u32 {
  const index = bitmapLowest(orderTreeRow(tree, from), changetype<usize>(tree));
  return claimFront(tree, from, index, granules);
}

/** Claims the first `granules` of the lowest free block of at least `order` that is below `limit`. */
function claimBelow(tree: OrderTree, order: u32, granules: u32, limit: u32): u32 {
  let lowest = limit;
  let lowestOrder: u32 = 0;
  for (let rest = (tree.mask >> order) << order; rest != 0; rest &= rest - 1) {
    const from = ctz(rest);
    const index = bitmapLowest(orderTreeRow(tree, from), changetype<usize>(tree));
    if (index << from < lowest) {
      lowest = index << from;
      lowestOrder = from;
    }
  }
  if (lowest == limit) return NO_GRANULE;
  return claimFront(tree, lowestOrder, lowest >> lowestOrder, granules);
}

/**
 * Claims a run of `granules` in the best stretch that holds it, of those looked at. A stretch is as
 * many free blocks as touch one another. The shortest one is the best, so that long ones last; or
 * the one where the run starts lowest.
 *
 * A stretch that is long enough and not twice as long has a block of a quarter, a half or all of the
 * run's order in it. Only those are looked at, LOOK_COUNT_MAX stretches of each order at most.
 *
 * @param from Lowest order of the blocks that are looked at.
 * @param step What the start is to be a multiple of: a power of two.
 * @param rankEnd A stretch whose length or start is not below this is not good enough.
 * @param isByStart Whether starts are compared, not lengths.
 * @param limit The run starts below this granule.
 * @returns Granule offset of the run, or NO_GRANULE. Cost: at most 3 × LOOK_COUNT_MAX looks; for
 *   each a descent in the bitmap, and up to two steps per order to where the stretch ends.
 */
function claimStretch(
  tree: OrderTree,
  from: u32,
  granules: u32,
  step: u32,
  rankEnd: u32,
  isByStart: bool,
  limit: u32,
): u32 {
  if (granules > tree.free) return NO_GRANULE;
  const order = bitsCeilLog2(granules);
  const orderEnd = min(order + 1, tree.orderMax + 1);
  let bestStart = NO_GRANULE;
  let bestRank = rankEnd;
  for (; from < orderEnd; from++) {
    const row = orderTreeRow(tree, from);
    if (((tree.mask >> from) & 1) == 0) continue;
    let high: u32 = 0;
    for (let lookCount: u32 = 0; lookCount < LOOK_COUNT_MAX; lookCount++) {
      // The next of one stretch is no other stretch.
      const mask = ((<u32>1) << from) - 1;
      const index = bitmapNext(
        row,
        changetype<usize>(tree),
        min((high + mask) >> from, row.bitCount),
      );
      if (index == NO_INDEX) break;
      const low = orderTreeStretchStart(tree, index << from, granules << 1);
      high = orderTreeStretchEnd(tree, (index + 1) << from, granules << 1);
      const start = (low + step - 1) & ~(step - 1);
      if (start + granules > high || start >= limit) continue;
      const rank = isByStart ? start : high - low;
      if (rank < bestRank) {
        bestStart = start;
        bestRank = rank;
      }
    }
  }
  if (bestStart != NO_GRANULE) claimFree(tree, bestStart, granules);
  return bestStart;
}

/** First granule of the free blocks that end at `offset`, or one `reach` below it. */
export function orderTreeStretchStart(tree: OrderTree, offset: u32, reach: u32): u32 {
  const end = offset > reach ? offset - reach : 0;
  // Each step but the last two reaches the end of a superblock: a short block never fills one.
  while (offset > end) {
    const within = offset & WITHIN_SUPERBLOCK;
    const granules = within == 0 ? longBlockBelow(tree, offset) : 0;
    if (granules != 0) {
      offset -= granules;
      continue;
    }
    const word = shortWord(tree, (offset - 1) >> abi.SUPERBLOCK_ORDER);
    const touching = <u32>clz(~(word << (<u64>(SUPERBLOCK_GRANULES - within) & 63)));
    offset -= touching;
    if (touching == 0 || touching != within) break;
  }
  return offset;
}

/** First granule behind the free blocks that start at `offset`, or one `reach` behind it. */
export function orderTreeStretchEnd(tree: OrderTree, offset: u32, reach: u32): u32 {
  const end = min(offset + reach, tree.capacity);
  while (offset < end) {
    const within = offset & WITHIN_SUPERBLOCK;
    const granules = within == 0 ? longBlockAt(tree, offset) : 0;
    if (granules != 0) {
      offset += granules;
      continue;
    }
    const word = shortWord(tree, offset >> abi.SUPERBLOCK_ORDER);
    const touching = <u32>ctz(~(word >> within));
    offset += touching;
    if (touching == 0 || touching != SUPERBLOCK_GRANULES - within) break;
  }
  return offset;
}

/** Granules of the free block of whole superblocks that ends at `offset`, or 0. */
function longBlockBelow(tree: OrderTree, offset: u32): u32 {
  const mask = (tree.mask >> abi.SUPERBLOCK_ORDER) << abi.SUPERBLOCK_ORDER;
  for (let rest = mask; rest != 0; rest &= rest - 1) {
    const order = ctz(rest);
    const index = offset >> order;
    if (index << order != offset) return 0;
    if (orderTreeIsFree(tree, order, index - 1)) return (<u32>1) << order;
  }
  return 0;
}

/** Granules of the free block of whole superblocks that starts at `offset`, or 0. */
function longBlockAt(tree: OrderTree, offset: u32): u32 {
  const mask = (tree.mask >> abi.SUPERBLOCK_ORDER) << abi.SUPERBLOCK_ORDER;
  for (let rest = mask; rest != 0; rest &= rest - 1) {
    const order = ctz(rest);
    const index = offset >> order;
    if (index << order != offset || index >= tree.capacity >> order) return 0;
    if (orderTreeIsFree(tree, order, index)) return (<u32>1) << order;
  }
  return 0;
}

/** Claims a run that lies in free blocks, wherever in the first of them it starts. */
function claimFree(tree: OrderTree, start: u32, granules: u32): void {
  const end = start + granules;
  // The block that the run starts in is found at its order.
  let first: u32 = 0;
  while (!orderTreeIsFree(tree, first, start >> first)) first += 1;
  const from = (start >> first) << first;
  let to = from;
  while (to < end) {
    const order = ctz(orderTreeFreeAt(tree, to));
    removeFree(tree, order, to >> order);
    tree.free -= (<u32>1) << order;
    to += (<u32>1) << order;
  }
  orderTreeReleaseRun(tree, from, start - from);
  orderTreeReleaseRun(tree, end, to - end);
}

/** Claims the first `granules` of the free block (`from`, `index`) and frees the rest of it. */
function claimFront(tree: OrderTree, from: u32, index: u32, granules: u32): u32 {
  const offset = index << from;
  removeFree(tree, from, index);
  tree.free -= granules;
  // Halve the block that the end of the run lies in, until the run ends where a block does.
  while (granules < (<u32>1) << from) {
    from -= 1;
    index <<= 1;
    if (granules <= (<u32>1) << from) {
      addFree(tree, from, index + 1);
    } else {
      granules -= (<u32>1) << from;
      index += 1;
    }
  }
  return offset;
}

function addFree(tree: OrderTree, order: u32, index: u32): void {
  bitmapAdd(orderTreeRow(tree, order), changetype<usize>(tree), index);
  tree.mask |= (<u32>1) << order;
  if (order < <u32>abi.SUPERBLOCK_ORDER) flipShort(tree, order, index);
}

function removeFree(tree: OrderTree, order: u32, index: u32): void {
  const row = orderTreeRow(tree, order);
  bitmapRemove(row, changetype<usize>(tree), index);
  if (row.setCount == 0) tree.mask &= ~((<u32>1) << order);
  if (order < <u32>abi.SUPERBLOCK_ORDER) flipShort(tree, order, index);
}

/** Notes in the short map, if there is one, that a block below SUPERBLOCK_ORDER became free or not. */
function flipShort(tree: OrderTree, order: u32, index: u32): void {
  if (tree.shortMap == 0) return;
  const offset = index << order;
  const address = changetype<usize>(tree) + tree.shortMap + ((offset >> abi.SUPERBLOCK_ORDER) << 3);
  const granules = (((<u64>1) << ((<u64>1) << order)) - 1) << (offset & WITHIN_SUPERBLOCK);
  store<u64>(address, load<u64>(address) ^ granules);
}
