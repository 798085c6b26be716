// Seam: how long a tensor will be needed, learnt from those of its kind and call site before it.
import type { TensorKind } from "../types.js";

export interface LifetimeSample {
  readonly kind: TensorKind;
  readonly bytes: number;
  /** The caller's label of the call site; empty when none was given. */
  readonly tag: string;
}

export interface LifetimePredictor {
  readonly name: string;
  /** Whether it learns from {@link observe}; if not, nobody measures lifetimes for it. */
  readonly learns: boolean;
  /** Expected lifetime in milliseconds; Infinity when unknown. */
  expectedMs(sample: LifetimeSample): number;
  /** Notes that a tensor was freed after `lifetimeMs`. */
  observe(sample: LifetimeSample, lifetimeMs: number): void;
}
