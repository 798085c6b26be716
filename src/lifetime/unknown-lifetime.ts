// The dull lifetime predictor: nothing is known, so nothing is collected early.
import type { LifetimePredictor } from "./lifetime-predictor.js";

export const unknownLifetime: LifetimePredictor = {
  name: "unknown",
  expectedMs: () => Number.POSITIVE_INFINITY,
  observe: () => {},
};
