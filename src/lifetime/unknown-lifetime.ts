// The dull lifetime predictor: nothing is known, so nothing is collected early.
import type { LifetimePredictor } from "./lifetime-predictor.js";

export const unknownLifetime: LifetimePredictor = {
  name: "unknown",
  learns: false,
  expectedMs: () => Number.POSITIVE_INFINITY,
  observe: () => {},
};
