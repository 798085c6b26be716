// Attend chan: query times keys, straight on a page of chan codes (chan.ts). Uses half.ts and lanes.ts.
//
// The steps of the page are folded into the query, which is rounded to 16 bits against its largest, so
// that products are sums of integers. The factor 1/sqrt(d) is the caller's.
import { floatOfHalf } from "./half";
import { roundInteger, roundIntegers, vectorSum } from "./lanes";

const TILE_CHANNELS: u32 = 16;
/** From this many pages on, they no longer come from a cache. */
const FAR_PAGES_MIN: u32 = 64;
/** Behind a rounded query: bias and step, padded. */
const SLOT_NUMBERS_BYTES: u32 = 16;
/** 2^112: the distance between the exponents' biases of f16 and f32, as a factor. */
const BIAS_FACTOR: f32 = 5.192296858534828e33;
/** Largest rounded query: sums of products with bytes stay inside 32 bits. */
const QUERY_MAX: f32 = 16000;

/**
 * scores[t] = query . keys[t], over pages of chan codes of 8, 4 or 2 bits, one after the other. Of many
 * pages, four far apart are worked on in turns: their streams hide the memory's latency.
 *
 * @param rows Tokens of each page, a multiple of 16.
 * @param scratch 12 * `d` + 64 bytes.
 */
export function attendScoresChan(
  codes: usize,
  ranges: usize,
  pages: u32,
  rows: u32,
  d: u32,
  bits: u32,
  query: usize,
  scores: usize,
  scratch: usize,
): void {
  const far = pages >= FAR_PAGES_MIN ? pages >> 2 : 0;
  const pageBytes = (rows * d * bits) >> 3;
  const planeRows = (rows * bits) >> 3;
  const tiles = d / TILE_CHANNELS;
  const slotBytes = (d << 1) + SLOT_NUMBERS_BYTES;
  const folded = scratch + (slotBytes << 2);
  let page: u32 = 0;
  while (page < pages) {
    const streams: u32 = page < far ? 4 : 1;
    for (let stream: u32 = 0; stream < streams; stream++) {
      const at = page + stream * far;
      foldQuery(ranges + at * (d << 2), d, query, scratch + stream * slotBytes, folded);
    }
    for (let row: u32 = 0; row < planeRows; row += 2) {
      for (let stream: u32 = 0; stream < streams; stream++) {
        const at = page + stream * far;
        const from = codes + at * pageBytes + (row << 4);
        const slot = scratch + stream * slotBytes;
        const to = scores + ((at * rows + row) << 2);
        if (ASC_FEATURE_SIMD) {
          if (bits == 4) {
            scoreNibbles(from, planeRows, tiles, slot, slot + (d << 1), to);
            continue;
          }
        }
        scoreRows(from, planeRows, tiles, bits, slot, slot + (d << 1), to);
      }
    }
    page++;
    // Behind the first quarter lies what the far streams have done.
    if (far > 0 && page == far) page = far << 2;
  }
}

/** Scores of all tokens in two rows of codes. `numbers` are the bias and the step of the query. */
function scoreRows(
  codes: usize,
  planeRows: u32,
  tiles: u32,
  bits: u32,
  query: usize,
  numbers: usize,
  scores: usize,
): void {
  const tileBytes = planeRows << 4;
  const bias = load<f32>(numbers);
  const step = load<f32>(numbers, 4);
  const parts: u32 = 8 / bits;
  const mask = (1 << bits) - 1;
  for (let part: u32 = 0; part < parts; part++) {
    const to = scores + ((part * planeRows) << 2);
    if (ASC_FEATURE_SIMD) {
      scorePair(codes, tileBytes, tiles, part * bits, mask, query, bias, step, to);
    } else {
      const sum0 = rowScalar(codes, tileBytes, tiles, part * bits, mask, query);
      const sum1 = rowScalar(codes + 16, tileBytes, tiles, part * bits, mask, query);
      store<f32>(to, bias + step * <f32>sum0);
      store<f32>(to, bias + step * <f32>sum1, 4);
    }
  }
}

/**
 * Folds the steps of a page into the query, and rounds it to i16: per tile the eight even channels, then
 * the eight odd ones, as codes lie in the halves of 16-bit lanes.
 *
 * @param target The rounded query, 2 * `d` bytes; then the sum of query * minimum, and what one step of
 *   the rounded query is worth.
 * @param folded Room for `d` f32.
 */
function foldQuery(ranges: usize, d: u32, query: usize, target: usize, folded: usize): void {
  const tiles = d / TILE_CHANNELS;
  let bias: f32 = 0;
  let largest: f32 = 0;
  if (ASC_FEATURE_SIMD) {
    let sums = f32x4.splat(0);
    let maxima = f32x4.splat(0);
    for (let tile: u32 = 0; tile < tiles; tile++) {
      for (let half: u32 = 0; half < 2; half++) {
        const range = ranges + (tile << 6) + (half << 4);
        const at = (tile << 6) + (half << 5);
        const steps = v128.load(range);
        const minima = v128.load(range, 32);
        const q0 = v128.load(query + at);
        const q1 = v128.load(query + at, 16);
        const folded0 = f32x4.mul(q0, finiteHalves(i32x4.extend_low_i16x8_s(steps)));
        const folded1 = f32x4.mul(q1, finiteHalves(i32x4.extend_high_i16x8_s(steps)));
        sums = f32x4.add(sums, f32x4.mul(q0, finiteHalves(i32x4.extend_low_i16x8_s(minima))));
        sums = f32x4.add(sums, f32x4.mul(q1, finiteHalves(i32x4.extend_high_i16x8_s(minima))));
        maxima = f32x4.pmax(maxima, f32x4.abs(folded0));
        maxima = f32x4.pmax(maxima, f32x4.abs(folded1));
        v128.store(folded + at, folded0);
        v128.store(folded + at, folded1, 16);
      }
    }
    bias = vectorSum(sums);
    maxima = f32x4.pmax(maxima, i32x4.shuffle(maxima, maxima, 2, 3, 0, 1));
    largest = max(f32x4.extract_lane(maxima, 0), f32x4.extract_lane(maxima, 1));
  } else {
    let lane0: f32 = 0;
    let lane1: f32 = 0;
    let lane2: f32 = 0;
    let lane3: f32 = 0;
    for (let channel: u32 = 0; channel < d; channel++) {
      const range = ranges + ((channel >> 4) << 6) + ((channel & 15) << 1);
      const q = load<f32>(query + (channel << 2));
      const step = q * floatOfHalf(load<u16>(range));
      const product = q * floatOfHalf(load<u16>(range, 32));
      const lane = channel & 3;
      if (lane == 0) lane0 += product;
      else if (lane == 1) lane1 += product;
      else if (lane == 2) lane2 += product;
      else lane3 += product;
      largest = max(largest, abs<f32>(step));
      store<f32>(folded + (channel << 2), step);
    }
    bias = lane0 + lane1 + (lane2 + lane3);
  }
  const inverse: f32 = largest > 0 ? QUERY_MAX / largest : 0;
  for (let tile: u32 = 0; tile < tiles; tile++) {
    const from = folded + (tile << 6);
    const to = target + (tile << 5);
    if (ASC_FEATURE_SIMD) {
      const inverses = f32x4.splat(inverse);
      const low = i16x8.narrow_i32x4_s(
        roundFour(v128.load(from), inverses),
        roundFour(v128.load(from, 16), inverses),
      );
      const high = i16x8.narrow_i32x4_s(
        roundFour(v128.load(from, 32), inverses),
        roundFour(v128.load(from, 48), inverses),
      );
      v128.store(to, i16x8.shuffle(low, high, 0, 2, 4, 6, 8, 10, 12, 14));
      v128.store(to, i16x8.shuffle(low, high, 1, 3, 5, 7, 9, 11, 13, 15), 16);
    } else {
      for (let index: u32 = 0; index < TILE_CHANNELS; index++) {
        const rounded = roundInteger(load<f32>(from + (index << 2)) * inverse);
        store<i16>(to + ((index & 1) << 4) + ((index >> 1) << 1), <i16>rounded);
      }
    }
  }
  store<f32>(target + (d << 1), bias);
  store<f32>(target + (d << 1), largest / QUERY_MAX, 4);
}

/** Four f16, sign-extended to i32, as f32; infinities and NaN come out as large numbers. */
function finiteHalves(halves: v128): v128 {
  const bits = v128.and(i32x4.shl(halves, 13), i32x4.splat(0x8fffe000));
  return f32x4.mul(bits, f32x4.splat(BIAS_FACTOR));
}

function roundFour(values: v128, inverse: v128): v128 {
  return roundIntegers(f32x4.mul(values, inverse));
}

/** Scores of two rows of nibbles: two tokens each, half a page apart. */
function scoreNibbles(
  codes: usize,
  planeRows: u32,
  tiles: u32,
  query: usize,
  numbers: usize,
  scores: usize,
): void {
  const tileBytes = planeRows << 4;
  const mask = i16x8.splat(15);
  let low0 = i32x4.splat(0);
  let low1 = i32x4.splat(0);
  let high0 = i32x4.splat(0);
  let high1 = i32x4.splat(0);
  for (let tile: u32 = 0; tile < tiles; tile++) {
    const even = v128.load(query);
    const odd = v128.load(query, 16);
    const row0 = v128.load(codes);
    low0 = i32x4.add(low0, i32x4.dot_i16x8_s(v128.and(row0, mask), even));
    high0 = i32x4.add(high0, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row0, 4), mask), even));
    low0 = i32x4.add(low0, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row0, 8), mask), odd));
    high0 = i32x4.add(high0, i32x4.dot_i16x8_s(i16x8.shr_u(row0, 12), odd));
    const row1 = v128.load(codes, 16);
    low1 = i32x4.add(low1, i32x4.dot_i16x8_s(v128.and(row1, mask), even));
    high1 = i32x4.add(high1, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row1, 4), mask), even));
    low1 = i32x4.add(low1, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row1, 8), mask), odd));
    high1 = i32x4.add(high1, i32x4.dot_i16x8_s(i16x8.shr_u(row1, 12), odd));
    codes += tileBytes;
    query += 32;
  }
  const sums = f32x4.convert_i32x4_s(integerSums(low0, low1, high0, high1));
  const values = f32x4.add(
    f32x4.mul(sums, v128.load32_splat(numbers, 4)),
    v128.load32_splat(numbers),
  );
  v128.store64_lane(scores, values, 0);
  v128.store64_lane(scores + (planeRows << 2), values, 1);
}

function integerSums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = i32x4.add(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return i32x4.add(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}

/** Scores of two rows for the pieces at `shift`. */
function scorePair(
  codes: usize,
  tileBytes: u32,
  tiles: u32,
  shift: u32,
  mask: u32,
  query: usize,
  bias: f32,
  step: f32,
  scores: usize,
): void {
  const masks = i16x8.splat(<i16>mask);
  let sum0 = i32x4.splat(0);
  let sum1 = i32x4.splat(0);
  for (let tile: u32 = 0; tile < tiles; tile++) {
    const even = v128.load(query);
    const odd = v128.load(query, 16);
    const row0 = i16x8.shr_u(v128.load(codes), shift);
    const row1 = i16x8.shr_u(v128.load(codes, 16), shift);
    sum0 = i32x4.add(sum0, i32x4.dot_i16x8_s(v128.and(row0, masks), even));
    sum1 = i32x4.add(sum1, i32x4.dot_i16x8_s(v128.and(row1, masks), even));
    sum0 = i32x4.add(sum0, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row0, 8), masks), odd));
    sum1 = i32x4.add(sum1, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row1, 8), masks), odd));
    codes += tileBytes;
    query += 32;
  }
  const sums = f32x4.convert_i32x4_s(integerSums(sum0, sum1, sum0, sum1));
  const values = f32x4.add(f32x4.mul(sums, f32x4.splat(step)), f32x4.splat(bias));
  v128.store64_lane(scores, values, 0);
}

function rowScalar(
  codes: usize,
  tileBytes: u32,
  tiles: u32,
  shift: u32,
  mask: u32,
  query: usize,
): i32 {
  let sum: i32 = 0;
  for (let tile: u32 = 0; tile < tiles; tile++) {
    for (let channel: u32 = 0; channel < TILE_CHANNELS; channel++) {
      const code = (<u32>load<u8>(codes + channel) >> shift) & mask;
      const q = load<i16>(query + ((channel & 1) << 4) + ((channel >> 1) << 1));
      sum += <i32>code * <i32>q;
    }
    codes += tileBytes;
    query += 32;
  }
  return sum;
}
