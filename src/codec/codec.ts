// Seam: how a tensor's bytes are written to a colder tier. Codecs see bytes, never tiers.
import type { Dtype } from "../types.js";

/** Encodes and decodes in bounded memory: a chunk in, a chunk out, in order. */
export interface Codec {
  /** Number in records; never reused. */
  readonly id: number;
  readonly name: string;
  /** Decoding gives back exactly the bytes that were encoded. */
  readonly isLossless: boolean;
  /** Bytes that `rawBytes` bytes of this element type become. */
  storedBytes(rawBytes: number, dtype: Dtype): number;
  /** Encodes `source` to the start of `target`. @returns Bytes produced. */
  encode(source: Uint8Array, target: Uint8Array): number;
  /** Decodes `source` to the start of `target`. @returns Bytes produced. */
  decode(source: Uint8Array, target: Uint8Array): number;
}
