// The power of two that brings values to where f16 scales are normal. Whoever codes values multiplies
// them by it first, so that tiny and huge tensors keep as many digits as others.

/** Scales stay normal f16 while the largest magnitude lies between these powers of two. */
const EXPONENT_LOW = -2;
const EXPONENT_HIGH = 14;

/**
 * @param magnitudeBits Largest magnitude, as the bits of an f32.
 * @returns The exponent, 0 where none is needed; null if the magnitude is not finite.
 */
export function scaleExponent(magnitudeBits: number): number | null {
  const exponent = (magnitudeBits >>> 23) - 127;
  if (exponent === 128) return null;
  if (magnitudeBits === 0 || (exponent >= EXPONENT_LOW && exponent <= EXPONENT_HIGH)) return 0;
  return Math.max(-126, Math.min(126, -exponent));
}
