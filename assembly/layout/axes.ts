// Axes: exchanges two axes of a tensor, [outer, inner, row] to [inner, outer, row], the row being some
// bytes that stay together. Uses rows.ts. Source and target never overlap.
//
// Rows of one element are a transposition: squares of elements go through registers, and the inner axis is
// worked on in bands, so that the lines of the target that a band touches stay in the nearest cache.
import { rowsCopy } from "./rows";

/** Elements of the inner axis in a band. */
const BAND: u32 = 64;

/** @param rowBytes At least 1. */
export function axesSwap(
  source: usize,
  target: usize,
  outer: u32,
  inner: u32,
  rowBytes: u32,
): void {
  if (rowBytes == 4) return swap4(source, target, outer, inner);
  if (rowBytes == 2) return swap2(source, target, outer, inner);
  if (rowBytes == 1) return swap1(source, target, outer, inner);
  if (rowBytes == 8) return swapScalar<u64>(source, target, outer, inner, 0, 0, inner);
  // The target is written from left to right, in rows of whole lines where the source has them.
  const sourceStride = inner * rowBytes;
  for (let index: u32 = 0; index < inner; index++) {
    rowsCopy(source, sourceStride, target, rowBytes, rowBytes, outer);
    source += rowBytes;
    target += outer * rowBytes;
  }
}

/** Rows from `first` on of the outer axis, of the columns from `from` to `to`, one by one. */
function swapScalar<T>(
  source: usize,
  target: usize,
  outer: u32,
  inner: u32,
  first: u32,
  from: u32,
  to: u32,
): void {
  for (let start = from; start < to; start += BAND) {
    const end = min(to, start + BAND);
    for (let row = first; row < outer; row++) {
      const rowAt = source + row * inner * sizeof<T>();
      const columnAt = target + row * sizeof<T>();
      for (let column = start; column < end; column++) {
        const value = load<T>(rowAt + column * sizeof<T>());
        store<T>(columnAt + column * outer * sizeof<T>(), value);
      }
    }
  }
}

function swap4(source: usize, target: usize, outer: u32, inner: u32): void {
  if (ASC_FEATURE_SIMD) {
    const rows = outer & ~3;
    const columns = inner & ~3;
    for (let start: u32 = 0; start < columns; start += BAND) {
      const end = min(columns, start + BAND);
      for (let row: u32 = 0; row < rows; row += 4) {
        let from = source + ((row * inner + start) << 2);
        let to = target + ((start * outer + row) << 2);
        for (let column = start; column < end; column += 4) {
          square4(from, inner << 2, to, outer << 2);
          from += 16;
          to += outer << 4;
        }
      }
    }
    swapScalar<u32>(source, target, outer, inner, rows, 0, columns);
    swapScalar<u32>(source, target, outer, inner, 0, columns, inner);
  } else {
    swapScalar<u32>(source, target, outer, inner, 0, 0, inner);
  }
}

function square4(source: usize, sourceStride: u32, target: usize, targetStride: u32): void {
  const a = v128.load(source);
  const b = v128.load(source + sourceStride);
  const c = v128.load(source + (sourceStride << 1));
  const d = v128.load(source + sourceStride * 3);
  const abLow = i32x4.shuffle(a, b, 0, 4, 1, 5);
  const abHigh = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const cdLow = i32x4.shuffle(c, d, 0, 4, 1, 5);
  const cdHigh = i32x4.shuffle(c, d, 2, 6, 3, 7);
  v128.store(target, i64x2.shuffle(abLow, cdLow, 0, 2));
  v128.store(target + targetStride, i64x2.shuffle(abLow, cdLow, 1, 3));
  v128.store(target + (targetStride << 1), i64x2.shuffle(abHigh, cdHigh, 0, 2));
  v128.store(target + targetStride * 3, i64x2.shuffle(abHigh, cdHigh, 1, 3));
}

function swap2(source: usize, target: usize, outer: u32, inner: u32): void {
  if (ASC_FEATURE_SIMD) {
    const rows = outer & ~7;
    const columns = inner & ~7;
    for (let start: u32 = 0; start < columns; start += BAND) {
      const end = min(columns, start + BAND);
      for (let row: u32 = 0; row < rows; row += 8) {
        let from = source + ((row * inner + start) << 1);
        let to = target + ((start * outer + row) << 1);
        for (let column = start; column < end; column += 8) {
          square2(from, inner << 1, to, outer << 1);
          from += 16;
          to += outer << 4;
        }
      }
    }
    swapScalar<u16>(source, target, outer, inner, rows, 0, columns);
    swapScalar<u16>(source, target, outer, inner, 0, columns, inner);
  } else {
    swapScalar<u16>(source, target, outer, inner, 0, 0, inner);
  }
}

function pairsLow(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

function pairsHigh(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

function square2(source: usize, sourceStride: u32, target: usize, targetStride: u32): void {
  const two = sourceStride << 1;
  const a = v128.load(source);
  const b = v128.load(source + sourceStride);
  const c = v128.load(source + two);
  const d = v128.load(source + two + sourceStride);
  const below = source + (two << 1);
  const e = v128.load(below);
  const f = v128.load(below + sourceStride);
  const g = v128.load(below + two);
  const h = v128.load(below + two + sourceStride);
  const ab = pairsLow(a, b);
  const cd = pairsLow(c, d);
  const ef = pairsLow(e, f);
  const gh = pairsLow(g, h);
  storeColumns2(ab, cd, ef, gh, target, targetStride);
  const abHigh = pairsHigh(a, b);
  const cdHigh = pairsHigh(c, d);
  const efHigh = pairsHigh(e, f);
  const ghHigh = pairsHigh(g, h);
  storeColumns2(abHigh, cdHigh, efHigh, ghHigh, target + (targetStride << 2), targetStride);
}

/** Four columns of eight, from their pairs. */
function storeColumns2(
  ab: v128,
  cd: v128,
  ef: v128,
  gh: v128,
  target: usize,
  targetStride: u32,
): void {
  const front = i32x4.shuffle(ab, cd, 0, 4, 1, 5);
  const back = i32x4.shuffle(ef, gh, 0, 4, 1, 5);
  v128.store(target, i64x2.shuffle(front, back, 0, 2));
  v128.store(target + targetStride, i64x2.shuffle(front, back, 1, 3));
  const frontHigh = i32x4.shuffle(ab, cd, 2, 6, 3, 7);
  const backHigh = i32x4.shuffle(ef, gh, 2, 6, 3, 7);
  v128.store(target + (targetStride << 1), i64x2.shuffle(frontHigh, backHigh, 0, 2));
  v128.store(target + targetStride * 3, i64x2.shuffle(frontHigh, backHigh, 1, 3));
}

function swap1(source: usize, target: usize, outer: u32, inner: u32): void {
  if (ASC_FEATURE_SIMD) {
    const rows = outer & ~7;
    const columns = inner & ~7;
    for (let start: u32 = 0; start < columns; start += BAND) {
      const end = min(columns, start + BAND);
      for (let row: u32 = 0; row < rows; row += 8) {
        let from = source + row * inner + start;
        let to = target + start * outer + row;
        for (let column = start; column < end; column += 8) {
          square1(from, inner, to, outer);
          from += 8;
          to += outer << 3;
        }
      }
    }
    swapScalar<u8>(source, target, outer, inner, rows, 0, columns);
    swapScalar<u8>(source, target, outer, inner, 0, columns, inner);
  } else {
    swapScalar<u8>(source, target, outer, inner, 0, 0, inner);
  }
}

function bytePairs(source: usize, stride: u32): v128 {
  const a = v128.load64_zero(source);
  const b = v128.load64_zero(source + stride);
  return i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

function square1(source: usize, sourceStride: u32, target: usize, targetStride: u32): void {
  const two = sourceStride << 1;
  const ab = bytePairs(source, sourceStride);
  const cd = bytePairs(source + two, sourceStride);
  const ef = bytePairs(source + (two << 1), sourceStride);
  const gh = bytePairs(source + (two << 1) + two, sourceStride);
  const front = pairsLow(ab, cd);
  const frontHigh = pairsHigh(ab, cd);
  const back = pairsLow(ef, gh);
  const backHigh = pairsHigh(ef, gh);
  storeColumns1(i32x4.shuffle(front, back, 0, 4, 1, 5), target, targetStride);
  const twoColumns = targetStride << 1;
  storeColumns1(i32x4.shuffle(front, back, 2, 6, 3, 7), target + twoColumns, targetStride);
  const four = target + (twoColumns << 1);
  storeColumns1(i32x4.shuffle(frontHigh, backHigh, 0, 4, 1, 5), four, targetStride);
  storeColumns1(i32x4.shuffle(frontHigh, backHigh, 2, 6, 3, 7), four + twoColumns, targetStride);
}

/** Two columns of eight bytes. */
function storeColumns1(columns: v128, target: usize, targetStride: u32): void {
  v128.store64_lane(target, columns, 0);
  v128.store64_lane(target + targetStride, columns, 1);
}
