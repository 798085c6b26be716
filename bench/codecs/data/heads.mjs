// A generator of attention heads: keys with outlier channels and heavy hitters, a sink token, queries that
// look back, values with a decaying spectrum. Synthetic: it ranks codecs, it is not a language model.
import { Draws, deviation, multiply } from "./random.mjs";

export const D = 128;
const LATENT = 160;
const HALF = D / 2;

const BASE = { tauK: 18, tauV: 45, outliers: 6, outlierSize: 10, sharp: 2.2, sink: 0.45 };

/** Types of heads, by what differs from the middle one. */
export const HEAD_TYPES = {
  mid: {},
  mid2: { tauK: 25, outlierSize: 7, sharp: 2.0 },
  sharp: { sharp: 3.2, outlierSize: 12, sink: 0.3 },
  diffuse: { sharp: 1.2, outlierSize: 6, sink: 0.6 },
  "strong-outlier": { outliers: 8, outlierSize: 20 },
  "no-outlier": { outliers: 0, tauK: 30, sink: 0.4 },
};

/** Variants of the generator: another spectrum, other outliers. */
export const VARIANTS = {
  base: {},
  "flat-spectrum": { tauFactor: 2 },
  "other-outliers": { outlierFactor: 1.5, outliersMore: 4 },
};

/** A · diag(e^(−j/τ)) · B · diag(scale), latent × d. */
function spectrum(draws, tau, scale) {
  const a = draws.normal(LATENT * D, 1 / Math.sqrt(LATENT));
  const b = draws.normal(D * D, 1 / Math.sqrt(D));
  for (let i = 0; i < LATENT; i++) for (let j = 0; j < D; j++) a[i * D + j] *= Math.exp(-j / tau);
  const product = multiply(a, b, LATENT, D, D);
  for (let i = 0; i < LATENT; i++) for (let j = 0; j < D; j++) product[i * D + j] *= scale[j];
  return product;
}

/** Rotates pairs (i, i + d/2) of a row by its position. */
export function rotary(values, row, position) {
  for (let i = 0; i < HALF; i++) {
    const angle = position * 10000 ** ((-2 * i) / D);
    const cosine = Math.cos(angle);
    const sine = Math.sin(angle);
    const low = values[row * D + i];
    const high = values[row * D + i + HALF];
    values[row * D + i] = low * cosine - high * sine;
    values[row * D + i + HALF] = low * sine + high * cosine;
  }
}

function tokens(draws, count) {
  const vocabulary = Array.from({ length: 600 }, () => draws.normal(LATENT));
  const topic = Float64Array.from(draws.normal(LATENT));
  const hidden = new Float32Array(count * LATENT);
  for (let token = 0; token < count; token++) {
    const word = vocabulary[Math.min(599, Math.floor(600 ** draws.u()))];
    if (draws.u() < 0.01) topic.forEach((v, c) => (topic[c] = 0.3 * v + 0.95 * draws.g()));
    for (let c = 0; c < LATENT; c++) {
      topic[c] = 0.98 * topic[c] + 0.2 * draws.g();
      hidden[token * LATENT + c] = 0.7 * word[c] + 0.55 * topic[c] + 0.45 * draws.g();
    }
  }
  return hidden;
}

function outlierChannels(draws, count) {
  const channels = new Set();
  for (let each = 0; each < count; each++) {
    for (;;) {
      const channel = HALF * (each % 2) + Math.floor(HALF * (0.55 + 0.45 * draws.u()));
      if (channels.has(channel)) continue;
      channels.add(channel);
      break;
    }
  }
  return [...channels];
}

function dot(a, aRow, b, bRow) {
  let sum = 0;
  for (let c = 0; c < D; c++) sum += a[aRow * D + c] * b[bRow * D + c];
  return sum;
}

/** Brings the mean weight of token 0 to the type's share by the length of its key. */
function placeSink(keys, keysBefore, queries, queryCount, tokenCount, share) {
  const mean = new Float64Array(D);
  for (let q = 0; q < queryCount; q++) for (let c = 0; c < D; c++) mean[c] += queries[q * D + c];
  const length = Math.hypot(...mean);
  const unit = Float32Array.from(mean, (value) => value / length);
  const rest = [];
  for (let q = 0; q < queryCount; q += 4) {
    let peak = -Infinity;
    const scores = [];
    for (let t = 1; t < tokenCount; t++) {
      const score = dot(queries, q, keys, t) / Math.sqrt(D);
      scores.push(score);
      peak = Math.max(peak, score);
    }
    const sum = scores.reduce((total, score) => total + Math.exp(score - peak), 0);
    rest.push({ peak, sum, along: dot(queries, q, unit, 0) / Math.sqrt(D) });
  }
  let low = 0;
  let high = 400;
  for (let step = 0; step < 50; step++) {
    const size = (low + high) / 2;
    let mass = 0;
    for (const { peak, sum, along } of rest) mass += 1 / (1 + sum * Math.exp(peak - size * along));
    if (mass / rest.length < share) low = size;
    else high = size;
  }
  for (let c = 0; c < D; c++) keys[c] = keysBefore[c] = low * unit[c];
}

/**
 * One head.
 *
 * @returns Keys before and after rotary embedding, values, and queries, in f32, d = 128.
 */
export function makeHead(
  type,
  seed,
  { tokenCount = 2048, queryCount = 256, variant = "base" } = {},
) {
  const settings = { ...BASE, ...HEAD_TYPES[type] };
  const { tauFactor = 1, outlierFactor = 1, outliersMore = 0 } = VARIANTS[variant];
  const draws = new Draws(seed);
  const hidden = tokens(draws, tokenCount);
  const scaleK = draws.fill(D, () => Math.exp(0.35 * draws.g()));
  const scaleV = draws.fill(D, () => Math.exp(0.25 * draws.g()));
  const offset = draws.normal(D, 0.25);
  const outlierCount = settings.outliers === 0 ? 0 : settings.outliers + outliersMore;
  const channels = outlierChannels(draws, outlierCount);
  const weightK = spectrum(draws, settings.tauK * tauFactor, scaleK);
  const weightV = spectrum(draws, settings.tauV * tauFactor, scaleV);
  const keysBefore = multiply(hidden, weightK, tokenCount, LATENT, D);
  const rho = 1 / deviation(keysBefore);
  for (let t = 0; t < tokenCount; t++) {
    for (let c = 0; c < D; c++) {
      const at = t * D + c;
      keysBefore[at] = keysBefore[at] * rho + offset[c] + 0.06 * draws.g();
    }
  }
  for (const channel of channels) {
    const size = settings.outlierSize * outlierFactor * (0.6 + 0.8 * draws.u());
    const middle = draws.u() < 0.5 ? -size : size;
    const factor = 1.5 + 1.5 * draws.u();
    for (let t = 0; t < tokenCount; t++) {
      const at = t * D + channel;
      keysBefore[at] = factor * keysBefore[at] + middle * (1 + 0.08 * draws.g());
    }
  }
  const latent = new Float32Array(queryCount * LATENT);
  const positions = [];
  for (let q = 0; q < queryCount; q++) {
    const position = tokenCount - queryCount / 4 + Math.floor(q / 4);
    const look = draws.u() < 0.5 ? position : Math.floor(draws.u() * tokenCount);
    positions.push(position);
    for (let c = 0; c < LATENT; c++) {
      latent[q * LATENT + c] = 0.75 * hidden[look * LATENT + c] + 0.5 * draws.g();
    }
  }
  const extra = spectrum(draws, 1.5 * settings.tauK * tauFactor, new Float32Array(D).fill(1));
  const weightQ = weightK.map((w, i) => rho * (w / scaleK[i % D] + 0.6 * extra[i]));
  const queries = multiply(latent, weightQ, queryCount, LATENT, D);
  const unit = 1 / deviation(queries);
  const mean = draws.fill(D, (c) => (c % HALF >= 48 ? 0.9 * draws.g() : 0));
  for (let i = 0; i < queries.length; i++) queries[i] = queries[i] * unit + mean[i % D];
  const meanLength = Math.hypot(...mean);
  for (let t = 1; t < tokenCount; t++) {
    if (draws.u() >= 0.02) continue;
    for (let c = 0; c < D; c++) keysBefore[t * D + c] += (2 * mean[c]) / meanLength;
  }
  const keys = keysBefore.slice();
  for (let t = 0; t < tokenCount; t++) rotary(keys, t, t);
  for (let q = 0; q < queryCount; q++) rotary(queries, q, positions[q]);
  sharpen(queries, queryCount, keys, tokenCount, settings.sharp);
  const values = multiply(hidden, weightV, tokenCount, LATENT, D);
  const level = 1 / deviation(values);
  for (let t = 0; t < tokenCount; t++) {
    const factor = Math.exp(0.2 * draws.g());
    for (let c = 0; c < D; c++) {
      const at = t * D + c;
      values[at] = (values[at] * level + 0.1 * draws.g()) * factor * (t === 0 ? 0.05 : 1);
    }
  }
  placeSink(keys, keysBefore, queries, queryCount, tokenCount, settings.sink);
  return { keysBefore, keys, values, queries, tokenCount, queryCount };
}

/** Scales the queries until scores have this standard deviation. */
function sharpen(queries, queryCount, keys, tokenCount, sharp) {
  let total = 0;
  let used = 0;
  for (let q = 0; q < queryCount; q += 4) {
    let sum = 0;
    let squares = 0;
    let count = 0;
    for (let t = 1; t < tokenCount; t += 3) {
      const score = dot(queries, q, keys, t) / Math.sqrt(D);
      sum += score;
      squares += score * score;
      count++;
    }
    total += Math.sqrt(squares / count - (sum / count) ** 2);
    used++;
  }
  const factor = sharp / (total / used);
  for (let i = 0; i < queries.length; i++) queries[i] *= factor;
}

/** Relative error of the attention output of queries `from` to `to`. */
export function attentionError(head, keys, values, from, to) {
  const { tokenCount, queries } = head;
  let errors = 0;
  let squares = 0;
  for (let q = from; q < to; q++) {
    const exact = output(queries, q, head.keys, head.values, tokenCount);
    const coded = output(queries, q, keys, values, tokenCount);
    for (let c = 0; c < D; c++) {
      errors += (exact[c] - coded[c]) ** 2;
      squares += exact[c] ** 2;
    }
  }
  return Math.sqrt(errors / squares);
}

function output(queries, q, keys, values, tokenCount) {
  const scores = new Float64Array(tokenCount);
  let peak = -Infinity;
  for (let t = 0; t < tokenCount; t++) {
    scores[t] = dot(queries, q, keys, t) / Math.sqrt(D);
    peak = Math.max(peak, scores[t]);
  }
  let sum = 0;
  const result = new Float64Array(D);
  for (let t = 0; t < tokenCount; t++) {
    const weight = Math.exp(scores[t] - peak);
    sum += weight;
    if (weight === 0) continue;
    for (let c = 0; c < D; c++) result[c] += weight * values[t * D + c];
  }
  return result.map((value) => value / sum);
}
