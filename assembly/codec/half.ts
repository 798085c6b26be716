// Halves: f32 to and from f16 and bf16, one value or many. A leaf. Rounds to nearest, ties to even;
// beyond the range is infinity; every NaN becomes the quiet NaN of its sign (f16) or keeps its upper
// bits (bf16). Addresses need no alignment.
// Source: Maratyszcza/FP16, include/fp16/fp16.h — rounding by an addition whose exponent is chosen.

const SIGN_BIT: u32 = 0x80000000;
const INFINITY_BITS: u32 = 0x7f800000;
/** 2^112: the distance between the exponents' biases, as a factor. */
const BIAS_FACTOR: f32 = 5.192296858534828e33;
/** 2^-110. */
const UNBIAS_FACTOR: f32 = 7.703719777548943e-34;

/** The f16 nearest to `value`, in the low 16 bits. */
export function halfOfFloat(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  const sign = (bits >> 16) & 0x8000;
  const magnitude = bits & ~SIGN_BIT;
  if (magnitude > INFINITY_BITS) return sign | 0x7e00;
  // 65520 is half-way between the largest f16 and the next power of two.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Below 2^-14 the steps are equal, 2^-24: those of f32 between 1/2 and 1.
  if (magnitude < 0x38800000) {
    return sign | (reinterpret<u32>(reinterpret<f32>(magnitude) + 0.5) - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13);
}

/** The value of an f16, exactly. */
export function floatOfHalf(half: u32): f32 {
  const shifted = (half & 0x7fff) << 13;
  let bits = reinterpret<u32>(reinterpret<f32>(shifted) * BIAS_FACTOR);
  if (shifted >= 0x0f800000) bits |= INFINITY_BITS;
  return reinterpret<f32>(bits | ((half & 0x8000) << 16));
}

/** The bf16 nearest to the f32 with these bits. */
function brainOfBits(bits: u32): u32 {
  if ((bits & ~SIGN_BIT) > INFINITY_BITS) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/** Converts `count` f32 to f16. */
export function f16Encode(source: usize, target: usize, count: u32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 8 <= count; index += 8) {
      const low = halvesOfFloats(v128.load(source + (index << 2)));
      const high = halvesOfFloats(v128.load(source + (index << 2), 16));
      v128.store(target + (index << 1), i16x8.narrow_i32x4_s(low, high));
    }
  }
  for (; index < count; index++) {
    store<u16>(target + (index << 1), halfOfFloat(load<f32>(source + (index << 2))));
  }
}

/** Four f16 as i32, their signs extended. */
function halvesOfFloats(values: v128): v128 {
  const signs = v128.and(values, i32x4.splat(SIGN_BIT));
  const magnitudes = v128.xor(values, signs);
  const exponents = i32x4.max_s(
    v128.and(
      i32x4.add(magnitudes, i32x4.splat(0x07800000)),
      // An exponent beyond the range wraps to 0 here: the product below is infinite anyway.
      i32x4.splat(INFINITY_BITS),
    ),
    i32x4.splat(0x40000000),
  );
  const scaled = f32x4.mul(
    f32x4.mul(magnitudes, f32x4.splat(BIAS_FACTOR)),
    f32x4.splat(UNBIAS_FACTOR),
  );
  const rounded = f32x4.add(scaled, exponents);
  const halves = i32x4.add(
    v128.and(i32x4.shr_u(rounded, 13), i32x4.splat(0x7c00)),
    v128.and(rounded, i32x4.splat(0x0fff)),
  );
  const isNan = f32x4.ne(values, values);
  const numbers = v128.bitselect(i32x4.splat(0x7e00), halves, isNan);
  return v128.or(numbers, i32x4.shr_s(signs, 16));
}

/** Converts `count` f16 to f32. */
export function f16Decode(source: usize, target: usize, count: u32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 8 <= count; index += 8) {
      const halves = v128.load(source + (index << 1));
      const address = target + (index << 2);
      v128.store(address, floatsOfHalves(i32x4.extend_low_i16x8_u(halves)));
      v128.store(address, floatsOfHalves(i32x4.extend_high_i16x8_u(halves)), 16);
    }
  }
  for (; index < count; index++) {
    store<f32>(target + (index << 2), floatOfHalf(load<u16>(source + (index << 1))));
  }
}

function floatsOfHalves(halves: v128): v128 {
  const signs = i32x4.shl(v128.and(halves, i32x4.splat(0x8000)), 16);
  const shifted = i32x4.shl(v128.and(halves, i32x4.splat(0x7fff)), 13);
  const isBeyond = i32x4.gt_s(shifted, i32x4.splat(0x0f7fffff));
  const scaled = f32x4.mul(shifted, f32x4.splat(BIAS_FACTOR));
  return v128.or(v128.or(scaled, v128.and(isBeyond, i32x4.splat(INFINITY_BITS))), signs);
}

/** Converts `count` f32 to bf16. */
export function bf16Encode(source: usize, target: usize, count: u32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 8 <= count; index += 8) {
      const low = brainsOfFloats(v128.load(source + (index << 2)));
      const high = brainsOfFloats(v128.load(source + (index << 2), 16));
      v128.store(target + (index << 1), i16x8.narrow_i32x4_s(low, high));
    }
  }
  for (; index < count; index++) {
    store<u16>(target + (index << 1), brainOfBits(load<u32>(source + (index << 2))));
  }
}

/** Four bf16 as i32, their signs extended. */
function brainsOfFloats(values: v128): v128 {
  const odd = v128.and(i32x4.shr_u(values, 16), i32x4.splat(1));
  const rounded = i32x4.add(i32x4.add(values, i32x4.splat(0x7fff)), odd);
  const quiet = v128.or(values, i32x4.splat(0x400000));
  return i32x4.shr_s(v128.bitselect(quiet, rounded, f32x4.ne(values, values)), 16);
}

/** Converts `count` bf16 to f32. */
export function bf16Decode(source: usize, target: usize, count: u32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 8 <= count; index += 8) {
      const halves = v128.load(source + (index << 1));
      const address = target + (index << 2);
      v128.store(address, i32x4.shl(i32x4.extend_low_i16x8_u(halves), 16));
      v128.store(address, i32x4.shl(i32x4.extend_high_i16x8_u(halves), 16), 16);
    }
  }
  for (; index < count; index++) {
    store<u32>(target + (index << 2), (<u32>load<u16>(source + (index << 1))) << 16);
  }
}
