// Typed arrays out of one arena: an allocator that has its bytes too, for programs that want views
// and no more of a heap than that.
import type { ControlPlane } from "./core/control-plane.js";
import { invariantName } from "./core/invariants.js";
import { createUnsharedMemory, LinearMemory } from "./core/linear-memory.js";
import { MisuseError } from "./errors.js";
import { checkObject } from "./memory/checks.js";
import {
  openSingleArena,
  SINGLE_ARENA_OPTION_NAMES,
  type SingleArenaOptions,
} from "./memory/single-arena.js";
import { checkBytes, type Dtype, dtypeTraits, type TensorView } from "./types.js";

export interface ViewAllocatorOptions<D extends Dtype> extends SingleArenaOptions {
  /** Element type of all blocks. */
  readonly dtype: D;
}

/** A view and the place that it shows. */
interface KeptView<D extends Dtype> {
  readonly view: TensorView<D>;
  readonly place: number;
  readonly length: number;
}

/**
 * Allocates blocks with a typed view each. A block that is allocated again has the view that it had:
 * to make one costs more than to allocate.
 */
export class ViewAllocator<D extends Dtype = Dtype> {
  readonly dtype: D;
  readonly capacityBytes: number;
  readonly #core: ControlPlane;
  readonly #arena: number = 0;
  readonly #memory: LinearMemory;
  readonly #elementBytes: number = 0;
  readonly #lengthMax: number = 0;
  /**
   * @internal A block that was never handed out. As long as there is one, the engine keeps the layout
   * of such objects and the code that it compiled for them; a collection that finds none drops both.
   */
  readonly layoutKeeper: ViewBlock<D>;
  /** By slot: the last view of its block, and where that was. */
  readonly #kept: (KeptView<D> | undefined)[] = [];

  private constructor(
    dtype: D,
    opened: { core: ControlPlane; arena: number; capacityBytes: number },
    memory: LinearMemory,
  ) {
    this.dtype = dtype;
    this.capacityBytes = opened.capacityBytes;
    this.#core = opened.core;
    this.#arena = opened.arena;
    this.#memory = memory;
    this.#elementBytes = dtypeTraits(dtype).elementBytes;
    this.#lengthMax = Math.floor((2 ** 32 - 1) / this.#elementBytes);
    this.layoutKeeper = new ViewBlock(this, 0, 0, null);
  }

  /**
   * @throws {MisuseError} `bad-size`, `bad-option`, `bad-dtype`.
   * @throws {OutOfMemoryError} The platform refuses the memory.
   */
  static async create<D extends Dtype>(
    options: ViewAllocatorOptions<D>,
  ): Promise<ViewAllocator<D>> {
    checkObject(options, "ViewAllocator.create", ["dtype", ...SINGLE_ARENA_OPTION_NAMES]);
    dtypeTraits(options.dtype);
    const opened = await openSingleArena(options);
    const { createMemory = createUnsharedMemory } = options;
    const memory = LinearMemory.create(opened.capacityBytes, createMemory);
    return new ViewAllocator(options.dtype, opened, memory);
  }

  /**
   * Allocates a block of `length` elements. Its bytes are whatever its last owner left.
   *
   * @returns null when it does not fit.
   * @throws {MisuseError} `bad-size`.
   * @remarks One call into the core.
   */
  tryAllocate(length: number): ViewBlock<D> | null {
    checkBytes(length, "length", this.#lengthMax);
    const elementBytes = this.#elementBytes;
    const slot = this.#core.allocate(this.#arena, length * elementBytes, elementBytes);
    if (slot === 0) return null;
    const place = this.#core.placeOf(slot);
    let kept = this.#kept[slot];
    if (kept === undefined || kept.place !== place || kept.length !== length) {
      kept = this.#keep(slot, place, length);
    }
    return new ViewBlock(this, slot, this.#core.generationOf(slot), kept);
  }

  /**
   * Moves blocks together so that free blocks coalesce, bytes and all. Views taken before are stale;
   * a block's `view` is always the right one.
   *
   * @returns Bytes moved.
   */
  compact(): number {
    let movedBytes = 0;
    for (let passBytes = -1; passBytes !== 0; movedBytes += passBytes) {
      passBytes = 0;
      this.#core.beginCompaction(this.#arena);
      for (let move = this.#core.nextMove(); move !== null; move = this.#core.nextMove()) {
        this.#memory.move(move.sourceOffset, move.targetOffset, move.byteLength);
        if (this.#core.commitMove()) passBytes += move.byteLength;
      }
    }
    return movedBytes;
  }

  /** Blocks that are live. */
  get liveCount(): number {
    return this.#core.liveCount;
  }

  /** The first invariant that is broken, such as `"INV-TREE-2"`, or null. */
  verify(): string | null {
    const code = this.#core.check();
    return code === 0 ? null : invariantName(code);
  }

  /** @internal What is kept of a live block: `kept`, unless the block has moved. */
  keptOf(slot: number, kept: KeptView<D>): KeptView<D> {
    const place = this.#core.placeOf(slot);
    return kept.place === place ? kept : this.#keep(slot, place, kept.length);
  }

  /** @internal */
  free(slot: number, generation: number): void {
    this.#core.free(slot, generation);
  }

  // The memory never grows, so a view of the same place and length is the same view.
  #keep(slot: number, place: number, length: number): KeptView<D> {
    const offset = this.#core.offsetOf(slot);
    const view = this.#memory.view(this.dtype, offset, length * this.#elementBytes);
    const kept = { view: view as TensorView<D>, place, length };
    this.#kept[slot] = kept;
    return kept;
  }
}

/** A block of a {@link ViewAllocator}. A fresh object each time, so a stale one frees nobody else. */
export class ViewBlock<D extends Dtype = Dtype> {
  readonly #allocator: ViewAllocator<D>;
  readonly #slot: number;
  readonly #generation: number;
  #kept: KeptView<D> | null;

  /** @internal Made by {@link ViewAllocator.tryAllocate}. */
  constructor(
    allocator: ViewAllocator<D>,
    slot: number,
    generation: number,
    kept: KeptView<D> | null,
  ) {
    this.#allocator = allocator;
    this.#slot = slot;
    this.#generation = generation;
    this.#kept = kept;
  }

  get isFreed(): boolean {
    return this.#kept === null;
  }

  /**
   * The elements. Stale after a compaction, and not to be used after the block is freed.
   *
   * @throws {MisuseError} `freed`.
   */
  get view(): TensorView<D> {
    if (this.#kept === null) throw new MisuseError("freed", "the block was freed");
    this.#kept = this.#allocator.keptOf(this.#slot, this.#kept);
    return this.#kept.view;
  }

  /** @throws {MisuseError} `freed` — it was freed before. */
  free(): void {
    if (this.#kept === null) throw new MisuseError("freed", "the block was freed before");
    this.#allocator.free(this.#slot, this.#generation);
    this.#kept = null;
  }

  /** {@link free}, unless that was done before. */
  [Symbol.dispose](): void {
    if (this.#kept !== null) this.free();
  }
}
