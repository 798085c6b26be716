// Attend lm: the weighted sum of values, straight on 4-bit lm codes (lm.ts), left rotated: the sum is
// rotated back, not its terms. Uses half.ts, lanes.ts and lm.ts.
//
// Weights times gains are rounded to 16 bits against the largest, and centroids to bytes, so that products
// are sums of integers.
import { f16Decode } from "./half";
import { roundInteger } from "./lanes";
import { upperCentroid } from "./lm";

const WEIGHT_MAX: f32 = 32000;
/** Centroids as bytes: the largest, 2.73, becomes 126. */
const CENTROID_FACTOR: f32 = 46;

/**
 * target += sum over t of weights[t] * values[t], values as 4-bit lm codes, left rotated.
 *
 * @param tokens At most 64, and even.
 * @param d A multiple of 128.
 * @param scratch 272 bytes.
 */
export function attendSumLm4(
  codes: usize,
  gains: usize,
  tokens: u32,
  d: u32,
  weights: usize,
  target: usize,
  scratch: usize,
): void {
  const table = scratch + 256;
  for (let index: u32 = 0; index < 8; index++) {
    const centroid = roundInteger(upperCentroid(4, index) * CENTROID_FACTOR);
    store<i8>(table + 8 + index, <i8>centroid);
    store<i8>(table + 7 - index, <i8>-centroid);
  }
  f16Decode(gains, scratch, tokens);
  let largest: f32 = 0;
  for (let token: u32 = 0; token < tokens; token++) {
    const weight = load<f32>(scratch + (token << 2)) * load<f32>(weights + (token << 2));
    store<f32>(scratch + (token << 2), weight);
    largest = max(largest, abs<f32>(weight));
  }
  if (largest == 0) return;
  const inverse = WEIGHT_MAX / largest;
  for (let token: u32 = 0; token < tokens; token++) {
    const rounded = roundInteger(load<f32>(scratch + (token << 2)) * inverse);
    store<i16>(scratch + (token << 1), <i16>rounded);
  }
  const factor = largest / WEIGHT_MAX / CENTROID_FACTOR;
  for (let row: u32 = 0; row < d >> 5; row++) {
    const from = codes + (row << 4);
    const to = target + (row << 7);
    if (ASC_FEATURE_SIMD) {
      sumRow(from, d >> 1, tokens, scratch, table, factor, to);
    } else {
      sumRowScalar(from, d >> 1, tokens, scratch, table, factor, to);
    }
  }
}

/** Adds 32 channels of all tokens. */
function sumRow(
  codes: usize,
  stride: u32,
  tokens: u32,
  weights: usize,
  table: usize,
  factor: f32,
  target: usize,
): void {
  const centroids = v128.load(table);
  const mask = i8x16.splat(15);
  let sum0 = i32x4.splat(0);
  let sum1 = i32x4.splat(0);
  let sum2 = i32x4.splat(0);
  let sum3 = i32x4.splat(0);
  let sum4 = i32x4.splat(0);
  let sum5 = i32x4.splat(0);
  let sum6 = i32x4.splat(0);
  let sum7 = i32x4.splat(0);
  for (let token: u32 = 0; token < tokens; token += 2) {
    const pair = v128.load32_splat(weights + (token << 1));
    const first = v128.load(codes);
    const second = v128.load(codes + stride);
    const lowA = i8x16.swizzle(centroids, v128.and(first, mask));
    const lowB = i8x16.swizzle(centroids, v128.and(second, mask));
    const front = interleaveLow(lowA, lowB);
    const back = interleaveHigh(lowA, lowB);
    sum0 = i32x4.add(sum0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(front), pair));
    sum1 = i32x4.add(sum1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(front), pair));
    sum2 = i32x4.add(sum2, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(back), pair));
    sum3 = i32x4.add(sum3, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(back), pair));
    const highA = i8x16.swizzle(centroids, v128.and(i16x8.shr_u(first, 4), mask));
    const highB = i8x16.swizzle(centroids, v128.and(i16x8.shr_u(second, 4), mask));
    const frontHigh = interleaveLow(highA, highB);
    const backHigh = interleaveHigh(highA, highB);
    sum4 = i32x4.add(sum4, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(frontHigh), pair));
    sum5 = i32x4.add(sum5, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(frontHigh), pair));
    sum6 = i32x4.add(sum6, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(backHigh), pair));
    sum7 = i32x4.add(sum7, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(backHigh), pair));
    codes += stride << 1;
  }
  const factors = f32x4.splat(factor);
  addScaled(target, sum0, factors);
  addScaled(target + 16, sum1, factors);
  addScaled(target + 32, sum2, factors);
  addScaled(target + 48, sum3, factors);
  addScaled(target + 64, sum4, factors);
  addScaled(target + 80, sum5, factors);
  addScaled(target + 96, sum6, factors);
  addScaled(target + 112, sum7, factors);
}

function addScaled(target: usize, sums: v128, factors: v128): void {
  const scaled = f32x4.mul(f32x4.convert_i32x4_s(sums), factors);
  v128.store(target, f32x4.add(v128.load(target), scaled));
}

function interleaveLow(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

function interleaveHigh(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

function sumRowScalar(
  codes: usize,
  stride: u32,
  tokens: u32,
  weights: usize,
  table: usize,
  factor: f32,
  target: usize,
): void {
  for (let channel: u32 = 0; channel < 32; channel++) {
    const shift: u32 = channel < 16 ? 0 : 4;
    let sum: i32 = 0;
    for (let token: u32 = 0; token < tokens; token++) {
      const byte = <u32>load<u8>(codes + token * stride + (channel & 15));
      const centroid = <i32>load<i8>(table + ((byte >> shift) & 15));
      sum += centroid * <i32>load<i16>(weights + (token << 1));
    }
    const to = target + (channel << 2);
    store<f32>(to, load<f32>(to) + <f32>sum * factor);
  }
}
