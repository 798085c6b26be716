// The dull lifetime predictor: nothing is known, so nothing is collected.
import type { LifetimePredictor } from "./lifetime-predictor.js";

export const unknownLifetime: LifetimePredictor = {
  name: "unknown",
  expectedMs: () => Number.POSITIVE_INFINITY,
  isOver: () => false,
  observe: () => {},
  endCensus: () => {},
};
