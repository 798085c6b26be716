// What is known about a use, as a few small numbers: the features of its class in the law of reuse.
import type { ChainHints } from "./eviction-policy.js";

// Features of a use become steps of these scales; a value above a step is in the next one.
/** Turns above this one are alike. */
export const TURN_MAX = 5;
const FRESH_STEPS = [1, 3, 10, 30];
const OUTPUT_STEPS = [9, 49, 149, 299, 499, 999, 1999];
const GAP_STEPS_MS = [3_000, 12_000, 48_000, 192_000];
/** In the place of stop reason and turn. */
const AFTER_TOOL = 14;
/** An abandoned branch: another use continued the chain from further up. */
export const LEFT_OVER: readonly number[] = [15];

function stepOf(value: number, steps: readonly number[]): number {
  let step = 0;
  while (step < steps.length && value > (steps[step] as number)) step += 1;
  return step;
}

/** @param gapMs Time since the use that this one continues. @returns From 1 to 5; 0 is for none. */
export function gapFeature(gapMs: number): number {
  return 1 + stepOf(gapMs, GAP_STEPS_MS);
}

/**
 * Features in the order in which they tell: a tool returns by its own time, people by habit.
 *
 * @param use `turn` from 1 to {@link TURN_MAX}; `freshCount`, blocks that were not known; `gap` as by
 *   {@link gapFeature}.
 */
export function featuresOf(
  use: { readonly turn: number; readonly freshCount: number; readonly gap: number },
  hints: ChainHints | undefined,
): number[] {
  const { stopReason, outputTokens } = hints ?? {};
  const fresh = stepOf(use.freshCount, FRESH_STEPS);
  const output = outputTokens === undefined ? 0 : 1 + stepOf(outputTokens, OUTPUT_STEPS);
  if (stopReason === "tool") return [AFTER_TOOL, output, fresh, use.gap];
  const stop = stopReason === undefined ? 0 : TURN_MAX;
  return [stop + use.turn - 1, fresh, output, use.gap];
}
