// Gives back what is held idle.
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Compactor } from "../memory/compactor.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { TensorKind } from "../types.js";
import type { HeldBlocks } from "./held-blocks.js";

/** @returns Bytes of arenas that were dropped. */
export function trimMemory(parts: {
  readonly held: HeldBlocks;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly compactor: Compactor;
  readonly shelf: ArenaShelf;
}): number {
  const { held, pools, compactor, shelf } = parts;
  held.releaseIdle();
  for (const pool of pools.values()) {
    pool.releaseEmptyArenas();
    // Ends: each time there is one arena less.
    while (compactor.evacuate(pool));
  }
  return shelf.dropSpares(shelf.stats().spareBytes);
}
