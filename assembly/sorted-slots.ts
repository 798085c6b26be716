// Sorted slots: the bound slots of one arena, live or cached, in an array. Layer 6. The array lies in
// the `scratch` fields: entry i is in the cold row i, whatever slot that row describes. There is one
// such array per control plane; compaction and check take turns.
import * as abi from "./abi";
import { arenaRow } from "./arena-row";
import { blockBytes, blockIsPage } from "./block";
import { controlAt } from "./control";
import { slotsCold, slotsHot, slotsIsBound } from "./slots";

const BY_OFFSET: u32 = 0;
const BY_LENGTH: u32 = 1;
const BY_GROUP: u32 = 2;

/** Slot in entry `index` of the array last built. `index` is below its count; not checked. */
export function sortedSlotsAt(base: usize, index: u32): u32 {
  return slotsCold(base, index).scratch;
}

/** Writes entry `index`, for callers that leave some entries out. */
export function sortedSlotsPut(base: usize, index: u32, slot: u32): void {
  slotsCold(base, index).scratch = slot;
}

/**
 * Builds the array for `arena`, by falling offset.
 *
 * @returns Number of entries. Cost: one pass over the used slots, then a heap sort of the bound
 * ones.
 */
export function sortedSlotsBuild(base: usize, arena: u32): u32 {
  let count: u32 = 0;
  const slotFresh = controlAt(base).slotFresh;
  for (let slot: u32 = 1; slot < slotFresh; slot++) {
    const hot = slotsHot(base, slot);
    if (!slotsIsBound(hot) || hot.arena != arena) continue;
    sortedSlotsPut(base, count, slot);
    count += 1;
  }
  sort(base, count, BY_OFFSET);
  return count;
}

/**
 * Sorts the first `count` entries by falling length, those of one length by falling offset.
 *
 * @param isGrouped Whether a page counts as long as its slab, and so the pages of a slab follow one
 *   another.
 */
export function sortedSlotsByLength(base: usize, count: u32, isGrouped: bool): void {
  sort(base, count, isGrouped ? BY_GROUP : BY_LENGTH);
}

/**
 * Heap sort, falling. A heap with the least on top: taking the top to the end again and again leaves
 * the greatest in entry 0.
 */
function sort(base: usize, count: u32, order: u32): void {
  for (let root = count >> 1; root > 0; root--) siftDown(base, root - 1, count, order);
  for (let last = count; last > 1; last--) {
    const least = sortedSlotsAt(base, 0);
    sortedSlotsPut(base, 0, sortedSlotsAt(base, last - 1));
    sortedSlotsPut(base, last - 1, least);
    siftDown(base, 0, last - 1, order);
  }
}

/** What entry `index` is sorted by. */
function rankAt(base: usize, index: u32, order: u32): u64 {
  const slot = sortedSlotsAt(base, index);
  const hot = slotsHot(base, slot);
  if (order == BY_OFFSET) return hot.offset;
  const row = arenaRow(base, hot.arena);
  if (order == BY_GROUP && blockIsPage(row, hot.sizing)) {
    return ((<u64>abi.SUPERBLOCK_UNITS) << 32) | hot.offset;
  }
  return ((blockBytes(row, hot.sizing, hot.requested) >> row.unitShift) << 32) | hot.offset;
}

/** Moves entry `parent` down until no child below `count` ranks lower. */
function siftDown(base: usize, parent: u32, count: u32, order: u32): void {
  const slot = sortedSlotsAt(base, parent);
  const rank = rankAt(base, parent, order);
  for (let child = (parent << 1) + 1; child < count; child = (parent << 1) + 1) {
    const hasNext = child + 1 < count;
    if (hasNext && rankAt(base, child + 1, order) < rankAt(base, child, order)) child += 1;
    if (rank <= rankAt(base, child, order)) break;
    sortedSlotsPut(base, parent, sortedSlotsAt(base, child));
    parent = child;
  }
  sortedSlotsPut(base, parent, slot);
}
