// Lanes: sums across lanes, and rounding to the nearest integer. A leaf. The order of every sum is fixed,
// so that builds with and without SIMD give the same bits.

/** Added to a float of at most 22 bits, it leaves the nearest integer, ties to even, in the low bits. */
const ROUNDER: f32 = 12582912.0;
const ROUNDER_BITS: i32 = 0x4b400000;

/** @param value Below 2^22 in magnitude. */
export function roundInteger(value: f32): i32 {
  return reinterpret<i32>(value + ROUNDER) - ROUNDER_BITS;
}

/** roundInteger of four values. */
export function roundIntegers(values: v128): v128 {
  return i32x4.sub(f32x4.add(values, f32x4.splat(ROUNDER)), i32x4.splat(ROUNDER_BITS));
}

/** The sum that vectorSum gives, of lanes kept apart. */
export function laneSum(lane0: f32, lane1: f32, lane2: f32, lane3: f32): f32 {
  return lane0 + lane1 + (lane2 + lane3);
}

export function vectorSum(sums: v128): f32 {
  return laneSum(
    f32x4.extract_lane(sums, 0),
    f32x4.extract_lane(sums, 1),
    f32x4.extract_lane(sums, 2),
    f32x4.extract_lane(sums, 3),
  );
}

/** The sums of four registers' lanes, in their order: each is lane 0 + lane 2 + (lane 1 + lane 3). */
export function sumsOf(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return f32x4.add(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}
