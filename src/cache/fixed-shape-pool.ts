// Tensors of one shape, used again without a split and with the view that they had. The blocks come
// out of the memory's pool of that kind and stay in its budget; what lies idle goes back under
// pressure.
import { MisuseError } from "../errors.js";
import { callSite } from "../memory/call-site.js";
import type { Leakable, LeakWatch } from "../memory/leak-watch.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { Dtype, TensorKind, TensorView } from "../types.js";
import type { Guards } from "./guards.js";
import type { BlockHolder, HeldBlock, HeldBlocks } from "./held-blocks.js";
import type { Reclaimer } from "./reclaimer.js";

/** The tensors of a pool, and where their blocks come from. */
export interface FixedShapeParts {
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly alignment: number;
  readonly pool: MemoryPool;
  readonly reclaimer: Reclaimer;
  readonly held: HeldBlocks;
  readonly allocator: { readonly isClosed: boolean };
  readonly leaks: LeakWatch<Loan>;
  /** Only in debug mode. */
  readonly guards: Guards | null;
}

export interface FixedShapeStats {
  readonly liveCount: number;
  readonly idleCount: number;
  /** Bytes of all tensors of the pool, live and idle. */
  readonly heldBytes: number;
  /** Allocations ever made, and those among them that got a block and a view that were there. */
  readonly allocationCount: number;
  readonly reuseCount: number;
}

/** A block and its view, which is made once, and who has it. */
interface Cell<D extends Dtype> {
  readonly block: HeldBlock;
  readonly view: TensorView<D>;
  /** Its tensor, until the turn ends in which it was lent. */
  tensor: FixedShapeTensor<D> | null;
  /** Whether it was lent in this turn. */
  isFresh: boolean;
  /** What is watched of its tensor, from the end of that turn on. */
  loan: Loan | null;
  callSite: string | null;
}

/** What stays of a tensor that nothing reaches any more. */
export interface Loan extends Leakable {
  isFreed: boolean;
}

export class FixedShapePool<D extends Dtype = Dtype> implements BlockHolder {
  readonly kind: TensorKind;
  readonly dtype: D;
  readonly shape: readonly number[];
  /** Of one tensor. */
  readonly byteLength: number;
  readonly #parts: FixedShapeParts;
  readonly #allocator: { readonly isClosed: boolean };
  readonly #idle: Cell<D>[] = [];
  /**
   * @internal A tensor that was never lent. As long as there is one, the engine keeps the layout of
   * such objects and the code that it compiled for them; a collection that finds none drops both.
   */
  readonly layoutKeeper: FixedShapeTensor<D>;
  /** Cells that were lent in this turn. */
  readonly #fresh: Cell<D>[] = [];
  #liveCount = 0;
  #allocationCount = 0;
  #newCount = 0;
  #isDisposed = false;

  /** @internal Fixed-shape pools are made by `memory.fixedShapePool`. */
  constructor(parts: FixedShapeParts) {
    this.kind = parts.kind;
    this.dtype = parts.dtype as D;
    this.shape = parts.shape;
    this.byteLength = parts.byteLength;
    this.#parts = parts;
    this.#allocator = parts.allocator;
    this.layoutKeeper = new FixedShapeTensor<D>(this, null);
    parts.held.addHolder(this);
  }

  /**
   * Allocates a tensor: the one freed last, if there is one.
   *
   * @returns A tensor that is pinned until it is freed; its bytes are whatever its last owner left.
   * @throws {OutOfMemoryError} It does not fit, and nothing that needs no waiting helps.
   * @throws {MisuseError} `closed` — the memory, or this pool.
   * @remarks A tensor used again costs no call into the core, and its view is not made again.
   */
  allocate(): FixedShapeTensor<D> {
    this.#checkOpen();
    const cell = this.#idle.pop();
    if (cell !== undefined) return this.#lend(cell);
    const { pool, reclaimer, alignment } = this.#parts;
    return this.#lend(this.#cellOf(reclaimer.place(pool, this.byteLength, alignment)));
  }

  /** As {@link allocate}, but null in place of an `OutOfMemoryError`. */
  tryAllocate(): FixedShapeTensor<D> | null {
    this.#checkOpen();
    const cell = this.#idle.pop();
    if (cell !== undefined) return this.#lend(cell);
    const { pool, reclaimer, alignment } = this.#parts;
    const slot = reclaimer.tryPlace(pool, this.byteLength, alignment);
    return slot === 0 ? null : this.#lend(this.#cellOf(slot));
  }

  stats(): FixedShapeStats {
    return {
      liveCount: this.#liveCount,
      idleCount: this.#idle.length,
      heldBytes: (this.#liveCount + this.#idle.length) * this.byteLength,
      allocationCount: this.#allocationCount,
      reuseCount: this.#allocationCount - this.#newCount,
    };
  }

  /** Gives the blocks of freed tensors back to the memory. @returns Whether there were any. */
  releaseIdle(): boolean {
    const isReleased = this.#idle.length > 0;
    for (const { block } of this.#idle.splice(0)) this.#giveBack(block);
    return isReleased;
  }

  /** @internal A tensor was freed. */
  takeBack(cell: Cell<D>): void {
    cell.tensor = null;
    if (cell.loan !== null) {
      cell.loan.isFreed = true;
      this.#parts.leaks.unwatch(cell.loan);
      cell.loan = null;
    }
    this.#liveCount -= 1;
    try {
      this.#parts.guards?.checkHeld(cell.block);
    } finally {
      if (this.#isDisposed) this.#giveBack(cell.block);
      else this.#idle.push(cell);
    }
  }

  /** @internal The memory is closed: there is nothing left to give back. */
  get isClosed(): boolean {
    return this.#allocator.isClosed;
  }

  /** Ends the pool. Tensors that are still in use give their blocks back when they are freed. */
  [Symbol.dispose](): void {
    if (this.#isDisposed || this.#allocator.isClosed) return;
    this.#isDisposed = true;
    this.releaseIdle();
    this.#parts.held.removeHolder(this);
  }

  #checkOpen(): void {
    if (this.#allocator.isClosed) throw new MisuseError("closed", "the memory is closed");
    if (this.#isDisposed) throw new MisuseError("closed", "the pool of fixed shapes is closed");
  }

  #cellOf(slot: number): Cell<D> {
    const { held, pool, guards } = this.#parts;
    const { kind, byteLength } = this;
    this.#newCount += 1;
    const block = held.hold(pool, slot);
    guards?.armHeld(block, { kind, byteLength, tag: "fixed shape", callSite: null });
    const view = held.view(block, this.dtype, 0, this.byteLength) as TensorView<D>;
    return { block, view, tensor: null, isFresh: false, loan: null, callSite: null };
  }

  #giveBack(block: HeldBlock): void {
    this.#parts.guards?.disarmHeld(block);
    this.#parts.held.giveBack(block);
  }

  // A fresh object each time: with one that is used again, a stale holder could free the next tenant.
  #lend(cell: Cell<D>): FixedShapeTensor<D> {
    this.#liveCount += 1;
    this.#allocationCount += 1;
    const tensor = new FixedShapeTensor<D>(this, cell);
    cell.tensor = tensor;
    if (this.#parts.guards !== null) cell.callSite = callSite();
    if (cell.isFresh) return tensor;
    cell.isFresh = true;
    if (this.#fresh.push(cell) === 1) this.#parts.leaks.afterTurn(this.#watchFresh);
    return tensor;
  }

  /** Watches the tensors that have outlived their turn. */
  readonly #watchFresh = (): void => {
    const { kind, byteLength } = this;
    for (const cell of this.#fresh.splice(0)) {
      cell.isFresh = false;
      const { tensor, callSite: site } = cell;
      if (tensor === null) continue;
      cell.tensor = null;
      cell.loan = { kind, byteLength, tag: "", callSite: site, isFreed: false, isWatched: false };
      this.#parts.leaks.register(tensor, cell.loan);
    }
  };
}

/**
 * A tensor of a {@link FixedShapePool}. Anonymous: no pressure demotes it, and nothing moves it. If it becomes
 * unreachable without having been freed, that is reported; its block stays, because a view of it may still
 * be in use.
 */
export class FixedShapeTensor<D extends Dtype = Dtype> {
  readonly #pool: FixedShapePool<D>;
  #cell: Cell<D> | null;

  /** @internal Made by {@link FixedShapePool.allocate}. */
  constructor(pool: FixedShapePool<D>, cell: Cell<D> | null) {
    this.#pool = pool;
    this.#cell = cell;
  }

  get kind(): TensorKind {
    return this.#pool.kind;
  }

  get dtype(): D {
    return this.#pool.dtype;
  }

  get shape(): readonly number[] {
    return this.#pool.shape;
  }

  get byteLength(): number {
    return this.#pool.byteLength;
  }

  get isFreed(): boolean {
    return this.#cell === null;
  }

  /**
   * The elements, as a pin shows them. Must not be used after the tensor is freed: the next tensor
   * has the same bytes.
   *
   * @throws {MisuseError} `freed`.
   */
  get view(): TensorView<D> {
    if (this.#cell === null) throw new MisuseError("freed", "the tensor was freed");
    return this.#cell.view;
  }

  /**
   * Gives the tensor back to its pool.
   *
   * @throws {MisuseError} `freed` — it was freed before; `closed`.
   * @throws {GuardError} `overrun` — in debug mode; it is freed all the same.
   */
  free(): void {
    const cell = this.#cell;
    if (cell === null) throw new MisuseError("freed", "the tensor was freed before");
    if (this.#pool.isClosed) throw new MisuseError("closed", "the memory is closed");
    this.#cell = null;
    this.#pool.takeBack(cell);
  }

  /** {@link free}, unless that was done before or the memory is closed. */
  [Symbol.dispose](): void {
    if (this.#cell !== null && !this.#pool.isClosed) this.free();
  }
}
