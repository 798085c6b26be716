// Matrix: products of f32 matrices, row by row in memory. Uses lanes.ts. For low-rank codecs: Gram matrices,
// projections, and the product that decodes.
//
// A tile of 4 x 8 results stays in registers over at most BLOCK_DEPTH terms; blocks of terms add up in
// the target. So sums are in a fixed order, whatever the engine.
import { vectorSum } from "./lanes";

const BLOCK_DEPTH: u32 = 128;

/**
 * target[i, j] = sum over k < `depth` of left[i, k] * right[k, j].
 *
 * @param leftRow Bytes from left[i, k] to left[i + 1, k]; `leftStep` from left[i, k] to
 *   left[i, k + 1]: either may be 4, so the left matrix may be given transposed.
 * @param rightRow Bytes between rows of the right matrix; `targetRow` of the target.
 * @param rows A multiple of 4.
 * @param columns A multiple of 8.
 * @param isSymmetric 1: only tiles that reach the diagonal or lie above it are computed.
 */
export function matrixMultiply(
  left: usize,
  leftRow: u32,
  leftStep: u32,
  right: usize,
  rightRow: u32,
  target: usize,
  targetRow: u32,
  rows: u32,
  columns: u32,
  depth: u32,
  isSymmetric: u32,
): void {
  for (let row: u32 = 0; row < rows; row++) memory.fill(target + row * targetRow, 0, columns << 2);
  for (let from: u32 = 0; from < depth; from += BLOCK_DEPTH) {
    const terms = min(BLOCK_DEPTH, depth - from);
    const leftBlock = left + from * leftStep;
    const rightBlock = right + from * rightRow;
    for (let row: u32 = 0; row < rows; row += 4) {
      const first = isSymmetric ? row & ~7 : 0;
      const leftTile = leftBlock + row * leftRow;
      const targetTile = target + row * targetRow;
      for (let column = first; column < columns; column += 8) {
        const rightTile = rightBlock + (column << 2);
        const to = targetTile + (column << 2);
        if (ASC_FEATURE_SIMD) {
          addTile(leftTile, leftRow, leftStep, rightTile, rightRow, to, targetRow, terms);
        } else {
          addTileScalar(leftTile, leftRow, leftStep, rightTile, rightRow, to, targetRow, terms);
        }
      }
    }
  }
}

function addTile(
  left: usize,
  leftRow: u32,
  leftStep: u32,
  right: usize,
  rightRow: u32,
  target: usize,
  targetRow: u32,
  terms: u32,
): void {
  let a0 = f32x4.splat(0);
  let a1 = f32x4.splat(0);
  let b0 = f32x4.splat(0);
  let b1 = f32x4.splat(0);
  let c0 = f32x4.splat(0);
  let c1 = f32x4.splat(0);
  let d0 = f32x4.splat(0);
  let d1 = f32x4.splat(0);
  const leftB = leftRow;
  const leftC = leftRow << 1;
  const leftD = leftRow + leftC;
  for (let term: u32 = 0; term < terms; term++) {
    const low = v128.load(right);
    const high = v128.load(right, 16);
    const a = v128.load32_splat(left);
    a0 = f32x4.add(a0, f32x4.mul(a, low));
    a1 = f32x4.add(a1, f32x4.mul(a, high));
    const b = v128.load32_splat(left + leftB);
    b0 = f32x4.add(b0, f32x4.mul(b, low));
    b1 = f32x4.add(b1, f32x4.mul(b, high));
    const c = v128.load32_splat(left + leftC);
    c0 = f32x4.add(c0, f32x4.mul(c, low));
    c1 = f32x4.add(c1, f32x4.mul(c, high));
    const d = v128.load32_splat(left + leftD);
    d0 = f32x4.add(d0, f32x4.mul(d, low));
    d1 = f32x4.add(d1, f32x4.mul(d, high));
    left += leftStep;
    right += rightRow;
  }
  addRow(target, a0, a1);
  addRow(target + targetRow, b0, b1);
  addRow(target + targetRow * 2, c0, c1);
  addRow(target + targetRow * 3, d0, d1);
}

function addRow(target: usize, low: v128, high: v128): void {
  v128.store(target, f32x4.add(v128.load(target), low));
  v128.store(target, f32x4.add(v128.load(target, 16), high), 16);
}

function addTileScalar(
  left: usize,
  leftRow: u32,
  leftStep: u32,
  right: usize,
  rightRow: u32,
  target: usize,
  targetRow: u32,
  terms: u32,
): void {
  for (let row: u32 = 0; row < 4; row++) {
    for (let column: u32 = 0; column < 8; column++) {
      let sum: f32 = 0;
      let a = left + row * leftRow;
      let b = right + (column << 2);
      for (let term: u32 = 0; term < terms; term++) {
        sum += load<f32>(a) * load<f32>(b);
        a += leftStep;
        b += rightRow;
      }
      const to = target + row * targetRow + (column << 2);
      store<f32>(to, load<f32>(to) + sum);
    }
  }
}

/** Copies the upper triangle of an `n` x `n` matrix to the lower one. */
export function matrixMirror(address: usize, n: u32): void {
  for (let row: u32 = 1; row < n; row++) {
    for (let column: u32 = 0; column < row; column++) {
      const value = load<f32>(address + ((column * n + row) << 2));
      store<f32>(address + ((row * n + column) << 2), value);
    }
  }
}

/**
 * target[j, i] = source[i, j].
 *
 * @param targetRow Bytes between rows of the target, at least 4 * `rows`.
 */
export function matrixTranspose(
  source: usize,
  sourceRow: u32,
  target: usize,
  targetRow: u32,
  rows: u32,
  columns: u32,
): void {
  const edge: u32 = 32;
  for (let top: u32 = 0; top < rows; top += edge) {
    const bottom = min(rows, top + edge);
    for (let leftEdge: u32 = 0; leftEdge < columns; leftEdge += edge) {
      const rightEdge = min(columns, leftEdge + edge);
      for (let column = leftEdge; column < rightEdge; column++) {
        for (let row = top; row < bottom; row++) {
          const value = load<f32>(source + row * sourceRow + (column << 2));
          store<f32>(target + column * targetRow + (row << 2), value);
        }
      }
    }
  }
}

/**
 * Makes the `count` rows of length `n` orthonormal, each against those before it, twice. A row that
 * depends on those before it becomes zeros.
 *
 * @param n A multiple of 4.
 */
export function matrixOrthonormalise(address: usize, count: u32, n: u32): void {
  const rowBytes = n << 2;
  for (let row: u32 = 0; row < count; row++) {
    const target = address + row * rowBytes;
    const before = sqrt<f32>(rowDot(target, target, n));
    for (let pass = 0; pass < 2; pass++) {
      for (let other: u32 = 0; other < row; other++) {
        const base = address + other * rowBytes;
        rowAdd(target, base, -rowDot(target, base, n), n);
      }
    }
    const length = sqrt<f32>(rowDot(target, target, n));
    const factor: f32 = length > before * <f32>1e-6 ? 1 / length : 0;
    rowScale(target, factor, n);
  }
}

/** Sum in four lanes, added pairwise. */
function rowDot(left: usize, right: usize, n: u32): f32 {
  if (ASC_FEATURE_SIMD) {
    let sums = f32x4.splat(0);
    for (let offset: u32 = 0; offset < n << 2; offset += 16) {
      sums = f32x4.add(sums, f32x4.mul(v128.load(left + offset), v128.load(right + offset)));
    }
    return vectorSum(sums);
  } else {
    let lane0: f32 = 0;
    let lane1: f32 = 0;
    let lane2: f32 = 0;
    let lane3: f32 = 0;
    for (let offset: u32 = 0; offset < n << 2; offset += 16) {
      lane0 += load<f32>(left + offset) * load<f32>(right + offset);
      lane1 += load<f32>(left + offset, 4) * load<f32>(right + offset, 4);
      lane2 += load<f32>(left + offset, 8) * load<f32>(right + offset, 8);
      lane3 += load<f32>(left + offset, 12) * load<f32>(right + offset, 12);
    }
    return lane0 + lane1 + (lane2 + lane3);
  }
}

/** target += factor * source. */
function rowAdd(target: usize, source: usize, factor: f32, n: u32): void {
  for (let offset: u32 = 0; offset < n << 2; offset += 16) {
    if (ASC_FEATURE_SIMD) {
      const scaled = f32x4.mul(v128.load(source + offset), f32x4.splat(factor));
      v128.store(target + offset, f32x4.add(v128.load(target + offset), scaled));
    } else {
      for (let lane = offset; lane < offset + 16; lane += 4) {
        const scaled = load<f32>(source + lane) * factor;
        store<f32>(target + lane, load<f32>(target + lane) + scaled);
      }
    }
  }
}

function rowScale(target: usize, factor: f32, n: u32): void {
  for (let offset: u32 = 0; offset < n << 2; offset += 4) {
    store<f32>(target + offset, load<f32>(target + offset) * factor);
  }
}

/** Sum of the diagonal and of all squares of a symmetric matrix, as 2 x f64 at `target`. */
export function matrixMoments(address: usize, n: u32, target: usize): void {
  let trace: f64 = 0;
  let squares: f64 = 0;
  for (let row: u32 = 0; row < n; row++) {
    trace += <f64>load<f32>(address + ((row * n + row) << 2));
    for (let column: u32 = 0; column < n; column++) {
      const value = <f64>load<f32>(address + ((row * n + column) << 2));
      squares += value * value;
    }
  }
  store<f64>(target, trace);
  store<f64>(target, squares, 8);
}
