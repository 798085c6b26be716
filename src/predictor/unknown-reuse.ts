// The dull tier predictor: knows nothing, so objects go where there is room.
import type { TierPredictor } from "./tier-predictor.js";

export const unknownReuse: TierPredictor = {
  name: "unknown",
  observe: () => {},
  expectedReuseMs: () => null,
};
