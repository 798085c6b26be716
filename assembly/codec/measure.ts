// Measure: how far decoded values are from the original, and what a page looks like before anything is
// encoded. Uses lanes.ts. Sums are f64 in four lanes, so they are the same on every engine.
//
//   error byte  0           8           16
//               ┌───────────┬───────────┬──────────┐
//               │ Σ(x − y)² │ Σ x²      │ max|x−y| │   f64, f64, f64
//               └───────────┴───────────┴──────────┘
//
//   scan byte   0           8           16          24          32          40
//               ┌───────────┬───────────┬───────────┬───────────┬───────────┐
//               │ Σ x²      │ Σ block   │ Σ channel │ range     │ magnitude │   f64 x 4, u32 (bits)
//               └───────────┴───────────┴───────────┴───────────┴───────────┘
import { vectorSum } from "./lanes";

/** Adds `count` values to the error at `target`. A value that is not finite makes it NaN. */
export function measureError(source: usize, decoded: usize, count: u32, target: usize): void {
  let errors: f64 = 0;
  let squares: f64 = 0;
  let largest = load<f64>(target, 16);
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    let errorsLow = f64x2.splat(0);
    let errorsHigh = f64x2.splat(0);
    let squaresLow = f64x2.splat(0);
    let squaresHigh = f64x2.splat(0);
    let maxima = f32x4.splat(0);
    for (; index + 4 <= count; index += 4) {
      const x = v128.load(source + (index << 2));
      const difference = f32x4.sub(x, v128.load(decoded + (index << 2)));
      maxima = f32x4.pmax(maxima, f32x4.abs(difference));
      const low = f64x2.promote_low_f32x4(difference);
      const high = f64x2.promote_low_f32x4(i32x4.shuffle(difference, difference, 2, 3, 0, 1));
      errorsLow = f64x2.add(errorsLow, f64x2.mul(low, low));
      errorsHigh = f64x2.add(errorsHigh, f64x2.mul(high, high));
      const xLow = f64x2.promote_low_f32x4(x);
      const xHigh = f64x2.promote_low_f32x4(i32x4.shuffle(x, x, 2, 3, 0, 1));
      squaresLow = f64x2.add(squaresLow, f64x2.mul(xLow, xLow));
      squaresHigh = f64x2.add(squaresHigh, f64x2.mul(xHigh, xHigh));
    }
    errors =
      f64x2.extract_lane(errorsLow, 0) +
      f64x2.extract_lane(errorsLow, 1) +
      (f64x2.extract_lane(errorsHigh, 0) + f64x2.extract_lane(errorsHigh, 1));
    squares =
      f64x2.extract_lane(squaresLow, 0) +
      f64x2.extract_lane(squaresLow, 1) +
      (f64x2.extract_lane(squaresHigh, 0) + f64x2.extract_lane(squaresHigh, 1));
    largest = max(largest, <f64>f32x4.extract_lane(maxima, 0));
    largest = max(largest, <f64>f32x4.extract_lane(maxima, 1));
    largest = max(largest, <f64>f32x4.extract_lane(maxima, 2));
    largest = max(largest, <f64>f32x4.extract_lane(maxima, 3));
  } else {
    let errors0: f64 = 0;
    let errors1: f64 = 0;
    let errors2: f64 = 0;
    let errors3: f64 = 0;
    let squares0: f64 = 0;
    let squares1: f64 = 0;
    let squares2: f64 = 0;
    let squares3: f64 = 0;
    for (; index + 4 <= count; index += 4) {
      const from = source + (index << 2);
      const with_ = decoded + (index << 2);
      const e0 = load<f32>(from) - load<f32>(with_);
      const e1 = load<f32>(from, 4) - load<f32>(with_, 4);
      const e2 = load<f32>(from, 8) - load<f32>(with_, 8);
      const e3 = load<f32>(from, 12) - load<f32>(with_, 12);
      errors0 += <f64>e0 * <f64>e0;
      errors1 += <f64>e1 * <f64>e1;
      errors2 += <f64>e2 * <f64>e2;
      errors3 += <f64>e3 * <f64>e3;
      squares0 += <f64>load<f32>(from) * <f64>load<f32>(from);
      squares1 += <f64>load<f32>(from, 4) * <f64>load<f32>(from, 4);
      squares2 += <f64>load<f32>(from, 8) * <f64>load<f32>(from, 8);
      squares3 += <f64>load<f32>(from, 12) * <f64>load<f32>(from, 12);
      largest = max(
        largest,
        <f64>max(max(abs<f32>(e0), abs<f32>(e1)), max(abs<f32>(e2), abs<f32>(e3))),
      );
    }
    errors = errors0 + errors1 + (errors2 + errors3);
    squares = squares0 + squares1 + (squares2 + squares3);
  }
  for (; index < count; index++) {
    const x = load<f32>(source + (index << 2));
    const difference = x - load<f32>(decoded + (index << 2));
    errors += <f64>difference * <f64>difference;
    squares += <f64>x * <f64>x;
    largest = max(largest, <f64>abs<f32>(difference));
  }
  store<f64>(target, load<f64>(target) + errors);
  store<f64>(target, load<f64>(target, 8) + squares, 8);
  store<f64>(target, largest, 16);
}

/**
 * Adds a page to the scan at `target`: squares; 32 * (largest magnitude)² of each block of 32 in a
 * row; `rows` * range² of each channel; the largest range and the largest magnitude of all.
 *
 * @param columns Columns behind the last multiple of 16 are left out.
 * @param scratch 8 * `columns` bytes.
 */
export function measurePage(
  source: usize,
  stride: u32,
  rows: u32,
  columns: u32,
  target: usize,
  scratch: usize,
): void {
  const width = columns & ~15;
  const largestAt = scratch + (columns << 2);
  let magnitude = load<u32>(target, 32);
  let widest = load<f64>(target, 24);
  let squares: f64 = 0;
  let blocks: f64 = 0;
  let channels: f64 = 0;
  memory.copy(scratch, source, width << 2);
  memory.copy(largestAt, source, width << 2);
  for (let row: u32 = 0; row < rows; row++) {
    const from = source + row * stride;
    for (let column: u32 = 0; column < width; column += 32) {
      const span = min(32, width - column);
      let sum: f32 = 0;
      let blockMagnitude: u32 = 0;
      if (ASC_FEATURE_SIMD) {
        let sums = f32x4.splat(0);
        let magnitudes = i32x4.splat(0);
        for (let index = column; index < column + span; index += 4) {
          const x = v128.load(from + (index << 2));
          sums = f32x4.add(sums, f32x4.mul(x, x));
          magnitudes = i32x4.max_s(magnitudes, v128.and(x, i32x4.splat(0x7fffffff)));
          const low = scratch + (index << 2);
          const high = largestAt + (index << 2);
          v128.store(low, f32x4.pmin(v128.load(low), x));
          v128.store(high, f32x4.pmax(v128.load(high), x));
        }
        sum = vectorSum(sums);
        magnitudes = i32x4.max_s(magnitudes, i32x4.shuffle(magnitudes, magnitudes, 2, 3, 0, 1));
        blockMagnitude = max(i32x4.extract_lane(magnitudes, 0), i32x4.extract_lane(magnitudes, 1));
      } else {
        let sum0: f32 = 0;
        let sum1: f32 = 0;
        let sum2: f32 = 0;
        let sum3: f32 = 0;
        for (let index = column; index < column + span; index++) {
          const x = load<f32>(from + (index << 2));
          const lane = index & 3;
          if (lane == 0) sum0 += x * x;
          else if (lane == 1) sum1 += x * x;
          else if (lane == 2) sum2 += x * x;
          else sum3 += x * x;
          blockMagnitude = max(blockMagnitude, reinterpret<u32>(x) & 0x7fffffff);
          const low = scratch + (index << 2);
          const high = largestAt + (index << 2);
          if (x < load<f32>(low)) store<f32>(low, x);
          if (load<f32>(high) < x) store<f32>(high, x);
        }
        sum = sum0 + sum1 + (sum2 + sum3);
      }
      squares += <f64>sum;
      magnitude = max(magnitude, blockMagnitude);
      const peak = <f64>reinterpret<f32>(blockMagnitude);
      blocks += <f64>span * peak * peak;
    }
  }
  for (let column: u32 = 0; column < width; column++) {
    const range =
      <f64>load<f32>(largestAt + (column << 2)) - <f64>load<f32>(scratch + (column << 2));
    channels += <f64>rows * range * range;
    widest = max(widest, range);
  }
  store<f64>(target, load<f64>(target) + squares);
  store<f64>(target, load<f64>(target, 8) + blocks, 8);
  store<f64>(target, load<f64>(target, 16) + channels, 16);
  store<f64>(target, widest, 24);
  store<u32>(target, magnitude, 32);
}

/** Counts the `count` values, 4 apart at `step`, by the top 11 bits of their magnitude: 2048 x u32. */
export function measureMagnitudes(source: usize, count: u32, step: u32, target: usize): void {
  for (let index: u32 = 0; index < count; index++) {
    const bin = (load<u32>(source) & 0x7fffffff) >> 20;
    const entry = target + (bin << 2);
    store<u32>(entry, load<u32>(entry) + 1);
    source += step;
  }
}

/** Multiplies `count` f32 by `factor`; target and source may be the same. */
export function scaleValues(source: usize, target: usize, count: u32, factor: f32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const factors = f32x4.splat(factor);
    for (; index + 4 <= count; index += 4) {
      v128.store(target + (index << 2), f32x4.mul(v128.load(source + (index << 2)), factors));
    }
  }
  for (; index < count; index++) {
    store<f32>(target + (index << 2), load<f32>(source + (index << 2)) * factor);
  }
}

/** Largest magnitude of `count` f32, as bits: at least 0x7f800000 if one is not finite. */
export function measureMagnitude(source: usize, count: u32): u32 {
  let magnitude: u32 = 0;
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    let magnitudes = i32x4.splat(0);
    for (; index + 4 <= count; index += 4) {
      const x = v128.load(source + (index << 2));
      magnitudes = i32x4.max_s(magnitudes, v128.and(x, i32x4.splat(0x7fffffff)));
    }
    magnitudes = i32x4.max_s(magnitudes, i32x4.shuffle(magnitudes, magnitudes, 2, 3, 0, 1));
    magnitude = max(i32x4.extract_lane(magnitudes, 0), i32x4.extract_lane(magnitudes, 1));
  }
  for (; index < count; index++) {
    magnitude = max(magnitude, load<u32>(source + (index << 2)) & 0x7fffffff);
  }
  return magnitude;
}
