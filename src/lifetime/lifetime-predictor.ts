// Seam: whether a tensor is still needed, learnt from those of its kind and call site before it. A
// predictor sees kinds, sites, sizes and ages; never tensors, so it can be replayed on a trace.
import type { TensorKind } from "../types.js";

/** What is known of a tensor from its allocation on. */
export interface LifetimeSample {
  readonly kind: TensorKind;
  readonly bytes: number;
  /** Where it was allocated, as the caller calls that place. */
  readonly site: string;
  /** Milliseconds that the caller expects it to live; Infinity when nothing was told. */
  readonly toldMs: number;
}

/** What has become of a tensor until now. */
export interface LifetimeAge {
  /** Milliseconds since it was allocated. */
  readonly ageMs: number;
  /** Milliseconds since it was pinned last, or allocated. */
  readonly idleMs: number;
  /** Times that it was pinned. */
  readonly useCount: number;
  /** When that is, in milliseconds of a clock that never goes back: whose times overlap can be told. */
  readonly nowMs: number;
}

/** How a time without use has ended; `"alive"`: it has not, which is told again and again. */
export type IdleEnd = "used" | "freed" | "alive";

export interface LifetimePredictor {
  readonly name: string;
  /** Milliseconds from the allocation until it will be freed, above 0; Infinity when unknown. */
  expectedMs(sample: LifetimeSample): number;
  /** Whether it is not expected to be used again. Asked often: costs a few look-ups. */
  isOver(sample: LifetimeSample, age: LifetimeAge): boolean;
  /**
   * Notes a time without use. Of `"used"` and `"freed"` every one is told once, when it ends.
   *
   * @param age As it was when the time ended, before the use is counted.
   */
  observe(sample: LifetimeSample, age: LifetimeAge, end: IdleEnd): void;
  /** Every tensor that was there has been told as `"alive"` since the last call. */
  endCensus(): void;
}
