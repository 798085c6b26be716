// What can be wrong with a safetensors file, in a form that a program can test.
import { TierheapError } from "../../errors.js";

/**
 * About the file as a whole: `too-short`, fewer than 8 bytes; `header-length`, the header is longer than
 * the file or the limit; `header-text`, it is not UTF-8; `header-json`, it is not one JSON object, or its
 * numbers are not whole; `duplicate-name`; `trailing-bytes`, bytes behind the last tensor; `truncated`,
 * the source ended before its own length.
 *
 * About an entry: `bad-metadata`; `bad-name`; `bad-entry`, a field is missing or of the wrong type;
 * `bad-dtype`, not a name of the format; `bad-shape`; `overflow`; `size-mismatch`, shape and element type
 * give another length than the offsets; `bad-offsets`, they run backwards, overlap, leave a hole or point
 * outside of the file.
 *
 * `bad-index`: the index of a model in several files is none, or does not agree with them. `unsupported`:
 * valid, but no tensor of this package can hold it.
 */
export type SafetensorsErrorCode =
  | "too-short"
  | "header-length"
  | "header-text"
  | "header-json"
  | "duplicate-name"
  | "trailing-bytes"
  | "truncated"
  | "bad-metadata"
  | "bad-name"
  | "bad-entry"
  | "bad-dtype"
  | "bad-shape"
  | "overflow"
  | "size-mismatch"
  | "bad-offsets"
  | "bad-index"
  | "unsupported";

/** A file cannot be used. But for `truncated`, thrown before anything was allocated for it. */
export class SafetensorsError extends TierheapError {
  declare readonly code: SafetensorsErrorCode;

  // Narrows the type of `code`.
  constructor(code: SafetensorsErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
