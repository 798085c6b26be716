// Seam: how a tensor is written in fewer bytes. A record holds units one behind the other; each stands
// for a part of the tensor, says itself how long it is, and can be decoded alone. So encoding and
// decoding need memory for one part, however long the tensor is. Codecs see bytes, never tiers.
import type { Dtype, ErrorLimit } from "../types.js";

/** Number, in records, of the codec that writes units of docs/codec-format.md. */
export const CODEC_UNITS = 16;

/** A part of a tensor: whole elements that lie one behind the other. */
export interface TensorPart {
  /** Little-endian; of the length that {@link UnitCoder.partBytes} gives, or what is left. */
  readonly bytes: Uint8Array;
  readonly dtype: Dtype;
  /** Elements of the tensor's last dimension. */
  readonly columns: number;
  /** Null: every byte comes back as it was. */
  readonly limit: ErrorLimit | null;
  /** Whether factors of low rank may stand for it: not for keys, which have been rotated by position. */
  readonly mayFactor: boolean;
}

/** A part in its encoded form. */
export interface EncodedPart {
  /** At most {@link Codec.unitBytesMax}; valid until the next call of the coder. */
  readonly bytes: Uint8Array;
  /** Name of the codec that was used, such as `"plane"`. */
  readonly codec: string;
  /** Measured: as a metric of {@link ErrorLimit}; 0 if exact. */
  readonly relativeError: number;
  /** Measured: largest absolute error; 0 if exact. */
  readonly maxError: number;
}

/** A codec that is ready. Synchronous; one call at a time. */
export interface UnitCoder {
  /** Bytes of the head of a unit, which says how long the unit is. */
  readonly headBytes: number;
  /** Bytes of every part but the last of a tensor with rows of so many elements. */
  partBytes(dtype: Dtype, columns: number): number;
  /** The same part gives the same bytes, always. */
  encode(part: TensorPart): EncodedPart;
  /** Bytes of the unit that begins with this head, or null if it is malformed or too long. */
  unitBytes(head: Uint8Array): number | null;
  /**
   * Decodes a unit to the start of `target`, which may be longer than the part.
   *
   * @returns Its codec, and the bytes of the part; or null if it is malformed, does not fit, or is of
   *   another element type. `target` may then hold anything.
   */
  decode(
    unit: Uint8Array,
    dtype: Dtype,
    target: Uint8Array,
  ): { readonly codec: string; readonly byteLength: number } | null;
}

export interface Codec {
  /** Number in records; never reused. */
  readonly id: number;
  readonly name: string;
  /** Most bytes that a unit has. */
  readonly unitBytesMax: number;
  /** Linear memory that it takes once it is loaded. */
  readonly workspaceBytes: number;
  /**
   * Loads what is needed, once.
   *
   * @throws {OutOfMemoryError} The platform has no room for the workspace.
   */
  load(): Promise<UnitCoder>;
}
