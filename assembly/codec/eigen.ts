// Eigen: eigenvalues and eigenvectors of a symmetric f64 matrix. A leaf. Householder reduction to
// three diagonals, then implicit QL. Everything runs along rows, also the eigenvectors, so that a
// rotation touches two contiguous rows.
// Source: Bowdler, Martin, Reinsch and Wilkinson, "The QR and QL Algorithms for Symmetric Matrices".

/** Rounds of QL after which an eigenvalue is taken as it is; a few suffice. */
const ROUNDS_MAX: u32 = 60;
const EPSILON: f64 = 2.220446049250313e-16;

/**
 * Replaces the `n` x `n` matrix by its reflectors, and writes eigenvalues, descending, to `values`
 * and the first `wanted` eigenvectors, as rows of length `n`, to `vectors`.
 *
 * @param vectors `n` x `n` f64, whatever `wanted` is.
 * @param scratch 3 * `n` f64.
 */
export function eigenSymmetric(
  matrix: usize,
  n: u32,
  values: usize,
  vectors: usize,
  wanted: u32,
  scratch: usize,
): void {
  const offDiagonal = scratch;
  const factors = scratch + (n << 3);
  reduce(matrix, n, values, offDiagonal, factors, scratch + (n << 4));
  memory.fill(vectors, 0, (n * n) << 3);
  for (let row: u32 = 0; row < n; row++) store<f64>(vectors + ((row * n + row) << 3), 1);
  iterate(values, offDiagonal, vectors, n);
  sortDescending(values, vectors, n, wanted);
  for (let row: u32 = 0; row < wanted; row++) {
    reflectBack(matrix, factors, vectors + ((row * n) << 3), n);
  }
}

function at(address: usize, index: u32): f64 {
  return load<f64>(address + (index << 3));
}

function set(address: usize, index: u32, value: f64): void {
  store<f64>(address + (index << 3), value);
}

/** Sum in two lanes. */
function dot(left: usize, right: usize, count: u32): f64 {
  let index: u32 = 0;
  let total: f64 = 0;
  if (ASC_FEATURE_SIMD) {
    let sums = f64x2.splat(0);
    for (; index + 2 <= count; index += 2) {
      const offset = index << 3;
      sums = f64x2.add(sums, f64x2.mul(v128.load(left + offset), v128.load(right + offset)));
    }
    total = f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
  } else {
    let even: f64 = 0;
    let odd: f64 = 0;
    for (; index + 2 <= count; index += 2) {
      even += at(left, index) * at(right, index);
      odd += at(left, index + 1) * at(right, index + 1);
    }
    total = even + odd;
  }
  if (index < count) total += at(left, index) * at(right, index);
  return total;
}

/** target += a * x + b * y. */
function addTwo(target: usize, a: f64, x: usize, b: f64, y: usize, count: u32): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const as = f64x2.splat(a);
    const bs = f64x2.splat(b);
    for (; index + 2 <= count; index += 2) {
      const offset = index << 3;
      const ax = f64x2.mul(as, v128.load(x + offset));
      const by = f64x2.mul(bs, v128.load(y + offset));
      v128.store(target + offset, f64x2.add(v128.load(target + offset), f64x2.add(ax, by)));
    }
  }
  for (; index < count; index++) {
    set(target, index, at(target, index) + (a * at(x, index) + b * at(y, index)));
  }
}

/**
 * Reduces to three diagonals. Row k keeps, from column k + 1 on, the vector of its reflector, whose
 * factor goes to `factors`.
 */
function reduce(
  matrix: usize,
  n: u32,
  diagonal: usize,
  offDiagonal: usize,
  factors: usize,
  work: usize,
): void {
  for (let k: u32 = 0; k < n; k++) {
    set(diagonal, k, at(matrix, k * n + k));
    set(factors, k, 0);
    if (k + 1 >= n) {
      set(offDiagonal, k, 0);
      continue;
    }
    const count = n - k - 1;
    const vector = matrix + ((k * n + k + 1) << 3);
    const head = at(vector, 0);
    const squares = dot(vector, vector, count);
    const rest = squares - head * head;
    if (count == 1 || rest <= 0) {
      set(offDiagonal, k, head);
      continue;
    }
    const length = sqrt<f64>(squares);
    const alpha = head > 0 ? -length : length;
    set(offDiagonal, k, alpha);
    set(vector, 0, head - alpha);
    const factor = 1 / (squares - head * alpha);
    set(factors, k, factor);
    // p = factor * A * v, then w = p - (factor * p.v / 2) * v, then A -= v w' + w v'.
    for (let row: u32 = 0; row < count; row++) {
      const from = matrix + (((k + 1 + row) * n + k + 1) << 3);
      set(work, row, factor * dot(from, vector, count));
    }
    const share = factor * dot(work, vector, count) * 0.5;
    for (let row: u32 = 0; row < count; row++) {
      set(work, row, at(work, row) - share * at(vector, row));
    }
    for (let row: u32 = 0; row < count; row++) {
      const to = matrix + (((k + 1 + row) * n + k + 1) << 3);
      addTwo(to, -at(vector, row), work, -at(work, row), vector, count);
    }
  }
}

function hypotenuse(a: f64, b: f64): f64 {
  return sqrt<f64>(a * a + b * b);
}

/** Implicit QL on the three diagonals; rotates the rows of `vectors` along. */
function iterate(diagonal: usize, offDiagonal: usize, vectors: usize, n: u32): void {
  for (let low: u32 = 0; low < n; low++) {
    for (let round: u32 = 0; round < ROUNDS_MAX; round++) {
      let high = low;
      for (; high + 1 < n; high++) {
        const size = abs<f64>(at(diagonal, high)) + abs<f64>(at(diagonal, high + 1));
        if (abs<f64>(at(offDiagonal, high)) <= EPSILON * size) break;
      }
      if (high == low) break;
      chase(diagonal, offDiagonal, vectors, n, low, high);
    }
  }
}

/** One implicit step on rows `low` to `high`. */
function chase(
  diagonal: usize,
  offDiagonal: usize,
  vectors: usize,
  n: u32,
  low: u32,
  high: u32,
): void {
  let g = (at(diagonal, low + 1) - at(diagonal, low)) / (2 * at(offDiagonal, low));
  let r = hypotenuse(g, 1);
  g = at(diagonal, high) - at(diagonal, low) + at(offDiagonal, low) / (g + (g < 0 ? -r : r));
  let sine: f64 = 1;
  let cosine: f64 = 1;
  let p: f64 = 0;
  for (let above = high; above > low; above--) {
    const row = above - 1;
    const f = sine * at(offDiagonal, row);
    const b = cosine * at(offDiagonal, row);
    r = hypotenuse(f, g);
    set(offDiagonal, above, r);
    if (r == 0) {
      set(diagonal, above, at(diagonal, above) - p);
      set(offDiagonal, high, 0);
      return;
    }
    sine = f / r;
    cosine = g / r;
    g = at(diagonal, above) - p;
    r = (at(diagonal, row) - g) * sine + 2 * cosine * b;
    p = sine * r;
    set(diagonal, above, g + p);
    g = cosine * r - b;
    rotate(vectors + ((row * n) << 3), n, sine, cosine);
  }
  set(diagonal, low, at(diagonal, low) - p);
  set(offDiagonal, low, g);
  set(offDiagonal, high, 0);
}

/** Rotates the row at `row` and the one behind it. */
function rotate(row: usize, n: u32, sine: f64, cosine: f64): void {
  const next = row + (n << 3);
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const sines = f64x2.splat(sine);
    const cosines = f64x2.splat(cosine);
    for (; index + 2 <= n; index += 2) {
      const a = v128.load(row + (index << 3));
      const b = v128.load(next + (index << 3));
      v128.store(next + (index << 3), f64x2.add(f64x2.mul(sines, a), f64x2.mul(cosines, b)));
      v128.store(row + (index << 3), f64x2.sub(f64x2.mul(cosines, a), f64x2.mul(sines, b)));
    }
  }
  for (; index < n; index++) {
    const a = at(row, index);
    const b = at(next, index);
    set(next, index, sine * a + cosine * b);
    set(row, index, cosine * a - sine * b);
  }
}

/** Moves the `wanted` largest values, and their rows, to the front; sorts all values. */
function sortDescending(values: usize, vectors: usize, n: u32, wanted: u32): void {
  for (let place: u32 = 0; place + 1 < n; place++) {
    let best = place;
    for (let other = place + 1; other < n; other++) {
      if (at(values, other) > at(values, best)) best = other;
    }
    if (best == place) continue;
    const value = at(values, best);
    set(values, best, at(values, place));
    set(values, place, value);
    if (place >= wanted) continue;
    for (let index: u32 = 0; index < n; index++) {
      const kept = at(vectors, place * n + index);
      set(vectors, place * n + index, at(vectors, best * n + index));
      set(vectors, best * n + index, kept);
    }
  }
}

/** Turns an eigenvector of the three diagonals into one of the matrix. */
function reflectBack(matrix: usize, factors: usize, row: usize, n: u32): void {
  for (let k = <i32>n - 3; k >= 0; k--) {
    const factor = at(factors, k);
    if (factor == 0) continue;
    const count = n - k - 1;
    const vector = matrix + ((k * n + k + 1) << 3);
    const part = row + ((k + 1) << 3);
    const share = -factor * dot(part, vector, count);
    addTwo(part, share, vector, 0, vector, count);
  }
}
