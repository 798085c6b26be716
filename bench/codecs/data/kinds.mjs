// Kinds of tensors that the compressor must choose for, each a matrix of f32 with a partner and queries, so
// that every kind can also be judged as keys.
import { D, makeHead } from "./heads.mjs";
import { Draws, multiply } from "./random.mjs";

const ROWS = 512;
const QUERIES = 64;

function lowRank(draws, rows, columns, rank, decay) {
  const a = draws.normal(rows * rank);
  const b = draws.normal(rank * columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < rank; j++) a[i * rank + j] *= decay(j);
  return multiply(a, b, rows, rank, columns);
}

function toBrain(values) {
  const bits = new Uint32Array(values.buffer);
  bits.forEach((each, i) => (bits[i] = ((each + 0x7fff + ((each >> 16) & 1)) >>> 16) << 16));
  return values;
}

/** All kinds, by name. `rotary` says what keys are. */
export function makeKinds(seed) {
  const draws = new Draws(seed);
  const count = ROWS * D;
  const head = makeHead("mid", seed, { tokenCount: ROWS, queryCount: QUERIES });
  const strong = makeHead("strong-outlier", seed + 1, { tokenCount: ROWS, queryCount: QUERIES });
  const outlierColumns = draws.normal(count, 0.02);
  for (let i = 0; i < count; i++) if (i % D === 9 || i % D === 77) outlierColumns[i] *= 30;
  const uneven = draws.normal(count);
  for (let row = 0; row < ROWS; row++) {
    const factor = Math.exp(1.5 * draws.g());
    for (let c = 0; c < D; c++) uneven[row * D + c] *= factor;
  }
  const map = new Float32Array(count);
  for (let row = 0; row < ROWS; row++) {
    let sum = 0;
    for (let c = 0; c < D; c++) sum += map[row * D + c] = Math.exp(4 * draws.g());
    for (let c = 0; c < D; c++) map[row * D + c] /= sum;
  }
  const kinds = {
    gaussian: { values: draws.normal(count) },
    "outlier-column-weights": { values: outlierColumns },
    "heavy-tailed-weights": {
      values: draws.fill(count, () => 0.02 * draws.g() * Math.exp(0.8 * Math.abs(draws.g()))),
    },
    "keys-before-rotary": { values: head.keysBefore, rotary: "before" },
    "keys-after-rotary": { values: head.keys, rotary: "after", head },
    "keys-strong-outliers": { values: strong.keys, rotary: "after", head: strong },
    values: { values: head.values },
    relu: { values: draws.fill(count, () => Math.max(0, draws.g() - 0.2)) },
    "pruned-90": { values: draws.fill(count, () => (draws.u() < 0.9 ? 0 : draws.g())) },
    "lora-delta": { values: lowRank(draws, ROWS, D, 16, () => 0.01) },
    "decaying-spectrum": { values: lowRank(draws, ROWS, D, D, (j) => Math.exp(-j / 12)) },
    "uneven-rows": { values: uneven },
    "attention-map": { values: map },
    "bf16-upcast": { values: toBrain(draws.normal(count)) },
    "norm-gains": { values: draws.fill(2048, () => 1 + 0.05 * draws.g()), rows: 16 },
    "small-integers": { values: draws.fill(count, () => Math.floor(draws.u() * 8) - 4) },
    zeros: { values: new Float32Array(count) },
    mask: { values: draws.fill(count, () => (draws.u() < 0.3 ? 1 : 0)) },
    "large-weights": { values: draws.normal(1536 * 1024, 0.02), rows: 1536, columns: 1024 },
    "tiny-magnitudes": { values: draws.normal(count, 3e-7) },
  };
  return Object.entries(kinds).map(([name, kind]) => {
    const { values, rows = ROWS, columns = D, rotary = "none", head: own } = kind;
    const partner = own === undefined ? draws.normal(rows * columns) : own.values;
    const queries = own === undefined ? queriesFor(draws, values, rows, columns) : own.queries;
    const matrix = { bytes: new Uint8Array(values.buffer), dtype: "f32", rows, columns };
    return { name, matrix, values, rotary, partner, queries };
  });
}

/** Queries that look at some rows and miss others, with scores of standard deviation about 2. */
function queriesFor(draws, values, rows, columns) {
  const queries = new Float32Array(QUERIES * columns);
  let total = 0;
  for (const value of values) total += value * value;
  const size = Math.sqrt(total / values.length) || 1;
  for (let q = 0; q < QUERIES; q++) {
    const row = Math.floor(draws.u() * rows);
    for (let c = 0; c < columns; c++) {
      queries[q * columns + c] = (0.5 * values[row * columns + c]) / size + draws.g();
    }
  }
  const factor = 1.5 / size;
  for (let i = 0; i < queries.length; i++) queries[i] *= factor;
  return queries;
}

/** Relative error of the attention output over the queries given, in double precision. */
export function replayError(queries, columns, keys, coded, values) {
  let errors = 0;
  let squares = 0;
  const rows = keys.length / columns;
  for (let q = 0; q < queries.length / columns; q++) {
    const query = queries.subarray(q * columns, (q + 1) * columns);
    const exact = attend(query, keys, values, rows, columns);
    const other = attend(query, coded, values, rows, columns);
    for (let c = 0; c < columns; c++) {
      errors += (exact[c] - other[c]) ** 2;
      squares += exact[c] ** 2;
    }
  }
  return errors === 0 ? 0 : Math.sqrt(errors / squares);
}

export function attend(query, keys, values, rows, columns) {
  const scores = new Float64Array(rows);
  let peak = -Infinity;
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += query[c] * keys[row * columns + c];
    scores[row] = sum / Math.sqrt(columns);
    peak = Math.max(peak, scores[row]);
  }
  const output = new Float64Array(columns);
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const weight = Math.exp(scores[row] - peak);
    total += weight;
    if (weight < 1e-12) continue;
    for (let c = 0; c < columns; c++) output[c] += weight * values[row * columns + c];
  }
  return output.map((value) => value / total);
}
