// Element types of the format, and those of them that tensors have.
import type { Dtype } from "../../types.js";

/**
 * Bits of one element, by name: a Map, so that names such as "__proto__" are simply unknown. In the order in
 * which tensors are written, which those of one length have by convention.
 */
const DTYPE_BITS = new Map([
  ["U64", 64],
  ["I64", 64],
  ["F64", 64],
  ["C64", 64],
  ["F32", 32],
  ["U32", 32],
  ["I32", 32],
  ["BF16", 16],
  ["F16", 16],
  ["U16", 16],
  ["I16", 16],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E4M3", 8],
  ["F8_E5M2FNUZ", 8],
  ["F8_E5M2", 8],
  ["I8", 8],
  ["U8", 8],
  ["BOOL", 8],
  ["F6_E3M2", 6],
  ["F6_E2M3", 6],
  ["F4", 4],
]);
const DTYPE_ORDER = [...DTYPE_BITS.keys()];

const OWN_DTYPES = new Map<string, Dtype>([
  ["F64", "f64"],
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["I64", "i64"],
  ["I32", "i32"],
  ["I16", "i16"],
  ["I8", "i8"],
  ["U64", "u64"],
  ["U32", "u32"],
  ["U16", "u16"],
  ["U8", "u8"],
  ["BOOL", "bool"],
]);

const FORMAT_DTYPES = new Map([...OWN_DTYPES].map(([name, dtype]) => [dtype, name]));

/** Bits of an element, or undefined: the format has no such type. */
export function bitsOf(dtype: string): number | undefined {
  return DTYPE_BITS.get(dtype);
}

/** Place of an element type in the order of a file: the longest first. */
export function rankOf(dtype: string): number {
  return DTYPE_ORDER.indexOf(dtype);
}

/** The element type that tensors have for it, or undefined. */
export function ownDtypeOf(dtype: string): Dtype | undefined {
  return OWN_DTYPES.get(dtype);
}

/** The format's name of an element type: it has all of ours. */
export function formatDtypeOf(dtype: Dtype): string {
  return FORMAT_DTYPES.get(dtype) as string;
}
