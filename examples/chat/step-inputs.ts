/**
 * Where a step's token ids, positions and mask lie while the runtime reads them: in tierheap, or for
 * the proof in plain arrays. A decode step has the same few short tensors each time, so these come
 * from pools of a fixed shape; whatever else a step needs is freed with its scope, in one call.
 */
import {
  type FixedShapePool,
  type FixedShapeTensor,
  OutOfMemoryError,
  type Pin,
  type Scope,
  type TensorMemory,
} from "tierheap";

/** Integer types of a model's inputs. */
export type IntegerType = "int64" | "int32";

/** Gives out arrays of integers for one step at a time. */
export interface StepInputs {
  begin(): void;
  /** An array of `count` integers, valid until {@link end}; it may hold anything. */
  take(type: IntegerType, count: number): BigInt64Array | Int32Array;
  end(): void;
}

/** Plain arrays, which the engine collects. */
export const plainInputs: StepInputs = {
  begin: () => {},
  take: (type, count) => (type === "int64" ? new BigInt64Array(count) : new Int32Array(count)),
  end: () => {},
};

/** What the heap did for the steps of a run. */
export interface StepInputStats {
  readonly steps: number;
  /** Tensors of one element out of pools of a fixed shape, and those that were used again. */
  readonly fixedCount: number;
  readonly reuseCount: number;
  /** Tensors freed with the scope of their step. */
  readonly scopedCount: number;
}

/** Element type of the tensors of each integer type. */
const DTYPES = { int64: "i64", int32: "i32" } as const;
/** In the arenas of the KV: one of their own would cost a small budget too much. */
const KIND = "KV_CACHE";

export class HeapStepInputs implements StepInputs {
  readonly #memory: TensorMemory;
  readonly #pools = new Map<IntegerType, FixedShapePool<"i64" | "i32">>();
  #scope: Scope | null = null;
  #pins: Pin[] = [];
  #fixed: FixedShapeTensor[] = [];
  #steps = 0;
  #scopedCount = 0;

  constructor(memory: TensorMemory) {
    this.#memory = memory;
  }

  begin(): void {
    this.#scope = this.#memory.scope("step");
    this.#steps += 1;
  }

  take(type: IntegerType, count: number): BigInt64Array | Int32Array {
    return this.#tryTake(type, count) ?? plainInputs.take(type, count);
  }

  end(): void {
    for (const pin of this.#pins.splice(0)) pin[Symbol.dispose]();
    for (const tensor of this.#fixed.splice(0)) tensor.free();
    this.#scope?.[Symbol.dispose]();
    this.#scope = null;
  }

  stats(): StepInputStats {
    let fixedCount = 0;
    let reuseCount = 0;
    for (const pool of this.#pools.values()) {
      fixedCount += pool.stats().allocationCount;
      reuseCount += pool.stats().reuseCount;
    }
    return { steps: this.#steps, fixedCount, reuseCount, scopedCount: this.#scopedCount };
  }

  /** null when all KV is in use and leaves no room: the step must not fail for a few bytes. */
  #tryTake(type: IntegerType, count: number): BigInt64Array | Int32Array | null {
    if (this.#scope === null) throw new Error("no step has begun");
    if (count === 1) {
      const tensor = this.#poolOf(type).tryAllocate();
      if (tensor !== null) this.#fixed.push(tensor);
      return tensor?.view ?? null;
    }
    try {
      const tensor = this.#scope.allocate({ kind: KIND, shape: [count], dtype: DTYPES[type] });
      const pin = tensor.pin();
      this.#pins.push(pin);
      this.#scopedCount += 1;
      return pin.view as BigInt64Array | Int32Array;
    } catch (error) {
      if (error instanceof OutOfMemoryError) return null;
      throw error;
    }
  }

  #poolOf(type: IntegerType): FixedShapePool<"i64" | "i32"> {
    let pool = this.#pools.get(type);
    if (pool === undefined) {
      const dtype: "i64" | "i32" = DTYPES[type];
      pool = this.#memory.fixedShapePool({ kind: KIND, shape: [1], dtype });
      this.#pools.set(type, pool);
    }
    return pool;
  }
}
