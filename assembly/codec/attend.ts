// Attend: query times keys, and the weighted sum of values, straight on compressed pages. Uses half.ts
// and lm.ts. Layouts are those of block.ts, chan.ts and lm.ts.
//
// Queries and weights are rounded to 16 bits, against the largest of each, so that products are sums of
// integers: the same on every engine, and more to a register. The factor 1/sqrt(d) is the caller's.
import { f16Decode, floatOfHalf } from "./half";
import { upperCentroid } from "./lm";

const TILE_CHANNELS: u32 = 16;
const RANGE_BYTES: u32 = 64;
const ROUNDER: f32 = 12582912.0;
const ROUNDER_BITS: i32 = 0x4b400000;
/** Largest rounded query: sums of products with bytes stay inside 32 bits. */
const QUERY_MAX: f32 = 16000;
const WEIGHT_MAX: f32 = 32000;
/** Centroids as bytes: the largest, 2.73, becomes 126. */
const CENTROID_FACTOR: f32 = 46;
/** Tokens whose scales are widened at once, per stream. */
const SCALE_TOKENS: u32 = 32;

function roundInteger(value: f32): i32 {
  return reinterpret<i32>(value + ROUNDER) - ROUNDER_BITS;
}

/** The sums of four registers' lanes, in their order. */
function sumsOf(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return f32x4.add(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}

/** scores[t] = query . keys[t], in f32. `d` is a multiple of 4. */
export function attendScoresF32(
  keys: usize,
  tokens: u32,
  d: u32,
  query: usize,
  scores: usize,
): void {
  const rowBytes = d << 2;
  const quarter = tokens >> 2;
  let token: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    // Four tokens far apart: four streams hide the memory's latency.
    const far = quarter * rowBytes;
    for (; token < quarter; token++) {
      const from = keys + token * rowBytes;
      let a = f32x4.splat(0);
      let b = f32x4.splat(0);
      let c = f32x4.splat(0);
      let e = f32x4.splat(0);
      for (let offset: u32 = 0; offset < rowBytes; offset += 16) {
        const q = v128.load(query + offset);
        const at = from + offset;
        a = f32x4.add(a, f32x4.mul(q, v128.load(at)));
        b = f32x4.add(b, f32x4.mul(q, v128.load(at + far)));
        c = f32x4.add(c, f32x4.mul(q, v128.load(at + far * 2)));
        e = f32x4.add(e, f32x4.mul(q, v128.load(at + far * 3)));
      }
      const sums = sumsOf(a, b, c, e);
      store<f32>(scores + (token << 2), f32x4.extract_lane(sums, 0));
      store<f32>(scores + ((token + quarter) << 2), f32x4.extract_lane(sums, 1));
      store<f32>(scores + ((token + quarter * 2) << 2), f32x4.extract_lane(sums, 2));
      store<f32>(scores + ((token + quarter * 3) << 2), f32x4.extract_lane(sums, 3));
    }
    token = quarter << 2;
  }
  for (; token < tokens; token++) {
    store<f32>(scores + (token << 2), dotScalar(keys + token * rowBytes, query, d));
  }
}

/** The sum that sumsOf gives for products in four lanes. */
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
  return lane0 + lane2 + (lane1 + lane3);
}

/**
 * scores[t] = query . keys[t], keys in q8 blocks.
 *
 * @param d A multiple of 32.
 * @param scratch 2 * `d` + `d` / 8 + 16 * `d` bytes.
 */
export function attendScoresQ8(
  codes: usize,
  scales: usize,
  tokens: u32,
  d: u32,
  query: usize,
  scores: usize,
  scratch: usize,
): void {
  const blocks = d >> 5;
  const steps = scratch + (d << 1);
  for (let block: u32 = 0; block < blocks; block++) {
    const step = roundQuery(query + (block << 7), 32, scratch + (block << 6));
    store<f32>(steps + (block << 2), step);
  }
  const quarter = tokens >> 2;
  let token: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const widened = steps + (blocks << 2);
    for (; token < quarter; token += SCALE_TOKENS) {
      const count = min(SCALE_TOKENS, quarter - token);
      for (let stream: u32 = 0; stream < 4; stream++) {
        const from = scales + (token + stream * quarter) * (blocks << 1);
        f16Decode(from, widened + stream * SCALE_TOKENS * (blocks << 2), count * blocks);
      }
      scoreTokens(codes, token, count, quarter, d, scratch, widened, scores);
    }
    token = quarter << 2;
  }
  for (; token < tokens; token++) {
    const score = scoreScalar(codes + token * d, scales + token * (blocks << 1), d, scratch);
    store<f32>(scores + (token << 2), score);
  }
}

/** Rounds `count` values to i16 at `target`. @returns What one step is worth. */
function roundQuery(query: usize, count: u32, target: usize): f32 {
  let largest: f32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    largest = max(largest, abs<f32>(load<f32>(query + (index << 2))));
  }
  const inverse: f32 = largest > 0 ? QUERY_MAX / largest : 0;
  for (let index: u32 = 0; index < count; index++) {
    const rounded = roundInteger(load<f32>(query + (index << 2)) * inverse);
    store<i16>(target + (index << 1), <i16>rounded);
  }
  return largest / QUERY_MAX;
}

/** Scores of `count` tokens in each of four streams. */
function scoreTokens(
  codes: usize,
  first: u32,
  count: u32,
  quarter: u32,
  d: u32,
  query: usize,
  widened: usize,
  scores: usize,
): void {
  const blocks = d >> 5;
  const steps = query + (d << 1);
  const far = quarter * d;
  const farScales = SCALE_TOKENS * (blocks << 2);
  for (let each: u32 = 0; each < count; each++) {
    const token = first + each;
    let from = codes + token * d;
    let scale = widened + each * (blocks << 2);
    let a = f32x4.splat(0);
    let b = f32x4.splat(0);
    let c = f32x4.splat(0);
    let e = f32x4.splat(0);
    let q = query;
    for (let block: u32 = 0; block < blocks; block++) {
      const q0 = v128.load(q);
      const q1 = v128.load(q, 16);
      const q2 = v128.load(q, 32);
      const q3 = v128.load(q, 48);
      const step = v128.load32_splat(steps + (block << 2));
      const scaleA = f32x4.mul(v128.load32_splat(scale), step);
      a = f32x4.add(a, f32x4.mul(blockDot(from, q0, q1, q2, q3), scaleA));
      const scaleB = f32x4.mul(v128.load32_splat(scale + farScales), step);
      b = f32x4.add(b, f32x4.mul(blockDot(from + far, q0, q1, q2, q3), scaleB));
      const scaleC = f32x4.mul(v128.load32_splat(scale + farScales * 2), step);
      c = f32x4.add(c, f32x4.mul(blockDot(from + far * 2, q0, q1, q2, q3), scaleC));
      const scaleE = f32x4.mul(v128.load32_splat(scale + farScales * 3), step);
      e = f32x4.add(e, f32x4.mul(blockDot(from + far * 3, q0, q1, q2, q3), scaleE));
      from += 32;
      scale += 4;
      q += 64;
    }
    const sums = sumsOf(a, b, c, e);
    store<f32>(scores + (token << 2), f32x4.extract_lane(sums, 0));
    store<f32>(scores + ((token + quarter) << 2), f32x4.extract_lane(sums, 1));
    store<f32>(scores + ((token + quarter * 2) << 2), f32x4.extract_lane(sums, 2));
    store<f32>(scores + ((token + quarter * 3) << 2), f32x4.extract_lane(sums, 3));
  }
}

/** Integer products of a block with the query, in four lanes, as f32. */
function blockDot(codes: usize, q0: v128, q1: v128, q2: v128, q3: v128): v128 {
  const low = v128.load(codes);
  const high = v128.load(codes, 16);
  const front = i32x4.add(
    i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(low), q0),
    i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(low), q1),
  );
  const back = i32x4.add(
    i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(high), q2),
    i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(high), q3),
  );
  return f32x4.convert_i32x4_s(i32x4.add(front, back));
}

function scoreScalar(codes: usize, scales: usize, d: u32, query: usize): f32 {
  const steps = query + (d << 1);
  let lane0: f32 = 0;
  let lane1: f32 = 0;
  let lane2: f32 = 0;
  let lane3: f32 = 0;
  for (let block: u32 = 0; block < d >> 5; block++) {
    const scale = floatOfHalf(load<u16>(scales + (block << 1))) * load<f32>(steps + (block << 2));
    const from = codes + (block << 5);
    const q = query + (block << 6);
    lane0 += <f32>laneProducts(from, q, 0) * scale;
    lane1 += <f32>laneProducts(from, q, 2) * scale;
    lane2 += <f32>laneProducts(from, q, 4) * scale;
    lane3 += <f32>laneProducts(from, q, 6) * scale;
  }
  return lane0 + lane2 + (lane1 + lane3);
}

/** Products of the codes at `lane` and `lane` + 1 of each eight. */
function laneProducts(codes: usize, query: usize, lane: u32): i32 {
  let sum: i32 = 0;
  for (let index = lane; index < 32; index += 8) {
    sum += <i32>load<i8>(codes + index) * <i32>load<i16>(query + (index << 1));
    sum += <i32>load<i8>(codes + index, 1) * <i32>load<i16>(query + (index << 1), 2);
  }
  return sum;
}

/**
 * scores[t] = query . keys[t], over one page of chan codes of 8, 4 or 2 bits.
 *
 * @param rows Tokens of the page, a multiple of 16.
 * @param scratch 6 * `d` bytes.
 */
export function attendScoresChan(
  codes: usize,
  ranges: usize,
  rows: u32,
  d: u32,
  bits: u32,
  query: usize,
  scores: usize,
  scratch: usize,
): void {
  const folded = scratch + (d << 1);
  const bias = foldQuery(ranges, d, query, folded);
  const step = roundFolded(folded, d, scratch);
  const tiles = d / TILE_CHANNELS;
  const planeRows = (rows * bits) >> 3;
  const parts: u32 = 8 / bits;
  const mask = (1 << bits) - 1;
  const tileBytes = planeRows << 4;
  for (let row: u32 = 0; row < planeRows; row += 2) {
    const from = codes + (row << 4);
    if (ASC_FEATURE_SIMD) {
      if (bits == 4) {
        scoreNibbles(from, tileBytes, tiles, scratch, bias, step, scores + (row << 2), planeRows);
        continue;
      }
      for (let part: u32 = 0; part < parts; part++) {
        const to = scores + ((row + part * planeRows) << 2);
        scorePair(from, tileBytes, tiles, part * bits, mask, scratch, bias, step, to);
      }
    } else {
      for (let part: u32 = 0; part < parts; part++) {
        const to = scores + ((row + part * planeRows) << 2);
        const sum0 = rowScalar(from, tileBytes, tiles, part * bits, mask, scratch);
        const sum1 = rowScalar(from + 16, tileBytes, tiles, part * bits, mask, scratch);
        store<f32>(to, bias + step * <f32>sum0);
        store<f32>(to, bias + step * <f32>sum1, 4);
      }
    }
  }
}

/** Writes query * step of each channel. @returns Sum of query * minimum, in four lanes. */
function foldQuery(ranges: usize, d: u32, query: usize, folded: usize): f32 {
  let lane0: f32 = 0;
  let lane1: f32 = 0;
  let lane2: f32 = 0;
  let lane3: f32 = 0;
  for (let tile: u32 = 0; tile < d / TILE_CHANNELS; tile++) {
    const range = ranges + tile * RANGE_BYTES;
    // The minima go where the folded query comes, and are used up first.
    const to = folded + (tile << 6);
    const q = query + (tile << 6);
    f16Decode(range + 32, to, TILE_CHANNELS);
    for (let offset: u32 = 0; offset < 64; offset += 16) {
      lane0 += load<f32>(q + offset) * load<f32>(to + offset);
      lane1 += load<f32>(q + offset, 4) * load<f32>(to + offset, 4);
      lane2 += load<f32>(q + offset, 8) * load<f32>(to + offset, 8);
      lane3 += load<f32>(q + offset, 12) * load<f32>(to + offset, 12);
    }
    f16Decode(range, to, TILE_CHANNELS);
    for (let offset: u32 = 0; offset < 64; offset += 16) {
      if (ASC_FEATURE_SIMD) {
        v128.store(to + offset, f32x4.mul(v128.load(to + offset), v128.load(q + offset)));
      } else {
        for (let lane = offset; lane < offset + 16; lane += 4) {
          store<f32>(to + lane, load<f32>(to + lane) * load<f32>(q + lane));
        }
      }
    }
  }
  return lane0 + lane1 + (lane2 + lane3);
}

/**
 * Rounds the folded query to i16: per tile the eight even channels, then the eight odd ones, as codes
 * lie in the halves of 16-bit lanes. @returns What one step is worth.
 */
function roundFolded(folded: usize, d: u32, target: usize): f32 {
  let largest: f32 = 0;
  if (ASC_FEATURE_SIMD) {
    let maxima = f32x4.splat(0);
    for (let offset: u32 = 0; offset < d << 2; offset += 16) {
      maxima = f32x4.pmax(maxima, f32x4.abs(v128.load(folded + offset)));
    }
    maxima = f32x4.pmax(maxima, i32x4.shuffle(maxima, maxima, 2, 3, 0, 1));
    largest = max(f32x4.extract_lane(maxima, 0), f32x4.extract_lane(maxima, 1));
  } else {
    for (let index: u32 = 0; index < d; index++) {
      largest = max(largest, abs<f32>(load<f32>(folded + (index << 2))));
    }
  }
  const inverse: f32 = largest > 0 ? QUERY_MAX / largest : 0;
  for (let tile: u32 = 0; tile < d / TILE_CHANNELS; tile++) {
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
  return largest / QUERY_MAX;
}

function roundFour(values: v128, inverse: v128): v128 {
  const shifted = f32x4.add(f32x4.mul(values, inverse), f32x4.splat(ROUNDER));
  return i32x4.sub(shifted, i32x4.splat(ROUNDER_BITS));
}

/** Scores of two rows of nibbles: two tokens each, half a page apart. */
function scoreNibbles(
  codes: usize,
  tileBytes: u32,
  tiles: u32,
  query: usize,
  bias: f32,
  step: f32,
  scores: usize,
  planeRows: u32,
): void {
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
    high0 = i32x4.add(
      high0,
      i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row0, 4), mask), even),
    );
    low0 = i32x4.add(low0, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row0, 8), mask), odd));
    high0 = i32x4.add(high0, i32x4.dot_i16x8_s(i16x8.shr_u(row0, 12), odd));
    const row1 = v128.load(codes, 16);
    low1 = i32x4.add(low1, i32x4.dot_i16x8_s(v128.and(row1, mask), even));
    high1 = i32x4.add(
      high1,
      i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row1, 4), mask), even),
    );
    low1 = i32x4.add(low1, i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(row1, 8), mask), odd));
    high1 = i32x4.add(high1, i32x4.dot_i16x8_s(i16x8.shr_u(row1, 12), odd));
    codes += tileBytes;
    query += 32;
  }
  const sums = f32x4.convert_i32x4_s(integerSums(low0, low1, high0, high1));
  const values = f32x4.add(f32x4.mul(sums, f32x4.splat(step)), f32x4.splat(bias));
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

/** target += sum over t of weights[t] * values[t], in f32. `d` is a multiple of 4. */
export function attendSumF32(
  values: usize,
  tokens: u32,
  d: u32,
  weights: usize,
  target: usize,
): void {
  const rowBytes = d << 2;
  let token: u32 = 0;
  for (; token + 4 <= tokens; token += 4) {
    const from = values + token * rowBytes;
    const w = weights + (token << 2);
    for (let offset: u32 = 0; offset < rowBytes; offset += 16) {
      const at = from + offset;
      if (ASC_FEATURE_SIMD) {
        const ab = f32x4.add(
          f32x4.mul(v128.load(at), v128.load32_splat(w)),
          f32x4.mul(v128.load(at + rowBytes), v128.load32_splat(w, 4)),
        );
        const cd = f32x4.add(
          f32x4.mul(v128.load(at + rowBytes * 2), v128.load32_splat(w, 8)),
          f32x4.mul(v128.load(at + rowBytes * 3), v128.load32_splat(w, 12)),
        );
        v128.store(target + offset, f32x4.add(v128.load(target + offset), f32x4.add(ab, cd)));
      } else {
        for (let lane = offset; lane < offset + 16; lane += 4) {
          const v = from + lane;
          const ab = load<f32>(v) * load<f32>(w) + load<f32>(v + rowBytes) * load<f32>(w, 4);
          const cd =
            load<f32>(v + rowBytes * 2) * load<f32>(w, 8) +
            load<f32>(v + rowBytes * 3) * load<f32>(w, 12);
          store<f32>(target + lane, load<f32>(target + lane) + (ab + cd));
        }
      }
    }
  }
  for (; token < tokens; token++) {
    const weight = load<f32>(weights + (token << 2));
    for (let offset: u32 = 0; offset < rowBytes; offset += 4) {
      const term = load<f32>(values + token * rowBytes + offset) * weight;
      store<f32>(target + offset, load<f32>(target + offset) + term);
    }
  }
}

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
