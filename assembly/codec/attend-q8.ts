// Attend q8: query times keys that are q8 blocks (block.ts). Uses half.ts and lanes.ts.
//
// The query is rounded to 16 bits, block by block, so that products are sums of integers: the same on
// every engine, and more to a register. The factor 1/sqrt(d) is the caller's.
import { f16Decode, floatOfHalf } from "./half";
import { roundInteger, sumsOf } from "./lanes";

/** Largest rounded query: sums of products with bytes stay inside 32 bits. */
const QUERY_MAX: f32 = 16000;
/** Tokens whose scales are widened at once, per stream. */
const SCALE_TOKENS: u32 = 32;

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
