// Blocks that belong to no tensor: those of fixed shapes and of step plans. Each is pinned from the
// day it is taken, so that its views are constant; what lies idle is given back under pressure.
import type { ControlPlane } from "../core/control-plane.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { Dtype, TensorView } from "../types.js";

/** A pinned block. */
export interface HeldBlock {
  readonly slot: number;
  readonly generation: number;
  readonly pool: MemoryPool;
}

/** Whoever holds blocks and may have idle ones among them. */
export interface BlockHolder {
  /** Gives back what is not in use. @returns Whether there was any. */
  releaseIdle(): boolean;
}

export class HeldBlocks {
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #blocks = new Set<HeldBlock>();
  readonly #holders = new Set<BlockHolder>();

  constructor(core: ControlPlane, shelf: ArenaShelf) {
    this.#core = core;
    this.#shelf = shelf;
  }

  get count(): number {
    return this.#blocks.size;
  }

  /** Slots of the blocks that are held. */
  slots(): number[] {
    return [...this.#blocks].map(({ slot }) => slot);
  }

  addHolder(holder: BlockHolder): void {
    this.#holders.add(holder);
  }

  removeHolder(holder: BlockHolder): void {
    this.#holders.delete(holder);
  }

  /** Holds the block of a slot that was just allocated. */
  hold(pool: MemoryPool, slot: number): HeldBlock {
    const block = { slot, generation: this.#core.generationOf(slot), pool };
    this.#core.pin(slot, block.generation);
    this.#blocks.add(block);
    return block;
  }

  giveBack(block: HeldBlock): void {
    const { slot, generation, pool } = block;
    this.#core.unpin(slot, generation);
    pool.free(slot, generation);
    this.#blocks.delete(block);
  }

  /** A view of a part of a block, `offset` bytes from its start. */
  view({ slot }: HeldBlock, dtype: Dtype, offset: number, byteLength: number): TensorView {
    return this.#shelf.arenaOf(slot).view(dtype, this.#core.offsetOf(slot) + offset, byteLength);
  }

  /** Makes every holder give back what is not in use. @returns Whether there was any. */
  releaseIdle(): boolean {
    let isReleased = false;
    for (const holder of this.#holders) if (holder.releaseIdle()) isReleased = true;
    return isReleased;
  }
}
