// Reads out of the core's tables how many blocks of each length are free or cached. Layer: core.
import * as abi from "../../assembly/abi.js";
import { classBytes } from "./class-caches.js";

/** How many blocks there are of one length. */
export interface BlockCount {
  readonly blockBytes: number;
  readonly count: number;
}

/** Numbers of blocks by their bytes. */
export type BlockCounts = Map<number, number>;

/**
 * Adds the free blocks of an arena's order tree.
 *
 * @param words The control memory.
 * @param base Address of the control plane, in bytes.
 * @param arena Address of the arena's row, in bytes.
 * @remarks Cost: a look at each order, 27 at most.
 */
export function addFreeBlocks(
  words: Uint32Array,
  base: number,
  arena: number,
  counts: BlockCounts,
): void {
  const granuleBytes = 2 ** (words[(arena + abi.ARENA_OFF_GRANULE_SHIFT) / 4] as number);
  const tree = base + (words[(arena + abi.ARENA_OFF_TREE) / 4] as number);
  const orderMax = words[(tree + abi.TREE_OFF_ORDER_MAX) / 4] as number;
  for (let order = 0; order <= orderMax; order++) {
    const row = tree + abi.TREE_HEADER_BYTES + order * abi.ORDER_BYTES;
    add(counts, granuleBytes * 2 ** order, words[(row + abi.ORDER_OFF_FREE_COUNT) / 4] as number);
  }
}

/**
 * Adds what the class caches of an arena hold. What lanes hold is not among it.
 *
 * @param words The control memory.
 * @param base Address of the control plane, in bytes.
 * @param arena Address of the arena's row, in bytes.
 * @remarks Cost: a look at each class that the arena caches, 252 at most.
 */
export function addCachedBlocks(
  words: Uint32Array,
  base: number,
  arena: number,
  counts: BlockCounts,
): void {
  const address = base + (words[(arena + abi.ARENA_OFF_CACHES) / 4] as number);
  const classCount = words[(arena + abi.ARENA_OFF_CACHE_CLASS_COUNT) / 4] as number;
  for (let sizeClass = 0; sizeClass < classCount; sizeClass++) {
    const row = address + sizeClass * abi.CACHE_BYTES;
    const tally = words[(row + abi.CACHE_OFF_TALLY) / 4] as number;
    const credit = tally & (2 ** abi.TALLY_TAKEN_SHIFT - 1);
    const limit = words[(row + abi.CACHE_OFF_LIMIT) / 4] as number;
    if (limit !== credit) add(counts, classBytes(sizeClass), limit - credit);
  }
}

/** Shortest blocks first; lengths of which there are none are left out. */
export function sortedBlockCounts(counts: BlockCounts): readonly BlockCount[] {
  return [...counts]
    .map(([blockBytes, count]) => ({ blockBytes, count }))
    .sort((left, right) => left.blockBytes - right.blockBytes);
}

function add(counts: BlockCounts, blockBytes: number, count: number): void {
  if (count > 0) counts.set(blockBytes, (counts.get(blockBytes) ?? 0) + count);
}
