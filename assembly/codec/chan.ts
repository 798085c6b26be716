// Chan: asymmetric quantiser per channel over the tokens of a page, 1 to 8 bits. For keys, whose
// outliers keep to their channels, and for columns of weights. Uses half.ts, lanes.ts and pack.ts.
//
//   page    tiles of 16 channels, in channel order
//   tile    codes: `rows` rows of 16 codes, packed (pack.ts): rows * bits * 2 bytes
//           ranges: 16 f16 steps, 16 f16 minima: 64 bytes
//   value = code * step + minimum
//
// Steps and minima are rounded to f16 first, and codes are computed from the rounded ones. The page
// has a multiple of 8 tokens and of 16 channels. Values that are not finite make codes meaningless.
// Source: Liu et al., "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache" — the axis.
import { f16Decode, floatOfHalf, halfOfFloat } from "./half";
import { roundInteger, roundIntegers } from "./lanes";
import { packRows, ROW_BYTES, unpackRows } from "./pack";

const TILE_CHANNELS: u32 = 16;
const TILE_BYTES: u32 = 64;
const RANGE_BYTES: u32 = 64;

/**
 * Encodes a page.
 *
 * @param source f32, `rows` tokens of `stride` bytes each.
 * @param scratch 16 * `rows` bytes and 192 more.
 */
export function chanEncode(
  source: usize,
  stride: u32,
  rows: u32,
  channels: u32,
  bits: u32,
  codes: usize,
  ranges: usize,
  scratch: usize,
): void {
  const tileBytes = (rows * bits) << 1;
  for (let tile: u32 = 0; tile < channels / TILE_CHANNELS; tile++) {
    const bytes = bits == 8 ? codes : scratch;
    tileRanges(source, stride, rows, bits, ranges, scratch + rows * ROW_BYTES);
    tileCodes(source, stride, rows, bits, bytes, scratch + rows * ROW_BYTES);
    if (bits != 8) packRows(bytes, rows, bits, codes);
    source += TILE_BYTES;
    codes += tileBytes;
    ranges += RANGE_BYTES;
  }
}

/** Writes the f16 ranges of a tile, and its f32 minima and inverse steps to `widened`. */
function tileRanges(
  source: usize,
  stride: u32,
  rows: u32,
  bits: u32,
  ranges: usize,
  widened: usize,
): void {
  const share: f32 = <f32>1 / <f32>((1 << bits) - 1);
  for (let channel: u32 = 0; channel < TILE_CHANNELS; channel += 4) {
    if (ASC_FEATURE_SIMD) {
      let smallest = v128.load(source + (channel << 2));
      let largest = smallest;
      for (let row: u32 = 1; row < rows; row++) {
        const values = v128.load(source + row * stride + (channel << 2));
        smallest = f32x4.pmin(smallest, values);
        largest = f32x4.pmax(largest, values);
      }
      v128.store(widened + (channel << 2), smallest);
      v128.store(widened + (channel << 2), f32x4.sub(largest, smallest), 64);
    } else {
      for (let lane = channel; lane < channel + 4; lane++) {
        let smallest = load<f32>(source + (lane << 2));
        let largest = smallest;
        for (let row: u32 = 1; row < rows; row++) {
          const value = load<f32>(source + row * stride + (lane << 2));
          if (value < smallest) smallest = value;
          if (largest < value) largest = value;
        }
        store<f32>(widened + (lane << 2), smallest);
        store<f32>(widened + (lane << 2), largest - smallest, 64);
      }
    }
  }
  for (let channel: u32 = 0; channel < TILE_CHANNELS; channel++) {
    const step = halfOfFloat(load<f32>(widened + (channel << 2), 64) * share);
    const minimum = halfOfFloat(load<f32>(widened + (channel << 2)));
    store<u16>(ranges + (channel << 1), step);
    store<u16>(ranges + (channel << 1), minimum, 32);
    const width = floatOfHalf(step);
    store<f32>(widened + (channel << 2), floatOfHalf(minimum));
    store<f32>(widened + (channel << 2), width > 0 ? 1 / width : 0, 64);
  }
}

/** Writes a tile's codes, a byte each. */
function tileCodes(
  source: usize,
  stride: u32,
  rows: u32,
  bits: u32,
  bytes: usize,
  widened: usize,
): void {
  const codeMax: i32 = (1 << bits) - 1;
  if (ASC_FEATURE_SIMD) {
    const minimum0 = v128.load(widened);
    const minimum1 = v128.load(widened, 16);
    const minimum2 = v128.load(widened, 32);
    const minimum3 = v128.load(widened, 48);
    const inverse0 = v128.load(widened, 64);
    const inverse1 = v128.load(widened, 80);
    const inverse2 = v128.load(widened, 96);
    const inverse3 = v128.load(widened, 112);
    for (let row: u32 = 0; row < rows; row++) {
      const low = i16x8.narrow_i32x4_s(
        roundFrom(v128.load(source), minimum0, inverse0),
        roundFrom(v128.load(source, 16), minimum1, inverse1),
      );
      const high = i16x8.narrow_i32x4_s(
        roundFrom(v128.load(source, 32), minimum2, inverse2),
        roundFrom(v128.load(source, 48), minimum3, inverse3),
      );
      const clamped = i8x16.min_u(i8x16.narrow_i16x8_u(low, high), i8x16.splat(<i8>codeMax));
      v128.store(bytes, clamped);
      bytes += ROW_BYTES;
      source += stride;
    }
  } else {
    for (let row: u32 = 0; row < rows; row++) {
      for (let channel: u32 = 0; channel < TILE_CHANNELS; channel++) {
        const minimum = load<f32>(widened + (channel << 2));
        const inverse = load<f32>(widened + (channel << 2), 64);
        const scaled = (load<f32>(source + (channel << 2)) - minimum) * inverse;
        const code = roundInteger(scaled);
        store<u8>(bytes + channel, <u8>min(codeMax, max(0, code)));
      }
      bytes += ROW_BYTES;
      source += stride;
    }
  }
}

function roundFrom(values: v128, minimum: v128, inverse: v128): v128 {
  return roundIntegers(f32x4.mul(f32x4.sub(values, minimum), inverse));
}

/**
 * Decodes a page, token by token: the target is written from left to right.
 *
 * @param target f32, `rows` tokens of `stride` bytes each.
 * @param scratch (8 + `rows`) * `channels` bytes.
 */
export function chanDecode(
  codes: usize,
  ranges: usize,
  rows: u32,
  channels: u32,
  bits: u32,
  target: usize,
  stride: u32,
  scratch: usize,
): void {
  const tiles = channels / TILE_CHANNELS;
  const bytes = scratch + (channels << 3);
  for (let tile: u32 = 0; tile < tiles; tile++) {
    // Per tile: 16 steps, then 16 minima, as f32.
    f16Decode(ranges + tile * RANGE_BYTES, scratch + tile * 128, 32);
  }
  if (ASC_FEATURE_SIMD) {
    if (bits == 4) {
      decodeNibbles(codes, rows, tiles, target, stride, scratch);
      return;
    }
  }
  if (bits != 8) {
    const tileBytes = (rows * bits) << 1;
    for (let tile: u32 = 0; tile < tiles; tile++) {
      unpackRows(codes + tile * tileBytes, rows, bits, bytes + tile * rows * ROW_BYTES);
    }
  }
  decodeBytes(bits == 8 ? codes : bytes, rows, tiles, target, stride, scratch);
}

/** Decodes tiles of `rows` rows of sixteen bytes. */
function decodeBytes(
  bytes: usize,
  rows: u32,
  tiles: u32,
  target: usize,
  stride: u32,
  widened: usize,
): void {
  for (let row: u32 = 0; row < rows; row++) {
    let from = bytes + row * ROW_BYTES;
    let to = target + row * stride;
    let range = widened;
    for (let tile: u32 = 0; tile < tiles; tile++) {
      if (ASC_FEATURE_SIMD) {
        storeCodes(v128.load(from), range, to);
      } else {
        for (let channel: u32 = 0; channel < TILE_CHANNELS; channel++) {
          const step = load<f32>(range + (channel << 2));
          const minimum = load<f32>(range + (channel << 2), 64);
          store<f32>(to + (channel << 2), <f32>load<u8>(from + channel) * step + minimum);
        }
      }
      from += rows * ROW_BYTES;
      to += TILE_BYTES;
      range += 128;
    }
  }
}

/** As decodeBytes, from nibbles: two tokens, half a page apart, per row. */
function decodeNibbles(
  codes: usize,
  rows: u32,
  tiles: u32,
  target: usize,
  stride: u32,
  widened: usize,
): void {
  const rowsHalf = rows >> 1;
  const mask = i8x16.splat(15);
  for (let row: u32 = 0; row < rowsHalf; row++) {
    let from = codes + row * ROW_BYTES;
    let low = target + row * stride;
    let high = target + (row + rowsHalf) * stride;
    let range = widened;
    for (let tile: u32 = 0; tile < tiles; tile++) {
      const pairs = v128.load(from);
      storeCodes(v128.and(pairs, mask), range, low);
      storeCodes(v128.and(i16x8.shr_u(pairs, 4), mask), range, high);
      from += rowsHalf * ROW_BYTES;
      low += TILE_BYTES;
      high += TILE_BYTES;
      range += 128;
    }
  }
}

/** Sixteen values of a tile, from their codes. */
function storeCodes(codes: v128, range: usize, target: usize): void {
  const low = i16x8.extend_low_i8x16_u(codes);
  const high = i16x8.extend_high_i8x16_u(codes);
  storeFour(i32x4.extend_low_i16x8_u(low), range, target);
  storeFour(i32x4.extend_high_i16x8_u(low), range + 16, target + 16);
  storeFour(i32x4.extend_low_i16x8_u(high), range + 32, target + 32);
  storeFour(i32x4.extend_high_i16x8_u(high), range + 48, target + 48);
}

function storeFour(codes: v128, range: usize, target: usize): void {
  const scaled = f32x4.mul(f32x4.convert_i32x4_s(codes), v128.load(range));
  v128.store(target, f32x4.add(scaled, v128.load(range, 64)));
}
