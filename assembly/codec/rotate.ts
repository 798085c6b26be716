// Rotate: the Walsh-Hadamard transform, orthonormal, so that it is its own inverse. A leaf. It spreads
// outliers over a vector, whose values then look Gaussian whatever they were.
//
// The order of the levels is fixed, because it decides the rounding: 1, 2, 4, 8, 16, the factor, then
// 32 and up.

/** Transforms `d` f32 in place; `d` is a power of two from 32 on. */
export function hadamard(address: usize, d: u32): void {
  const factor: f32 = 1 / sqrt<f32>(<f32>d);
  for (let start: u32 = 0; start < d; start += 32) {
    if (ASC_FEATURE_SIMD) {
      hadamard32(address + (start << 2), f32x4.splat(factor));
    } else {
      for (let reach: u32 = 1; reach < 32; reach <<= 1) {
        butterflies(address + (start << 2), 32, reach);
      }
      for (let index = start; index < start + 32; index++) {
        store<f32>(address + (index << 2), load<f32>(address + (index << 2)) * factor);
      }
    }
  }
  for (let reach: u32 = 32; reach < d; reach <<= 1) butterflies(address, d, reach);
}

/** One level: sums and differences of values `reach` apart. */
function butterflies(address: usize, d: u32, reach: u32): void {
  const reachBytes = reach << 2;
  for (let start: u32 = 0; start < d; start += reach << 1) {
    let index: u32 = 0;
    if (ASC_FEATURE_SIMD) {
      for (; index + 4 <= reach; index += 4) {
        const low = address + ((start + index) << 2);
        const a = v128.load(low);
        const b = v128.load(low + reachBytes);
        v128.store(low, f32x4.add(a, b));
        v128.store(low + reachBytes, f32x4.sub(a, b));
      }
    }
    for (; index < reach; index++) {
      const low = address + ((start + index) << 2);
      const a = load<f32>(low);
      const b = load<f32>(low + reachBytes);
      store<f32>(low, a + b);
      store<f32>(low + reachBytes, a - b);
    }
  }
}

/** Levels 1 and 2 of four values. */
function inner(values: v128): v128 {
  const oddSigns = i64x2.splat(0x8000000000000000);
  const pairs = f32x4.add(v128.xor(values, oddSigns), i32x4.shuffle(values, values, 1, 0, 3, 2));
  const highSigns = i32x4.shuffle(i32x4.splat(0), i32x4.splat(0x80000000), 0, 0, 4, 4);
  return f32x4.add(v128.xor(pairs, highSigns), i32x4.shuffle(pairs, pairs, 2, 3, 0, 1));
}

/** Levels 1 to 16 and the factor, in registers. */
function hadamard32(address: usize, factor: v128): void {
  const a = inner(v128.load(address));
  const b = inner(v128.load(address, 16));
  const c = inner(v128.load(address, 32));
  const d = inner(v128.load(address, 48));
  const e = inner(v128.load(address, 64));
  const f = inner(v128.load(address, 80));
  const g = inner(v128.load(address, 96));
  const h = inner(v128.load(address, 112));
  const ab = f32x4.add(a, b);
  const ba = f32x4.sub(a, b);
  const cd = f32x4.add(c, d);
  const dc = f32x4.sub(c, d);
  const ef = f32x4.add(e, f);
  const fe = f32x4.sub(e, f);
  const gh = f32x4.add(g, h);
  const hg = f32x4.sub(g, h);
  storePair(address, f32x4.add(ab, cd), f32x4.add(ef, gh), factor);
  storePair(address + 16, f32x4.add(ba, dc), f32x4.add(fe, hg), factor);
  storePair(address + 32, f32x4.sub(ab, cd), f32x4.sub(ef, gh), factor);
  storePair(address + 48, f32x4.sub(ba, dc), f32x4.sub(fe, hg), factor);
}

/** Level 16 and the factor, for two registers. */
function storePair(address: usize, low: v128, high: v128, factor: v128): void {
  v128.store(address, f32x4.mul(f32x4.add(low, high), factor));
  v128.store(address, f32x4.mul(f32x4.sub(low, high), factor), 64);
}
