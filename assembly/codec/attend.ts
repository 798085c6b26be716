// Attend: query times keys, and the weighted sum of values, in f32. Uses lanes.ts. What is pinned is exact, and
// what is compressed is measured against it. The factor 1/sqrt(d) is the caller's.
import { sumsOf } from "./lanes";

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
    const from = keys + token * rowBytes;
    if (ASC_FEATURE_SIMD) {
      let sums = f32x4.splat(0);
      for (let offset: u32 = 0; offset < rowBytes; offset += 16) {
        sums = f32x4.add(sums, f32x4.mul(v128.load(query + offset), v128.load(from + offset)));
      }
      const total = sumsOf(sums, sums, sums, sums);
      store<f32>(scores + (token << 2), f32x4.extract_lane(total, 0));
    } else {
      store<f32>(scores + (token << 2), dotScalar(from, query, d));
    }
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
