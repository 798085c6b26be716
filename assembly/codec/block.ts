// Blocks: symmetric quantisers over 32 values with one f16 scale, at 8 and at 4 bits. A leaf but for
// half.ts and lanes.ts. Codes and scales lie apart, so that loads are aligned.
//
//   q8  32 x i8 a block: value = code * scale
//   q4  16 bytes a block, byte j = code[j] | code[j + 16] << 4: value = (code - 8) * scale
//
// The scale is rounded to f16 first and the codes are computed from the rounded one. The exact forms
// follow ggml's rule instead: codes from the unrounded scale, so that blocks equal ggml's.
// Encoders return 1 if every value was finite, else 0, and the codes then mean nothing.
// Source: ggml-org/llama.cpp, ggml/src/ggml-quants.c, quantize_row_q8_0_ref and
// quantize_row_q4_0_ref — the exact forms.
import { floatOfHalf, halfOfFloat } from "./half";
import { roundInteger, roundIntegers } from "./lanes";

const VALUE_BYTES: u32 = 128;
const Q8_BYTES: u32 = 32;
const Q4_BYTES: u32 = 16;
const INFINITY_BITS: u32 = 0x7f800000;
/** Bits of the f32 whose nearest f16 are normal: from 2^-14, below 65520. */
const SCALE_BITS_MIN: u32 = 0x38800000;
const SCALE_BITS_END: u32 = 0x477ff000;
/** What the bits of a normal f16, shifted by 13, lack to be those of the f32. */
const SCALE_BITS_BIAS: u32 = 0x38000000;
/** 2^-24. */
const TOP_BYTE_UNIT: f32 = 5.960464477539063e-8;
/** From this many blocks on, four streams far apart hide the memory's latency. */
const FAR_BLOCKS_MIN: u32 = 8192;

/** Blocks from one stream's to the next one's: 1 where there is one stream. */
function streamStride(blockCount: u32): u32 {
  return blockCount >= FAR_BLOCKS_MIN ? blockCount >> 2 : 1;
}

function roundVector(values: v128, inverse: v128): v128 {
  return roundIntegers(f32x4.mul(values, inverse));
}

function magnitudeOf(values: v128): v128 {
  return v128.and(values, i32x4.splat(0x7fffffff));
}

function laneMax(values: v128): u32 {
  const halves = i32x4.max_s(values, i32x4.shuffle(values, values, 2, 3, 0, 1));
  return max(i32x4.extract_lane(halves, 0), i32x4.extract_lane(halves, 1));
}

/** Largest |value| of a block, as bits: NaN and infinity sort above everything finite. */
function blockMagnitude(source: usize): u32 {
  let magnitude: u32 = 0;
  for (let index: u32 = 0; index < 32; index++) {
    magnitude = max(magnitude, load<u32>(source + (index << 2)) & 0x7fffffff);
  }
  return magnitude;
}

/** Encodes `blockCount` blocks of f32. */
export function q8Encode(source: usize, codes: usize, scales: usize, blockCount: u32): u32 {
  const stride = streamStride(blockCount);
  const whole = blockCount - (blockCount % stride);
  let isFinite: u32 = 1;
  let at: u32 = 0;
  for (let index: u32 = 0; index < whole; index++) {
    const from = source + at * VALUE_BYTES;
    const to = codes + at * Q8_BYTES;
    if (ASC_FEATURE_SIMD) {
      isFinite &= q8Block(from, to, scales + (at << 1));
    } else {
      isFinite &= q8BlockScalar(from, to, scales + (at << 1));
    }
    at += stride;
    if (at >= whole) at -= whole - 1;
  }
  for (at = whole; at < blockCount; at++) {
    const from = source + at * VALUE_BYTES;
    const to = codes + at * Q8_BYTES;
    isFinite &= q8BlockScalar(from, to, scales + (at << 1));
  }
  return isFinite;
}

/** Whether the f16 nearest to the f32 with these bits is positive, normal and finite. */
function isPlainScale(bits: u32): bool {
  return bits - SCALE_BITS_MIN < SCALE_BITS_END - SCALE_BITS_MIN;
}

/** The bits of the f32 rounded to the precision of f16, if it is a plain scale. */
function roundPlainScale(bits: u32): u32 {
  return (bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fff;
}

/** The value of an f16; the usual scales without a call. */
function scaleOf(half: u32): f32 {
  if (half - 0x0400 < 0x7800) return reinterpret<f32>((half << 13) + SCALE_BITS_BIAS);
  return floatOfHalf(half);
}

/** @returns 1 if every value was finite. */
function q8Block(source: usize, codes: usize, scale: usize): u32 {
  const a = v128.load(source);
  const b = v128.load(source, 16);
  const c = v128.load(source, 32);
  const d = v128.load(source, 48);
  const e = v128.load(source, 64);
  const f = v128.load(source, 80);
  const g = v128.load(source, 96);
  const h = v128.load(source, 112);
  const ab = i32x4.max_s(magnitudeOf(a), magnitudeOf(b));
  const cd = i32x4.max_s(magnitudeOf(c), magnitudeOf(d));
  const ef = i32x4.max_s(magnitudeOf(e), magnitudeOf(f));
  const gh = i32x4.max_s(magnitudeOf(g), magnitudeOf(h));
  const magnitudes = i32x4.max_s(i32x4.max_s(ab, cd), i32x4.max_s(ef, gh));
  const pairs = i32x4.max_s(magnitudes, i32x4.shuffle(magnitudes, magnitudes, 2, 3, 0, 1));
  const all = i32x4.max_s(pairs, i32x4.shuffle(pairs, pairs, 1, 0, 3, 2));
  const scaled = <u32>i32x4.extract_lane(f32x4.mul(all, f32x4.splat(<f32>(1.0 / 127.0))), 0);
  let inverse = f32x4.splat(0);
  let isFinite: u32 = 1;
  if (isPlainScale(scaled)) {
    const bits = roundPlainScale(scaled);
    store<u16>(scale, (bits - SCALE_BITS_BIAS) >> 13);
    inverse = f32x4.div(f32x4.splat(1), i32x4.splat(bits));
  } else {
    const half = halfOfFloat(reinterpret<f32>(scaled));
    store<u16>(scale, half);
    const step = floatOfHalf(half);
    if (step > 0) inverse = f32x4.splat(1 / step);
    isFinite = i32x4.extract_lane(all, 0) < <i32>INFINITY_BITS ? 1 : 0;
  }
  const low = i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(roundVector(a, inverse), roundVector(b, inverse)),
    i16x8.narrow_i32x4_s(roundVector(c, inverse), roundVector(d, inverse)),
  );
  const high = i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(roundVector(e, inverse), roundVector(f, inverse)),
    i16x8.narrow_i32x4_s(roundVector(g, inverse), roundVector(h, inverse)),
  );
  v128.store(codes, low);
  v128.store(codes, high, 16);
  return isFinite;
}

function q8BlockScalar(source: usize, codes: usize, scale: usize): u32 {
  const magnitude = blockMagnitude(source);
  const half = halfOfFloat(reinterpret<f32>(magnitude) * <f32>(1.0 / 127.0));
  store<u16>(scale, half);
  const step = floatOfHalf(half);
  const inverse: f32 = step > 0 ? 1 / step : 0;
  for (let index: u32 = 0; index < 32; index++) {
    const code = roundInteger(load<f32>(source + (index << 2)) * inverse);
    store<i8>(codes + index, <i8>min(127, max(-128, code)));
  }
  return magnitude < INFINITY_BITS ? 1 : 0;
}

/** Decodes `blockCount` blocks to f32. */
export function q8Decode(codes: usize, scales: usize, target: usize, blockCount: u32): void {
  const stride = streamStride(blockCount);
  const whole = blockCount - (blockCount % stride);
  let at: u32 = 0;
  for (let index: u32 = 0; index < whole; index++) {
    const step = scaleOf(load<u16>(scales + (at << 1)));
    if (ASC_FEATURE_SIMD) {
      q8UnpackBlock(codes + at * Q8_BYTES, step, target + at * VALUE_BYTES);
    } else {
      q8UnpackScalar(codes + at * Q8_BYTES, step, target + at * VALUE_BYTES);
    }
    at += stride;
    if (at >= whole) at -= whole - 1;
  }
  for (at = whole; at < blockCount; at++) {
    const step = floatOfHalf(load<u16>(scales + (at << 1)));
    q8UnpackScalar(codes + at * Q8_BYTES, step, target + at * VALUE_BYTES);
  }
}

/**
 * A block's 32 values. A code comes into the top byte of its lane, which makes 2^24 times the code,
 * exactly, by interleaving with zeros: cheaper than extending the sign twice.
 */
function q8UnpackBlock(codes: usize, step: f32, target: usize): void {
  const steps = f32x4.splat(step * TOP_BYTE_UNIT);
  const front = v128.load(codes);
  const a = halfwordsLow(front);
  const b = halfwordsHigh(front);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(a)), steps));
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(a)), steps), 16);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(b)), steps), 32);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(b)), steps), 48);
  const back = v128.load(codes, 16);
  const c = halfwordsLow(back);
  const d = halfwordsHigh(back);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(c)), steps), 64);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(c)), steps), 80);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(d)), steps), 96);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(d)), steps), 112);
}

function halfwordsLow(codes: v128): v128 {
  const zero = i8x16.splat(0);
  return i8x16.shuffle(zero, codes, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

function halfwordsHigh(codes: v128): v128 {
  const zero = i8x16.splat(0);
  return i8x16.shuffle(zero, codes, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

function wordsLow(halfwords: v128): v128 {
  return i16x8.shuffle(i8x16.splat(0), halfwords, 0, 8, 1, 9, 2, 10, 3, 11);
}

function wordsHigh(halfwords: v128): v128 {
  return i16x8.shuffle(i8x16.splat(0), halfwords, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** Sixteen i8 times `steps`, which is in units of the top byte, as f32. */
function storeBytes(codes: v128, steps: v128, target: usize): void {
  const low = halfwordsLow(codes);
  const high = halfwordsHigh(codes);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(low)), steps));
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(low)), steps), 16);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsLow(high)), steps), 32);
  v128.store(target, f32x4.mul(f32x4.convert_i32x4_s(wordsHigh(high)), steps), 48);
}

function q8UnpackScalar(codes: usize, step: f32, target: usize): void {
  for (let index: u32 = 0; index < 32; index++) {
    store<f32>(target + (index << 2), <f32>load<i8>(codes + index) * step);
  }
}

/** Encodes `blockCount` blocks of f32. */
export function q4Encode(source: usize, codes: usize, scales: usize, blockCount: u32): u32 {
  let magnitudeMax: u32 = 0;
  for (let block: u32 = 0; block < blockCount; block++) {
    const from = source + block * VALUE_BYTES;
    const magnitude = ASC_FEATURE_SIMD
      ? q4Block(from, codes + block * Q4_BYTES, scales + (block << 1))
      : q4BlockScalar(from, codes + block * Q4_BYTES, scales + (block << 1));
    magnitudeMax = max(magnitudeMax, magnitude);
  }
  return magnitudeMax < INFINITY_BITS ? 1 : 0;
}

/** Scale of a block whose largest and smallest values are these: the extreme becomes code 0. */
function q4Scale(smallest: f32, largest: f32): u32 {
  return halfOfFloat((-smallest > largest ? smallest : largest) * -0.125);
}

function q4Block(source: usize, codes: usize, scale: usize): u32 {
  let smallest = v128.load(source);
  let largest = smallest;
  let magnitudes = magnitudeOf(smallest);
  for (let offset: u32 = 16; offset < VALUE_BYTES; offset += 16) {
    const values = v128.load(source + offset);
    smallest = f32x4.pmin(smallest, values);
    largest = f32x4.pmax(largest, values);
    magnitudes = i32x4.max_s(magnitudes, magnitudeOf(values));
  }
  smallest = f32x4.pmin(smallest, i32x4.shuffle(smallest, smallest, 2, 3, 0, 1));
  largest = f32x4.pmax(largest, i32x4.shuffle(largest, largest, 2, 3, 0, 1));
  smallest = f32x4.pmin(smallest, i32x4.shuffle(smallest, smallest, 1, 0, 3, 2));
  largest = f32x4.pmax(largest, i32x4.shuffle(largest, largest, 1, 0, 3, 2));
  const half = q4Scale(f32x4.extract_lane(smallest, 0), f32x4.extract_lane(largest, 0));
  store<u16>(scale, half);
  const step = floatOfHalf(half);
  const inverse = f32x4.splat(step != 0 ? 1 / step : 0);
  const low = q4Codes(source, inverse);
  const high = q4Codes(source + 64, inverse);
  v128.store(codes, v128.or(low, i16x8.shl(high, 4)));
  return laneMax(magnitudes);
}

/** Sixteen codes from 0 to 15, a byte each. */
function q4Codes(source: usize, inverse: v128): v128 {
  const bytes = i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(
      roundVector(v128.load(source), inverse),
      roundVector(v128.load(source, 16), inverse),
    ),
    i16x8.narrow_i32x4_s(
      roundVector(v128.load(source, 32), inverse),
      roundVector(v128.load(source, 48), inverse),
    ),
  );
  const clamped = i8x16.min_s(i8x16.max_s(bytes, i8x16.splat(-8)), i8x16.splat(7));
  return i8x16.add(clamped, i8x16.splat(8));
}

function q4BlockScalar(source: usize, codes: usize, scale: usize): u32 {
  let smallest = load<f32>(source);
  let largest = smallest;
  for (let index: u32 = 1; index < 32; index++) {
    const value = load<f32>(source + (index << 2));
    if (value < smallest) smallest = value;
    if (value > largest) largest = value;
  }
  const half = q4Scale(smallest, largest);
  store<u16>(scale, half);
  const step = floatOfHalf(half);
  const inverse: f32 = step != 0 ? 1 / step : 0;
  for (let index: u32 = 0; index < Q4_BYTES; index++) {
    const low = roundInteger(load<f32>(source + (index << 2)) * inverse);
    const high = roundInteger(load<f32>(source + (index << 2), 64) * inverse);
    const pair = min(7, max(-8, low)) + 8 + ((min(7, max(-8, high)) + 8) << 4);
    store<u8>(codes + index, <u8>pair);
  }
  return blockMagnitude(source);
}

/** Decodes `blockCount` blocks to f32. */
export function q4Decode(codes: usize, scales: usize, target: usize, blockCount: u32): void {
  for (let block: u32 = 0; block < blockCount; block++) {
    const step = floatOfHalf(load<u16>(scales + (block << 1)));
    const from = codes + block * Q4_BYTES;
    const to = target + block * VALUE_BYTES;
    if (ASC_FEATURE_SIMD) {
      const pairs = v128.load(from);
      const steps = f32x4.splat(step * TOP_BYTE_UNIT);
      const mask = i8x16.splat(15);
      const low = v128.and(pairs, mask);
      const high = v128.and(i16x8.shr_u(pairs, 4), mask);
      storeBytes(i8x16.sub(low, i8x16.splat(8)), steps, to);
      storeBytes(i8x16.sub(high, i8x16.splat(8)), steps, to + 64);
    } else {
      for (let index: u32 = 0; index < Q4_BYTES; index++) {
        const pair = <i32>load<u8>(from + index);
        store<f32>(to + (index << 2), <f32>((pair & 15) - 8) * step);
        store<f32>(to + (index << 2), <f32>((pair >> 4) - 8) * step, 64);
      }
    }
  }
}

/** As q8Encode, by ggml's rule. */
export function q8EncodeExact(source: usize, codes: usize, scales: usize, blockCount: u32): u32 {
  let magnitudeMax: u32 = 0;
  for (let block: u32 = 0; block < blockCount; block++) {
    const from = source + block * VALUE_BYTES;
    const magnitude = blockMagnitude(from);
    magnitudeMax = max(magnitudeMax, magnitude);
    const step = reinterpret<f32>(magnitude) / 127;
    const inverse: f32 = step != 0 ? 1 / step : 0;
    store<u16>(scales + (block << 1), halfOfFloat(step));
    for (let index: u32 = 0; index < 32; index++) {
      const scaled = load<f32>(from + (index << 2)) * inverse;
      // Ties go away from zero.
      const whole = trunc<f32>(scaled);
      const away: f32 = abs<f32>(scaled - whole) >= 0.5 ? copysign<f32>(1, scaled) : 0;
      store<i8>(codes + block * Q8_BYTES + index, <i8>(<i32>(whole + away)));
    }
  }
  return magnitudeMax < INFINITY_BITS ? 1 : 0;
}

/** As q4Encode, by ggml's rule. */
export function q4EncodeExact(source: usize, codes: usize, scales: usize, blockCount: u32): u32 {
  let magnitudeMax: u32 = 0;
  for (let block: u32 = 0; block < blockCount; block++) {
    const from = source + block * VALUE_BYTES;
    let extreme: f32 = 0;
    for (let index: u32 = 0; index < 32; index++) {
      const value = load<f32>(from + (index << 2));
      if (abs<f32>(value) > abs<f32>(extreme)) extreme = value;
    }
    magnitudeMax = max(magnitudeMax, blockMagnitude(from));
    const step = extreme / -8;
    const inverse: f32 = step != 0 ? 1 / step : 0;
    store<u16>(scales + (block << 1), halfOfFloat(step));
    for (let index: u32 = 0; index < Q4_BYTES; index++) {
      const low = <i32>(load<f32>(from + (index << 2)) * inverse + 8.5);
      const high = <i32>(load<f32>(from + (index << 2), 64) * inverse + 8.5);
      store<u8>(codes + block * Q4_BYTES + index, <u8>(min(15, low) | (min(15, high) << 4)));
    }
  }
  return magnitudeMax < INFINITY_BITS ? 1 : 0;
}
