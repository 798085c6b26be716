// Order tree: hands out the blocks of one arena and coalesces them. Layer 2. It keeps its books
// outside the arena and never touches the bytes it manages; who owns a block is not its business.
// Source: Kenneth C. Knowlton, "A fast storage allocator", CACM 1965 — split and coalesce by buddies.
//
//   byte 0      4          8          12     16                        16 + 32 × (orderMax + 1)
//        ┌──────┬──────────┬──────────┬──────┬─────────────┬─ ─ ┬──────────────┬─ ─
//        │ mask │ orderMax │ capacity │ free │ order 0 row │ …  │ bitmap words │ …
//        └──────┴──────────┴──────────┴──────┴─────────────┴─ ─ ┴──────────────┴─ ─
//
// A block is (order, index): the granules index << order to (index + 1) << order, of which only
// those inside the capacity exist. The row of an order is the bitmap of its free blocks. A capacity
// that is no power of two starts as one block per set bit of it, from the largest down. Nothing can
// join those: what would be their buddy reaches past the capacity and is therefore never free.
//
// INV-TREE-1  A block and its buddy are never both free.
// INV-TREE-2  Each row has the levels its order implies; a summary bit is 1 exactly when its word
//             is not 0, and bits past the end are 0.
// INV-TREE-3  A row counts its bits; mask bit k is 1 exactly when row k counts any.
// INV-TREE-4  Free blocks and live blocks (with the target of a pending move) tile the capacity,
//             and `free` is the sum of the free blocks.
import * as abi from "./abi";
import { bitsFloorLog2 } from "./bits";
import {
  Bitmap,
  bitmapAdd,
  bitmapBytes,
  bitmapFormat,
  bitmapHas,
  bitmapLowest,
  bitmapRemove,
} from "./bitmap";

/** Refusal value in place of a granule offset. */
export const NO_GRANULE: u32 = u32.MAX_VALUE;

@unmanaged
export class OrderTree {
  mask: u32;
  orderMax: u32;
  /** Granules. */
  capacity: u32;
  /** Granules in free blocks. */
  free: u32;
}

if (offsetof<OrderTree>("mask") != abi.TREE_OFF_MASK) ERROR("OrderTree.mask");
if (offsetof<OrderTree>("orderMax") != abi.TREE_OFF_ORDER_MAX) ERROR("OrderTree.orderMax");
if (offsetof<OrderTree>("capacity") != abi.TREE_OFF_CAPACITY) ERROR("OrderTree.capacity");
if (offsetof<OrderTree>("free") != abi.TREE_OFF_FREE) ERROR("OrderTree.free");
if (offsetof<OrderTree>() != abi.TREE_HEADER_BYTES) ERROR("OrderTree size");

/** Bytes of the tree's header and rows, where its bitmap words begin. */
export function orderTreeRowsEnd(orderMax: u32): u32 {
  return abi.TREE_HEADER_BYTES + (orderMax + 1) * abi.ORDER_BYTES;
}

/** Bytes of a tree of `capacity` granules, 1 to ARENA_GRANULES_MAX. */
export function orderTreeBytes(capacity: u32): u32 {
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
  return bitmapHas(orderTreeRow(tree, order), changetype<usize>(tree), index);
}

/** Formats `tree` with all `capacity` granules free. The memory may hold anything before. */
export function orderTreeFormat(tree: OrderTree, capacity: u32): void {
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
  const from = ctz(candidates);
  const index = bitmapLowest(orderTreeRow(tree, from), changetype<usize>(tree));
  return claimFront(tree, from, index, order);
}

/**
 * Claims a block of `order` at the lowest address where one fits, if that is below `limit`.
 *
 * @param limit Granule offset. The place found ends at or before it, if a live block starts there.
 * @returns Granule offset of the block, or NO_GRANULE. Cost: one descent per order that has a free
 * block.
 */
export function orderTreeClaimBelow(tree: OrderTree, order: u32, limit: u32): u32 {
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
  return claimFront(tree, lowestOrder, lowest >> lowestOrder, order);
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

/** Claims the first block of `order` inside the free block (`from`, `index`) and frees the rest. */
function claimFront(tree: OrderTree, from: u32, index: u32, order: u32): u32 {
  removeFree(tree, from, index);
  while (from > order) {
    from -= 1;
    index <<= 1;
    addFree(tree, from, index + 1);
  }
  tree.free -= (<u32>1) << order;
  return index << order;
}

function addFree(tree: OrderTree, order: u32, index: u32): void {
  bitmapAdd(orderTreeRow(tree, order), changetype<usize>(tree), index);
  tree.mask |= (<u32>1) << order;
}

function removeFree(tree: OrderTree, order: u32, index: u32): void {
  const row = orderTreeRow(tree, order);
  bitmapRemove(row, changetype<usize>(tree), index);
  if (row.setCount == 0) tree.mask &= ~((<u32>1) << order);
}
