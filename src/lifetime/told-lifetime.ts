// The simple lifetime predictor: believes what the caller expects, and learns nothing. A tensor is over
// when it has lived as long as was told, or has been idle for most of that.
import type { LifetimePredictor } from "./lifetime-predictor.js";

/** Part of the told lifetime after which an idle tensor is not expected to be used again. */
export const IDLE_SHARE = 0.8;

export const toldLifetime: LifetimePredictor = {
  name: "told",
  expectedMs: ({ toldMs }) => toldMs,
  isOver: ({ toldMs }, { ageMs, idleMs }) => ageMs >= toldMs || idleMs >= IDLE_SHARE * toldMs,
  observe: () => {},
  endCensus: () => {},
};
