// Many handles in one call: they are written behind the control plane, where the core reads them and
// answers. Layer: core.
import * as abi from "../../assembly/abi.js";
import type { BlockHandle } from "./block-info.js";

/**
 * Hands `handles` over in batches.
 *
 * @param words The control memory, at whose end the batch lies.
 * @param address Of the first entry, in bytes.
 * @param free Frees that many handles of the batch and returns how many were refused.
 * @returns Place and status of each that was refused.
 */
export function freeBatches(
  words: Int32Array,
  address: number,
  handles: readonly BlockHandle[],
  free: (count: number) => number,
): { index: number; status: number }[] {
  const refusals: { index: number; status: number }[] = [];
  const start = address / 4;
  const capacity = (words.length - start) / 2;
  for (let first = 0; first < handles.length; first += capacity) {
    const count = Math.min(capacity, handles.length - first);
    for (let index = 0; index < count; index++) {
      const { slot, generation } = handles[first + index] as BlockHandle;
      words[start + 2 * index] = slot;
      words[start + 2 * index + 1] = generation;
    }
    if (free(count) === 0) continue;
    for (let index = 0; index < count; index++) {
      const status = words[start + 2 * index + 1] as number;
      if (status !== abi.STATUS_OK) refusals.push({ index: first + index, status });
    }
  }
  return refusals;
}
