// Stretch: free blocks of an order tree that touch one another, as compaction looks for them. Layer 3.
// What is claimed here is claimed in the tree.
import { bitsCeilLog2, bitsFloorLog2 } from "./bits";
import { bitmapNext, NO_INDEX } from "./bitmap";
import {
  NO_GRANULE,
  OrderTree,
  orderTreeClaimAt,
  orderTreeHasFree,
  orderTreeRow,
  orderTreeStretchEnd,
  orderTreeStretchStart,
} from "./order-tree";

/** Free blocks of each order that stretchClaimOutside looks at. */
const LOOK_COUNT_MAX: u32 = 64;

/**
 * Claims a run like orderTreeClaimRun in the shortest stretch that holds it, of those looked at, once
 * what lies from `low` to below `high` is taken away from each; or NO_GRANULE. Cost: one look at up to
 * LOOK_COUNT_MAX free blocks of each order, and at their neighbours.
 */
export function stretchClaimOutside(
  tree: OrderTree,
  granules: u32,
  step: u32,
  low: u32,
  high: u32,
): u32 {
  if (granules > tree.free) return NO_GRANULE;
  const order = bitsCeilLog2(granules);
  let best = NO_GRANULE;
  let bestGranules = u32.MAX_VALUE;
  for (let from = order > 2 ? order - 2 : 0; from <= tree.orderMax; from++) {
    const row = orderTreeRow(tree, from);
    let next: u32 = 0;
    for (let looks: u32 = 0; looks < LOOK_COUNT_MAX; looks++) {
      const index = bitmapNext(row, changetype<usize>(tree), next);
      if (index == NO_INDEX) break;
      const at = index << from;
      if (at >= low && at + ((<u32>1) << from) <= high) {
        // Behind the window, in blocks of this order.
        next = min(max(index + 1, high >> from), row.bitCount);
        continue;
      }
      next = index + 1;
      let start = orderTreeStretchStart(tree, at, granules << 1);
      let end = orderTreeStretchEnd(tree, at + ((<u32>1) << from), granules << 1);
      if (start < high && end > low) {
        if (at < low) end = low;
        else start = high;
      }
      const first = (start + step - 1) & ~(step - 1);
      if (first + granules > end || end - start >= bestGranules) continue;
      best = first;
      bestGranules = end - start;
      if (bestGranules == granules) break;
    }
    // Blocks of higher orders lie in longer stretches.
    if (bestGranules == granules || (best != NO_GRANULE && from >= order)) break;
  }
  if (best != NO_GRANULE) orderTreeClaimAt(tree, best, granules);
  return best;
}

/**
 * Granules of the longest stretch of free blocks, or of the longest block in a tree without runs. Cost: one look at each free block of the highest
 * orders, and at the blocks of its stretch.
 */
export function stretchLongest(tree: OrderTree): u32 {
  // Blocks of a tree without runs are never joined.
  if (tree.shortMap == 0) return tree.mask == 0 ? 0 : (<u32>1) << bitsFloorLog2(tree.mask);
  let longest: u32 = 0;
  for (let order = tree.orderMax + 1; order > 0; order--) {
    // A stretch has at most three blocks of its highest order and two of each one below.
    if (longest >> 3 >= (<u32>1) << (order - 1)) break;
    const row = orderTreeRow(tree, order - 1);
    let end: u32 = 0;
    let index = bitmapNext(row, changetype<usize>(tree), 0);
    while (index != NO_INDEX) {
      const offset = index << (order - 1);
      if (offset >= end) {
        end = orderTreeStretchEnd(tree, (index + 1) << (order - 1), tree.capacity);
        longest = max(longest, end - orderTreeStretchStart(tree, offset, tree.capacity));
      }
      index = bitmapNext(row, changetype<usize>(tree), index + 1);
    }
  }
  return longest;
}

/** Free granules in a row from `offset` on, as far as `limit` of them or some more. */
export function stretchFreeFrom(tree: OrderTree, offset: u32, limit: u32): u32 {
  if (offset >= tree.capacity) return 0;
  // The first block may start below.
  for (let order: u32 = 0; order <= tree.orderMax; order++) {
    const index = offset >> order;
    if (orderTreeHasFree(tree, order, index)) {
      return orderTreeStretchEnd(tree, (index + 1) << order, limit) - offset;
    }
  }
  return 0;
}
