// The dull predictor.
import type { Predictor } from "./predictor.js";

const NOTHING: readonly string[] = [];

export const noPredictor: Predictor = { name: "none", observe: () => NOTHING };
