/**
 * Where a step's token ids, positions and mask lie while the runtime reads them: in tierheap, or for
 * the proof in plain arrays. A decode step has the same few short tensors each time, so these come
 * from pools of a fixed shape; whatever else a step needs is freed with its scope, in one call.
 */
import type { FixedShapePool, FixedShapeTensor, Pin, Scope, TensorMemory } from "tierheap";

/** Integer types of a model's inputs. */
export type IntegerType = "int64" | "int32";

/** Gives out arrays of integers for one step at a time. */
export interface StepInputs {
  /** @param tokens The most elements that one of the step's arrays has. */
  begin(tokens: number): Promise<void>;
  /** An array of `count` integers, valid until {@link end}; it may hold anything. */
  take(type: IntegerType, count: number): BigInt64Array | Int32Array;
  end(): void;
}

/** Plain arrays, which the engine collects. */
export const plainInputs: StepInputs = {
  begin: async () => {},
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
/** Arrays of a step: ids, positions, mask. */
const ARRAYS_MAX = 3;

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

  async begin(tokens: number): Promise<void> {
    const bytes = tokens * BigInt64Array.BYTES_PER_ELEMENT;
    await this.#memory.reserve({ kind: "ACTIVATIONS", bytes, count: ARRAYS_MAX });
    this.#scope = this.#memory.scope("step");
    this.#steps += 1;
  }

  take(type: IntegerType, count: number): BigInt64Array | Int32Array {
    if (this.#scope === null) throw new Error("no step has begun");
    if (count === 1) {
      const tensor = this.#poolOf(type).allocate();
      this.#fixed.push(tensor);
      return tensor.view;
    }
    const dtype = DTYPES[type];
    const pin = this.#scope.allocate({ kind: "ACTIVATIONS", shape: [count], dtype }).pin();
    this.#pins.push(pin);
    this.#scopedCount += 1;
    return pin.view as BigInt64Array | Int32Array;
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

  #poolOf(type: IntegerType): FixedShapePool<"i64" | "i32"> {
    let pool = this.#pools.get(type);
    if (pool === undefined) {
      const dtype: "i64" | "i32" = DTYPES[type];
      pool = this.#memory.fixedShapePool({ kind: "ACTIVATIONS", shape: [1], dtype });
      this.#pools.set(type, pool);
    }
    return pool;
  }
}
