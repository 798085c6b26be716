// Learns how long objects stay unused: a running mean of the logarithm of the intervals, for each kind
// and order of size. An object's own last interval says more than its kind does.
import type { StoredObject, TierPredictor } from "./tier-predictor.js";

/** Weight of a new interval in the mean. */
const LEARNING_SHARE = 0.1;
/** Weight of the object's own last interval. */
const OWN_SHARE = 0.75;
/** Longer ones are as good as never. */
const INTERVAL_MS_MAX = 1e15;
/** Intervals before the mean of a class counts. */
const OBSERVATION_COUNT_MIN = 8;

export function reuseIntervals(): TierPredictor {
  const classes = new Map<string, { count: number; logMs: number }>();
  // Sizes within a factor of 16 share a class, so a class has enough to learn from.
  const classOf = ({ kind, byteLength }: StoredObject) =>
    `${kind} ${Math.floor(Math.log2(byteLength + 1) / 4)}`;
  const logOf = (intervalMs: number) =>
    Math.log(Math.min(INTERVAL_MS_MAX, Math.max(1, intervalMs)));
  return {
    name: "reuse-intervals",
    observe: (object) => {
      if (object.intervalMs === null) return;
      const logMs = logOf(object.intervalMs);
      const name = classOf(object);
      const known = classes.get(name) ?? { count: 0, logMs };
      known.count += 1;
      known.logMs += LEARNING_SHARE * (logMs - known.logMs);
      classes.set(name, known);
    },
    expectedReuseMs: (object) => {
      const known = classes.get(classOf(object));
      const isLearnt = known !== undefined && known.count >= OBSERVATION_COUNT_MIN;
      const { intervalMs } = object;
      if (intervalMs === null) return isLearnt ? Math.exp(known.logMs) : null;
      if (!isLearnt) return intervalMs;
      return Math.exp(OWN_SHARE * logOf(intervalMs) + (1 - OWN_SHARE) * known.logMs);
    },
  };
}
