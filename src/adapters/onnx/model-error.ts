// What can be wrong with a model, in a form that a program can test.
import { TierheapError } from "../../errors.js";

/**
 * `malformed`: the bytes are not a model. `unsupported`: they are, but its KV inputs and outputs
 * follow no convention that is known here, or it wants an input that nothing here can fill.
 */
export type ModelErrorCode = "malformed" | "unsupported";

/** A model cannot be used. Thrown before anything was allocated for it. */
export class ModelError extends TierheapError {
  declare readonly code: ModelErrorCode;

  // Narrows the type of `code`.
  constructor(code: ModelErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
