// How errors of codecs add when a part is coded again: what the first one has left of a limit, and a bound on both
// together. x is the original, y what was stored first, z what is stored then.
import { type Dtype, dtypeTraits, type ErrorLimit } from "../types.js";

/** Measured: as in the head of a unit. */
export interface UnitErrors {
  readonly relativeError: number;
  readonly maxError: number;
}

/** More than what is lost by storing an error as f32. */
const ROUNDING = 1 + 2 ** -20;

/**
 * What may still be lost between y and z, so that z keeps the limit against x.
 *
 * @param bytes Elements of y.
 * @returns null: nothing; so it is for values of 16 bits under `max` that are no bf16.
 */
export function limitLeft(
  limit: ErrorLimit,
  errors: UnitErrors,
  bytes: Uint8Array,
  dtype: Dtype,
): ErrorLimit | null {
  const { metric, epsilon } = limit;
  let left: number;
  if (metric === "relative") {
    // ‖x − z‖ ≤ ‖x − y‖ + ‖y − z‖, and ‖y‖ ≤ (1 + e) ‖x‖.
    const error = errors.relativeError * ROUNDING;
    left = (epsilon - error) / (1 + error);
  } else {
    const largest = largestOf(bytes, dtype);
    if (largest === null || largest === 0) return null;
    // The largest magnitude of x is at least that of y less the error.
    const error = errors.maxError * ROUNDING;
    left = (epsilon * (largest - error) - error) / largest;
  }
  // NaN where values are not finite.
  return left > 0 ? { metric, epsilon: Math.min(1, left) } : null;
}

/** Bounds on the distance of z from x. */
export function errorSum(first: UnitErrors, second: UnitErrors): UnitErrors {
  const relativeError = first.relativeError + second.relativeError * (1 + first.relativeError);
  const maxError = first.maxError + second.maxError;
  const isExact = second.relativeError === 0 && second.maxError === 0;
  if (isExact) return first;
  return { relativeError: relativeError * ROUNDING, maxError: maxError * ROUNDING };
}

/** Largest magnitude of finite values, or null for a type that is not looked at. */
function largestOf(bytes: Uint8Array, dtype: Dtype): number | null {
  if (dtype !== "f32" && dtype !== "bf16") return null;
  const { elementBytes } = dtypeTraits(dtype);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let largest = 0;
  for (let at = 0; at < bytes.byteLength; at += elementBytes) {
    // A magnitude of IEEE 754 orders as its bits do.
    const word = dtype === "f32" ? view.getUint32(at, true) : view.getUint16(at, true) * 65536;
    const magnitude = word & 0x7fffffff;
    if (magnitude > largest) largest = magnitude;
  }
  const value = new Float32Array(Uint32Array.of(largest).buffer)[0] as number;
  return Number.isFinite(value) ? value : null;
}
