// Reads the class caches of an arena out of the core's tables. Layer: core.
import * as abi from "../../assembly/abi.js";

/** What the class caches of one arena hold, and how often they served. */
export interface ClassCacheCounters {
  /** Granted bytes of the blocks inside. */
  readonly bytes: number;
  /** Blocks ever taken: the allocations that were served from a cache. */
  readonly takenCount: number;
}

/**
 * Sums the cache rows of an arena.
 *
 * @param words The control memory.
 * @param address Of the first row, in bytes.
 * @param classCount Number of rows; at most 254.
 */
export function readClassCaches(
  words: Uint32Array,
  address: number,
  classCount: number,
): ClassCacheCounters {
  const word = (offset: number) => words[offset / 4] as number;
  let bytes = 0;
  let takenCount = 0;
  for (let sizeClass = 0; sizeClass < classCount; sizeClass++) {
    const row = address + sizeClass * abi.CACHE_BYTES;
    const low = word(row + abi.CACHE_OFF_TALLY);
    const high = word(row + abi.CACHE_OFF_TALLY + 4);
    const credit = low & (2 ** abi.TALLY_TAKEN_SHIFT - 1);
    const cachedCount = word(row + abi.CACHE_OFF_LIMIT) - credit;
    takenCount += (low >>> abi.TALLY_TAKEN_SHIFT) + high * 2 ** (32 - abi.TALLY_TAKEN_SHIFT);
    if (cachedCount !== 0) bytes += cachedCount * classBytes(sizeClass);
  }
  return { bytes, takenCount };
}

/** Granted bytes of a block of a size class: a page, or a run of whole granules. */
export function classBytes(sizeClass: number): number {
  const shift = Math.max(Math.floor(sizeClass / 16) - 1, 0);
  const units = sizeClass < 16 ? sizeClass + 1 : ((sizeClass % 16) + 17) * 2 ** shift;
  const bytes = units * 2 ** abi.UNIT_SHIFT;
  if (sizeClass < abi.SLAB_CLASS_COUNT) return bytes;
  const granuleBytes = 2 ** abi.SLAB_GRANULE_SHIFT;
  return Math.ceil(bytes / granuleBytes) * granuleBytes;
}
