/**
 * Where a step's token ids, positions and mask lie while the runtime reads them: in tierheap, or for
 * the proof in plain arrays.
 *
 * A decode step has the same tensors each time but for its mask, which is one token longer. With the
 * mask's length rounded up, one plan serves many steps: the first one is recorded, the others are
 * replayed from it without an allocation. A prompt is as long as it is: its mask, rounded up in the same
 * way, comes from a pool of a fixed shape, and its ids and positions are freed with the scope of the step.
 */
import {
  type FixedShapePool,
  type FixedShapeTensor,
  OutOfMemoryError,
  type Pin,
  type PlanRecorder,
  type Scope,
  type StepPlan,
  type Tensor,
  type TensorMemory,
} from "tierheap";

/** Integer types of a model's inputs. */
export type IntegerType = "int64" | "int32";

/** How long a step is. */
export interface StepLength {
  /** Tokens that it computes. */
  readonly tokens: number;
  /** Tokens that it sees: these and all before. */
  readonly total: number;
}

/** Gives out arrays of integers for one step at a time. */
export interface StepInputs {
  begin(length: StepLength): void;
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
  /** Plans that were recorded, and steps that were replayed from them. */
  readonly planCount: number;
  readonly replayedCount: number;
  /** Bytes of the blocks of all plans, and the least that any plans of these steps need. */
  readonly planBytes: number;
  readonly planBytesLeast: number;
  /** Tensors out of pools of a fixed shape, and those that were used again. */
  readonly fixedCount: number;
  readonly reuseCount: number;
  /** Tensors freed with the scope of their step. */
  readonly scopedCount: number;
}

/** Element type of the tensors of each integer type. */
const DTYPES = { int64: "i64", int32: "i32" } as const;
/** In the arenas of the KV: one of their own would cost a small budget too much. */
const KIND = "KV_CACHE";
/** Masks are as long as a multiple of this. */
const MASK_TOKENS = 256;

type Integers = BigInt64Array | Int32Array;
type IntegerTensor = Tensor<"i64" | "i32">;

export class HeapStepInputs implements StepInputs {
  readonly #memory: TensorMemory;
  /** By type and length. */
  readonly #pools = new Map<string, FixedShapePool<"i64" | "i32">>();
  /** By the length of the mask. */
  readonly #plans = new Map<number, StepPlan>();
  #length: StepLength = { tokens: 0, total: 0 };
  #scope: Scope | null = null;
  #pins: Pin[] = [];
  #fixed: FixedShapeTensor[] = [];
  #recorder: PlanRecorder | null = null;
  #recorded: IntegerTensor[] = [];
  #plan: StepPlan | null = null;
  #steps = 0;
  #replayedCount = 0;
  #scopedCount = 0;

  constructor(memory: TensorMemory) {
    this.#memory = memory;
  }

  begin(length: StepLength): void {
    this.#length = length;
    this.#steps += 1;
    if (length.tokens > 1 || length.total === 1) {
      this.#scope = this.#memory.scope("step");
      return;
    }
    const plan = this.#plans.get(roundUp(length.total));
    if (plan === undefined) this.#recorder = this.#memory.recordPlan({ kind: KIND });
    else if (tryFit(() => plan.begin()) !== null) {
      this.#plan = plan;
      this.#replayedCount += 1;
    }
  }

  take(type: IntegerType, count: number): Integers {
    // The step must not fail for a few bytes when all KV is in use and leaves no room.
    const view = tryFit(() => this.#take(type, count));
    if (view !== null) return view.subarray(0, count);
    this.#recorder = null;
    return plainInputs.take(type, count);
  }

  end(): void {
    for (const pin of this.#pins.splice(0)) pin[Symbol.dispose]();
    for (const tensor of this.#fixed.splice(0)) tensor.free();
    for (const tensor of this.#recorded.splice(0)) tensor.free();
    if (this.#recorder !== null) {
      this.#plans.set(roundUp(this.#length.total), this.#recorder.finish());
    }
    this.#recorder = null;
    // Between steps the KV of a chat may have the block; the step then takes plain arrays if all is full.
    this.#plan?.end();
    this.#plan = null;
    this.#scope?.[Symbol.dispose]();
    this.#scope = null;
  }

  stats(): StepInputStats {
    const pools = [...this.#pools.values()].map((pool) => pool.stats());
    const plans = [...this.#plans.values()];
    const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
    return {
      steps: this.#steps,
      planCount: plans.length,
      replayedCount: this.#replayedCount,
      planBytes: sum(plans.map(({ byteLength }) => byteLength)),
      planBytesLeast: sum(plans.map(({ lowerBoundBytes }) => lowerBoundBytes)),
      fixedCount: sum(pools.map(({ allocationCount }) => allocationCount)),
      reuseCount: sum(pools.map(({ reuseCount }) => reuseCount)),
      scopedCount: this.#scopedCount,
    };
  }

  /** null if there is no room. */
  #take(type: IntegerType, count: number): Integers | null {
    const dtype: "i64" | "i32" = DTYPES[type];
    const isMask = count === this.#length.total;
    const shape = [isMask && count > 1 ? roundUp(count) : count];
    if (this.#plan !== null) return this.#plan.next(shape, dtype) as Integers;
    if (this.#recorder !== null) {
      const tensor = this.#recorder.allocate({ shape, dtype });
      this.#recorded.push(tensor);
      return this.#pin(tensor);
    }
    if (this.#scope === null) return null;
    if (!isMask) {
      const tensor = this.#scope.allocate({ kind: KIND, shape, dtype });
      this.#scopedCount += 1;
      return this.#pin(tensor);
    }
    const tensor = this.#poolOf(dtype, shape).tryAllocate();
    if (tensor === null) return null;
    this.#fixed.push(tensor);
    return tensor.view;
  }

  #pin(tensor: IntegerTensor): Integers {
    const pin = tensor.pin();
    this.#pins.push(pin);
    return pin.view as Integers;
  }

  #poolOf(dtype: "i64" | "i32", shape: readonly number[]): FixedShapePool<"i64" | "i32"> {
    const key = `${dtype} ${shape}`;
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      pool = this.#memory.fixedShapePool({ kind: KIND, shape, dtype });
      this.#pools.set(key, pool);
    }
    return pool;
  }
}

function roundUp(tokens: number): number {
  return Math.ceil(tokens / MASK_TOKENS) * MASK_TOKENS;
}

/** What `work` gives, or null if there is no room for it. */
function tryFit<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof OutOfMemoryError) return null;
    throw error;
  }
}
