// What is read from logits: the last row, the best token, and whether two rows of them agree.
import { numbersOf, type OrtTensor } from "./runtime.js";

/** Value of an IEEE 754 binary16 bit pattern. */
function halfToNumber(bits: number): number {
  const sign = bits >= 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/**
 * The token of the highest logit; of several equal ones the first.
 *
 * @param logits One row; a `Uint16Array` holds f16 bit patterns.
 * @returns −1 when none of them is a number.
 */
export function greedyToken(logits: Float32Array | Uint16Array): number {
  const isHalf = logits instanceof Uint16Array;
  let token = -1;
  let best = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < logits.length; index++) {
    const stored = logits[index] as number;
    const logit = isHalf ? halfToNumber(stored) : stored;
    if (logit > best) {
      best = logit;
      token = index;
    }
  }
  return token;
}

/** Parts of the widest logit by which two ways to compute them may differ: rounding, and no more. */
const TOLERANCE = { f32: 1e-3, f16: 2e-2 } as const;

/** Whether two rows differ by no more than rounding. Rows with anything but numbers never agree. */
export function logitsAgree(
  one: Float32Array | Uint16Array,
  other: Float32Array | Uint16Array,
): boolean {
  if (one.length !== other.length || one.length === 0) return false;
  const isHalf = one instanceof Uint16Array;
  let widest = 0;
  let difference = 0;
  for (let index = 0; index < one.length; index++) {
    const [left, right] = [one[index] as number, other[index] as number];
    const value = isHalf ? halfToNumber(left) : left;
    const otherValue = isHalf ? halfToNumber(right) : right;
    if (!Number.isFinite(value) || !Number.isFinite(otherValue)) return false;
    widest = Math.max(widest, Math.abs(value));
    difference = Math.max(difference, Math.abs(value - otherValue));
  }
  return difference <= (isHalf ? TOLERANCE.f16 : TOLERANCE.f32) * Math.max(widest, 1e-6);
}

/** The logits of the last token. A view. */
export function lastRow(logits: OrtTensor): Float32Array | Uint16Array {
  const all = numbersOf(logits);
  const words = logits.dims[logits.dims.length - 1] ?? 0;
  return all.length === words ? all : all.subarray(all.length - words);
}
