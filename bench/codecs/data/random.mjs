// Seeded draws for the benches: uniform, normal (polar method) and a few shapes over them.

/** mulberry32; the same seed gives the same data everywhere. */
export class Draws {
  #state;
  #spare = null;

  constructor(seed) {
    this.#state = seed | 0;
  }

  /** Uniform in [0, 1). */
  u() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A copy in random order. */
  shuffled(values) {
    const result = [...values];
    for (let last = result.length - 1; last > 0; last--) {
      const other = Math.floor(this.u() * (last + 1));
      [result[last], result[other]] = [result[other], result[last]];
    }
    return result;
  }

  /** Normal, variance 1. */
  g() {
    if (this.#spare !== null) {
      const value = this.#spare;
      this.#spare = null;
      return value;
    }
    for (;;) {
      const a = 2 * this.u() - 1;
      const b = 2 * this.u() - 1;
      const s = a * a + b * b;
      if (s <= 0 || s >= 1) continue;
      const factor = Math.sqrt((-2 * Math.log(s)) / s);
      this.#spare = b * factor;
      return a * factor;
    }
  }

  /** An array of `count` values of `draw`. */
  fill(count, draw) {
    const values = new Float32Array(count);
    for (let index = 0; index < count; index++) values[index] = draw(index);
    return values;
  }

  /** Normal values. */
  normal(count, factor = 1) {
    return this.fill(count, () => factor * this.g());
  }
}

/** left (m × k) times right (k × n), row-major, sums in double precision. */
export function multiply(left, right, m, k, n) {
  const product = new Float32Array(m * n);
  const row = new Float64Array(n);
  for (let i = 0; i < m; i++) {
    row.fill(0);
    for (let t = 0; t < k; t++) {
      const factor = left[i * k + t];
      if (factor === 0) continue;
      for (let j = 0; j < n; j++) row[j] += factor * right[t * n + j];
    }
    product.set(row, i * n);
  }
  return product;
}

/** Root of the mean square. */
export function deviation(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length);
}
