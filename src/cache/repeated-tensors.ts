// Tensors that come again and again: pools of one shape, and plans of one step. Both take blocks out
// of the memory's pools and keep them; this joins them to the rest of the memory.
import { checkAlignment, checkObject } from "../memory/checks.js";
import type { EventHub } from "../memory/events.js";
import { LeakWatch } from "../memory/leak-watch.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import { checkShape } from "../memory/options.js";
import { checkKind, type Dtype, type Shape, type TensorKind } from "../types.js";
import { FixedShapePool, type Loan } from "./fixed-shape-pool.js";
import type { Guards } from "./guards.js";
import type { HeldBlocks } from "./held-blocks.js";
import type { Reclaimer } from "./reclaimer.js";
import { PlanRecorder } from "./step-plan.js";
import type { TensorAllocator } from "./tensor-allocator.js";

/** What both are made of. */
export interface RepeatedTensorsParts {
  readonly reclaimer: Reclaimer;
  readonly allocator: TensorAllocator;
  readonly held: HeldBlocks;
  readonly events: EventHub;
  /** Only in debug mode. */
  readonly guards: Guards | null;
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
  readonly #parts: RepeatedTensorsParts;
  /** Of fixed-shape pools. What leaks stays where it is: its view may still be in use. */
  readonly leaks: LeakWatch<Loan>;

  constructor(pools: ReadonlyMap<TensorKind, MemoryPool>, parts: RepeatedTensorsParts) {
    this.#pools = pools;
    this.#parts = parts;
    this.leaks = new LeakWatch(parts.events, () => {});
  }

  /** @throws {MisuseError} `bad-*`, `closed`. */
  fixedShapePool<D extends Dtype>(options: FixedShapeOptions<D>): FixedShapePool<D> {
    this.#parts.allocator.checkOpen();
    const given = checkObject(options, "fixedShapePool", ["kind", "shape", "dtype", "alignment"]);
    const kind = checkKind(given["kind"]);
    const { shape, byteLength, elementBytes } = checkShape(given["shape"], given["dtype"]);
    const alignment = Math.max(checkAlignment(given["alignment"] ?? 1), elementBytes);
    const { dtype } = options;
    const pool = this.#pools.get(kind) as MemoryPool;
    const tensors = { kind, dtype, shape, byteLength, alignment, pool };
    const { leaks } = this;
    return new FixedShapePool<D>({ ...this.#parts, ...tensors, leaks });
  }

  /** @throws {MisuseError} `bad-kind`, `bad-option`, `closed`. */
  recordPlan(options: { readonly kind: TensorKind }): PlanRecorder {
    this.#parts.allocator.checkOpen();
    const kind = checkKind(checkObject(options, "recordPlan", ["kind"])["kind"]);
    return new PlanRecorder({ ...this.#parts, pool: this.#pools.get(kind) as MemoryPool });
  }
}
