// Sorted slots: the bound slots of one arena, live or cached, in an array by falling offset. Layer 3. The array lies
// in the `scratch` fields: entry i is in the cold row i, whatever slot that row describes. There is
// one such array per control plane; compaction and check take turns.
import { controlAt } from "./control";
import { slotsCold, slotsHot, slotsIsBound } from "./slots";

/** Slot in entry `index` of the array last built. `index` is below its count; not checked. */
export function sortedSlotsAt(base: usize, index: u32): u32 {
  return slotsCold(base, index).scratch;
}

/**
 * Builds the array for `arena`.
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
    put(base, count, slot);
    count += 1;
  }

  // A heap with the lowest offset on top: taking the top to the end again and again leaves the
  // highest offset in entry 0.
  for (let root = count >> 1; root > 0; root--) siftDown(base, root - 1, count);
  for (let last = count; last > 1; last--) {
    const lowest = sortedSlotsAt(base, 0);
    put(base, 0, sortedSlotsAt(base, last - 1));
    put(base, last - 1, lowest);
    siftDown(base, 0, last - 1);
  }
  return count;
}

function put(base: usize, index: u32, slot: u32): void {
  slotsCold(base, index).scratch = slot;
}

function offsetAt(base: usize, index: u32): u32 {
  return slotsHot(base, sortedSlotsAt(base, index)).offset;
}

/** Moves entry `parent` down until no child below `count` has a lower offset. */
function siftDown(base: usize, parent: u32, count: u32): void {
  const slot = sortedSlotsAt(base, parent);
  const offset = slotsHot(base, slot).offset;
  for (let child = (parent << 1) + 1; child < count; child = (parent << 1) + 1) {
    if (child + 1 < count && offsetAt(base, child + 1) < offsetAt(base, child)) child += 1;
    if (offset <= offsetAt(base, child)) break;
    put(base, parent, sortedSlotsAt(base, child));
    parent = child;
  }
  put(base, parent, slot);
}
