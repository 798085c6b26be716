// Lm: rotated vectors with Lloyd-Max codes, 4, 3 or 2 bits, and one f16 gain per vector. For values
// whose error should not depend on what they look like. Uses half.ts, lanes.ts, pack.ts and rotate.ts.
//
//   unit    128 codes, of several vectors where those are shorter: 16 * bits bytes
//           4 bits: four rows, byte j of row i = code[32i + j] | code[32i + j + 16] << 4
//           3 bits: the low two bits as below, then one row of the high bits, 16 values apart
//           2 bits: two rows of four codes a byte, 16 values apart
//   value = transform of gain * centroid[code]
//
// Sums run in four lanes, by index modulo 4, and end as (l0 + l1) + (l2 + l3).
// Source: Lloyd, "Least Squares Quantization in PCM"; Max, "Quantizing for Minimum Distortion" — the
// centroids for a Gaussian of variance 1.
import { floatOfHalf, halfOfFloat } from "./half";
import { laneSum, vectorSum } from "./lanes";
import { packPlane, unpackPlane } from "./pack";
import { hadamard } from "./rotate";

const UNIT_VALUES: u32 = 128;
/** Offsets into the scratch: centroids, thresholds, one unit's or one vector's codes. */
const SCRATCH_THRESHOLDS: usize = 64;
const SCRATCH_PLANES: usize = 128;
const SCRATCH_CODES: usize = 192;

/** Writes 2^bits centroids, ascending, and the thresholds between them. */
function writeTable(scratch: usize, bits: u32): void {
  const half: u32 = 1 << (bits - 1);
  for (let index: u32 = 0; index < half; index++) {
    const centroid = upperCentroid(bits, index);
    store<f32>(scratch + ((half + index) << 2), centroid);
    store<f32>(scratch + ((half - 1 - index) << 2), -centroid);
  }
  const count = (half << 1) - 1;
  for (let index: u32 = 0; index < count; index++) {
    const low = load<f32>(scratch + (index << 2));
    const high = load<f32>(scratch + (index << 2), 4);
    store<f32>(scratch + (index << 2), (low + high) * 0.5, SCRATCH_THRESHOLDS);
  }
  // The centroids' bytes apart, for look-ups of sixteen at once.
  for (let index: u32 = 0; index < 16; index++) {
    const word = index <= count ? load<u32>(scratch + (index << 2)) : 0;
    for (let byte: u32 = 0; byte < 4; byte++) {
      store<u8>(scratch + SCRATCH_PLANES + (byte << 4) + index, <u8>(word >> (byte << 3)));
    }
  }
}

/** The positive centroid number `index`, from 0. */
export function upperCentroid(bits: u32, index: u32): f32 {
  if (bits == 2) return index == 0 ? 0.45278003 : 1.51041761;
  if (bits == 3) {
    if (index == 0) return 0.24509418;
    if (index == 1) return 0.75600528;
    return index == 2 ? 1.34390928 : 2.1519457;
  }
  if (index == 0) return 0.12839503;
  if (index == 1) return 0.3880483;
  if (index == 2) return 0.65675912;
  if (index == 3) return 0.94234046;
  if (index == 4) return 1.2562312;
  if (index == 5) return 1.61804639;
  return index == 6 ? 2.06901723 : 2.73258957;
}

/**
 * Encodes `count` vectors of `d` f32, which are rotated in place.
 *
 * @param source Its values are lost. `count` * `d` is a multiple of 128.
 * @param d A power of two from 32 on.
 * @param scratch 192 + max(128, `d`) bytes.
 */
export function lmEncode(
  source: usize,
  count: u32,
  d: u32,
  bits: u32,
  codes: usize,
  gains: usize,
  scratch: usize,
): void {
  writeTable(scratch, bits);
  const bytes = scratch + SCRATCH_CODES;
  let filled: u32 = 0;
  for (let vector: u32 = 0; vector < count; vector++) {
    const row = source + ((vector * d) << 2);
    hadamard(row, d);
    const inverse = inverseDeviation(row, d);
    const gain = encodeVector(row, d, bits, inverse, bytes + filled, scratch);
    store<u16>(gains + (vector << 1), halfOfFloat(gain));
    filled += d;
    let packed: u32 = 0;
    for (; packed + UNIT_VALUES <= filled; packed += UNIT_VALUES) {
      packUnit(bytes + packed, bits, codes);
      codes += bits << 4;
    }
    filled -= packed;
  }
}

/** 1 / the vector's root mean square, or 0. */
function inverseDeviation(row: usize, d: u32): f32 {
  let total: f32 = 0;
  if (ASC_FEATURE_SIMD) {
    let sums = f32x4.splat(0);
    for (let offset: u32 = 0; offset < d << 2; offset += 16) {
      const values = v128.load(row + offset);
      sums = f32x4.add(sums, f32x4.mul(values, values));
    }
    total = vectorSum(sums);
  } else {
    total = dotScalar(row, row, d);
  }
  const deviation = sqrt<f32>(total / <f32>d);
  return deviation > 0 ? 1 / deviation : 0;
}

function dotScalar(left: usize, right: usize, d: u32): f32 {
  let lane0: f32 = 0;
  let lane1: f32 = 0;
  let lane2: f32 = 0;
  let lane3: f32 = 0;
  for (let offset: u32 = 0; offset < d << 2; offset += 16) {
    lane0 += load<f32>(left + offset) * load<f32>(right + offset);
    lane1 += load<f32>(left + offset, 4) * load<f32>(right + offset, 4);
    lane2 += load<f32>(left + offset, 8) * load<f32>(right + offset, 8);
    lane3 += load<f32>(left + offset, 12) * load<f32>(right + offset, 12);
  }
  return laneSum(lane0, lane1, lane2, lane3);
}

/** Writes a vector's codes, a byte each. @returns The gain that fits them best. */
function encodeVector(
  row: usize,
  d: u32,
  bits: u32,
  inverse: f32,
  bytes: usize,
  scratch: usize,
): f32 {
  const thresholds: u32 = (1 << bits) - 1;
  let products: f32 = 0;
  let squares: f32 = 0;
  if (ASC_FEATURE_SIMD) {
    const inverses = f32x4.splat(inverse);
    let productSums = f32x4.splat(0);
    let squareSums = f32x4.splat(0);
    for (let start: u32 = 0; start < d; start += 16) {
      const from = row + (start << 2);
      const a = v128.load(from);
      const b = v128.load(from, 16);
      const c = v128.load(from, 32);
      const e = v128.load(from, 48);
      const found = codesOf(
        f32x4.mul(a, inverses),
        f32x4.mul(b, inverses),
        f32x4.mul(c, inverses),
        f32x4.mul(e, inverses),
        thresholds,
        scratch + SCRATCH_THRESHOLDS,
      );
      v128.store(bytes + start, found);
      for (let quarter: u32 = 0; quarter < 4; quarter++) {
        const centroids = centroidsOf(bytes + start + (quarter << 2), scratch);
        const values = v128.load(from + (quarter << 4));
        productSums = f32x4.add(productSums, f32x4.mul(values, centroids));
        squareSums = f32x4.add(squareSums, f32x4.mul(centroids, centroids));
      }
    }
    products = vectorSum(productSums);
    squares = vectorSum(squareSums);
  } else {
    let products0: f32 = 0;
    let products1: f32 = 0;
    let products2: f32 = 0;
    let products3: f32 = 0;
    let squares0: f32 = 0;
    let squares1: f32 = 0;
    let squares2: f32 = 0;
    let squares3: f32 = 0;
    for (let index: u32 = 0; index < d; index++) {
      const value = load<f32>(row + (index << 2));
      const scaled = value * inverse;
      let code: u32 = 0;
      for (let each: u32 = 0; each < thresholds; each++) {
        if (scaled > load<f32>(scratch + (each << 2), SCRATCH_THRESHOLDS)) code++;
      }
      store<u8>(bytes + index, <u8>code);
      const centroid = load<f32>(scratch + (code << 2));
      const lane = index & 3;
      if (lane == 0) {
        products0 += value * centroid;
        squares0 += centroid * centroid;
      } else if (lane == 1) {
        products1 += value * centroid;
        squares1 += centroid * centroid;
      } else if (lane == 2) {
        products2 += value * centroid;
        squares2 += centroid * centroid;
      } else {
        products3 += value * centroid;
        squares3 += centroid * centroid;
      }
    }
    products = laneSum(products0, products1, products2, products3);
    squares = laneSum(squares0, squares1, squares2, squares3);
  }
  return inverse > 0 ? products / squares : 0;
}

/** How many thresholds each of sixteen values exceeds, as bytes. */
function codesOf(a: v128, b: v128, c: v128, e: v128, thresholds: u32, table: usize): v128 {
  let sumA = i32x4.splat(0);
  let sumB = i32x4.splat(0);
  let sumC = i32x4.splat(0);
  let sumE = i32x4.splat(0);
  for (let each: u32 = 0; each < thresholds; each++) {
    const threshold = v128.load32_splat(table + (each << 2));
    // A comparison that holds is -1.
    sumA = i32x4.sub(sumA, f32x4.gt(a, threshold));
    sumB = i32x4.sub(sumB, f32x4.gt(b, threshold));
    sumC = i32x4.sub(sumC, f32x4.gt(c, threshold));
    sumE = i32x4.sub(sumE, f32x4.gt(e, threshold));
  }
  return i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_s(sumA, sumB), i16x8.narrow_i32x4_s(sumC, sumE));
}

/** The centroids of four codes at `bytes`. */
function centroidsOf(bytes: usize, scratch: usize): v128 {
  return f32x4(
    load<f32>(scratch + ((<usize>load<u8>(bytes)) << 2)),
    load<f32>(scratch + ((<usize>load<u8>(bytes, 1)) << 2)),
    load<f32>(scratch + ((<usize>load<u8>(bytes, 2)) << 2)),
    load<f32>(scratch + ((<usize>load<u8>(bytes, 3)) << 2)),
  );
}

/** Packs 128 codes. */
function packUnit(bytes: usize, bits: u32, target: usize): void {
  if (bits == 4) {
    for (let row: u32 = 0; row < 4; row++) {
      packPlane(bytes + (row << 5), 2, 4, 0, target + (row << 4));
    }
    return;
  }
  packPlane(bytes, 4, 2, 0, target);
  packPlane(bytes + 64, 4, 2, 0, target + 16);
  if (bits == 3) packPlane(bytes, 8, 1, 2, target + 32);
}

function unpackUnit(source: usize, bits: u32, bytes: usize): void {
  if (bits == 4) {
    for (let row: u32 = 0; row < 4; row++) {
      unpackPlane(source + (row << 4), 2, 4, 0, bytes + (row << 5));
    }
    return;
  }
  unpackPlane(source, 4, 2, 0, bytes);
  unpackPlane(source + 16, 4, 2, 0, bytes + 64);
  if (bits == 3) unpackPlane(source + 32, 8, 1, 2, bytes);
}

/**
 * Decodes `count` vectors of `d` f32.
 *
 * @param isRotatedBack 0 leaves them rotated: a weighted sum is cheaper to rotate than its terms.
 * @param scratch 192 + max(128, `d`) bytes.
 */
export function lmDecode(
  codes: usize,
  gains: usize,
  count: u32,
  d: u32,
  bits: u32,
  target: usize,
  isRotatedBack: u32,
  scratch: usize,
): void {
  writeTable(scratch, bits);
  const bytes = scratch + SCRATCH_CODES;
  for (let index: u32 = 0; index < count * d; index += UNIT_VALUES) {
    unpackUnit(codes, bits, bytes);
    codes += bits << 4;
    const to = target + (index << 2);
    // A unit's values have one gain each, which may be of several vectors.
    const span = min(d, UNIT_VALUES);
    for (let start: u32 = 0; start < UNIT_VALUES; start += span) {
      const gain = floatOfHalf(load<u16>(gains + (((index + start) / d) << 1)));
      scaleCentroids(bytes + start, span, gain, to + (start << 2), scratch);
    }
  }
  if (isRotatedBack == 0) return;
  for (let vector: u32 = 0; vector < count; vector++) hadamard(target + ((vector * d) << 2), d);
}

/** Writes gain * centroid for each of `count` codes, a multiple of 16. */
function scaleCentroids(bytes: usize, count: u32, gain: f32, target: usize, scratch: usize): void {
  if (ASC_FEATURE_SIMD) {
    const plane0 = v128.load(scratch, SCRATCH_PLANES);
    const plane1 = v128.load(scratch, SCRATCH_PLANES + 16);
    const plane2 = v128.load(scratch, SCRATCH_PLANES + 32);
    const plane3 = v128.load(scratch, SCRATCH_PLANES + 48);
    const gains = f32x4.splat(gain);
    for (let index: u32 = 0; index < count; index += 16) {
      const codes = v128.load(bytes + index);
      const byte0 = i8x16.swizzle(plane0, codes);
      const byte1 = i8x16.swizzle(plane1, codes);
      const byte2 = i8x16.swizzle(plane2, codes);
      const byte3 = i8x16.swizzle(plane3, codes);
      const low01 = interleaveLow(byte0, byte1);
      const high01 = interleaveHigh(byte0, byte1);
      const low23 = interleaveLow(byte2, byte3);
      const high23 = interleaveHigh(byte2, byte3);
      const to = target + (index << 2);
      v128.store(to, f32x4.mul(interleaveWordsLow(low01, low23), gains));
      v128.store(to, f32x4.mul(interleaveWordsHigh(low01, low23), gains), 16);
      v128.store(to, f32x4.mul(interleaveWordsLow(high01, high23), gains), 32);
      v128.store(to, f32x4.mul(interleaveWordsHigh(high01, high23), gains), 48);
    }
  } else {
    for (let index: u32 = 0; index < count; index++) {
      const centroid = load<f32>(scratch + ((<usize>load<u8>(bytes + index)) << 2));
      store<f32>(target + (index << 2), centroid * gain);
    }
  }
}

function interleaveLow(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

function interleaveHigh(a: v128, b: v128): v128 {
  return i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

function interleaveWordsLow(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

function interleaveWordsHigh(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
