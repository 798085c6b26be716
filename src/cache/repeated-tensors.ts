// Tensors that come again and again: pools of one shape, and plans of one step. Both take blocks out
// of the memory's pools and keep them; this joins them to the rest of the memory.
import { checkAlignment, checkObject } from "../memory/checks.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import { checkShape } from "../memory/options.js";
import { checkKind, type Dtype, type Shape, type TensorKind } from "../types.js";
import { FixedShapePool } from "./fixed-shape-pool.js";
import type { HeldBlock, HeldBlocks } from "./held-blocks.js";
import type { Reclaimer } from "./reclaimer.js";
import { PLAN_ALIGNMENT, PlanRecorder } from "./step-plan.js";
import type { TensorAllocator } from "./tensor-allocator.js";

export interface RepeatedTensorsOptions {
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly reclaimer: Reclaimer;
  readonly allocator: TensorAllocator;
  readonly held: HeldBlocks;
}

/** The tensors of a fixed-shape pool. */
export interface FixedShapeOptions<D extends Dtype> {
  readonly kind: TensorKind;
  /** 1 to 8 lengths of at least 1, outermost first. */
  readonly shape: Shape;
  readonly dtype: D;
  /** A power of two up to 65,536. Default: the element's size. */
  readonly alignment?: number | undefined;
}

export class RepeatedTensors {
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #reclaimer: Reclaimer;
  readonly #allocator: TensorAllocator;
  readonly #held: HeldBlocks;

  constructor(options: RepeatedTensorsOptions) {
    this.#pools = options.pools;
    this.#reclaimer = options.reclaimer;
    this.#allocator = options.allocator;
    this.#held = options.held;
  }

  /** @throws {MisuseError} `bad-*`, `closed`. */
  fixedShapePool<D extends Dtype>(options: FixedShapeOptions<D>): FixedShapePool<D> {
    const allocator = this.#allocator;
    allocator.checkOpen();
    const given = checkObject(options, "fixedShapePool", ["kind", "shape", "dtype", "alignment"]);
    const kind = checkKind(given["kind"]);
    const { shape, byteLength, elementBytes } = checkShape(given["shape"], given["dtype"]);
    const alignment = Math.max(checkAlignment(given["alignment"] ?? 1), elementBytes);
    const { dtype } = options;
    const pool = this.#pools.get(kind) as MemoryPool;
    const held = this.#held;
    const fixed = new FixedShapePool<D>(
      { kind, dtype, shape, byteLength },
      {
        get isClosed() {
          return allocator.isClosed;
        },
        take: () => held.hold(pool, this.#reclaimer.place(pool, byteLength, alignment)),
        tryTake: () => {
          const slot = this.#reclaimer.tryPlace(pool, byteLength, alignment);
          return slot === 0 ? null : held.hold(pool, slot);
        },
        view: (block) => held.view(block, dtype, 0, byteLength),
        giveBack: (block) => held.giveBack(block),
        remove: (holder) => held.removeHolder(holder),
      },
    );
    held.addHolder(fixed);
    return fixed;
  }

  /** @throws {MisuseError} `bad-kind`, `bad-option`, `closed`. */
  recordPlan(options: { readonly kind: TensorKind }): PlanRecorder {
    const allocator = this.#allocator;
    allocator.checkOpen();
    const kind = checkKind(checkObject(options, "recordPlan", ["kind"])["kind"]);
    const held = this.#held;
    return new PlanRecorder(kind, {
      get isClosed() {
        return allocator.isClosed;
      },
      allocate: (tensorOptions, owner) => allocator.allocate(tensorOptions, owner),
      pin: (record, access) => allocator.pin(record, access),
      free: (record) => allocator.free(record),
      resize: (record, shape) => allocator.resize(record, shape),
      take: (planKind, bytes) => this.#takeFor(planKind, bytes),
      view: (block, dtype, offset, byteLength) => held.view(block, dtype, offset, byteLength),
      giveBack: (block) => held.giveBack(block),
      add: (plan) => held.addHolder(plan),
      remove: (plan) => held.removeHolder(plan),
    });
  }

  #takeFor(kind: TensorKind, bytes: number): HeldBlock {
    const pool = this.#pools.get(kind) as MemoryPool;
    return this.#held.hold(pool, this.#reclaimer.place(pool, bytes, PLAN_ALIGNMENT));
  }
}
