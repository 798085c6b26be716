// What must come out exactly: conversions of every value, ggml's vector, Lloyd-Max codes on Gaussians.
import { CodecEngine } from "../../../dist/src/codec/engine.js";
import { CodecWorkspace } from "../../../dist/src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { Draws } from "../data/random.mjs";
import { atMost } from "../timing.mjs";

const CHUNK = 2 ** 20;
const ROUNDS = 16;
const LLOYD_MAX = { 2: 0.117482, 3: 0.034548, 4: 0.009501 };

/** f16 nearest to a value, by division into steps and rounding to even in double precision. */
function halfOf(value) {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, magnitude === 0 ? -14 : Math.floor(Math.log2(magnitude)));
  // The logarithm may be off by one next to a power of two.
  const fitted = magnitude >= 2 ** (exponent + 1) ? exponent + 1 : exponent;
  const low = fitted > -14 && magnitude < 2 ** fitted ? fitted - 1 : fitted;
  const steps = magnitude / 2 ** (low - 10);
  const floor = Math.floor(steps);
  const rest = steps - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  return sign | (rounded + (low + 14) * 1024);
}

/** Mismatches of both conversions over every `stride`-th bit pattern of f32. */
function conversions(workspace, stride) {
  const { kernels } = workspace;
  const source = workspace.take(CHUNK * 4);
  const target = workspace.take(CHUNK * 2);
  const bits = workspace.u32(source, CHUNK);
  const values = workspace.f32(source, CHUNK);
  const halves = workspace.u16(target, CHUNK);
  let f16 = 0;
  let bf16 = 0;
  for (let first = 0; first < 2 ** 32; first += CHUNK * stride) {
    for (let i = 0; i < CHUNK; i++) bits[i] = first + i * stride;
    kernels.f16Encode(source, target, CHUNK);
    for (let i = 0; i < CHUNK; i++) {
      const wanted = halfOf(values[i]);
      const isNan = wanted === 0x7e00;
      if (isNan ? (halves[i] & 0x7fff) !== 0x7e00 : halves[i] !== wanted) f16++;
    }
    kernels.bf16Encode(source, target, CHUNK);
    for (let i = 0; i < CHUNK; i++) {
      const each = bits[i];
      const isNan = (each & 0x7fffffff) > 0x7f800000;
      const low = each & 0xffff;
      const up = low > 0x8000 || (low === 0x8000 && each & 0x10000) ? 1 : 0;
      const wanted = isNan ? (each >>> 16) | 0x40 : ((each >>> 16) + up) & 0xffff;
      if (halves[i] !== wanted) bf16++;
    }
  }
  return { f16, bf16 };
}

export async function run({ isQuick }) {
  const workspace = await CodecWorkspace.create(2 ** 26, createUnsharedMemory);
  const engine = new CodecEngine(workspace);
  const figures = [];
  const count = 4096;
  const vector = Float32Array.from({ length: count }, (_, i) => 0.1 + 2 * Math.cos(i));
  const matrix = { bytes: new Uint8Array(vector.buffer), dtype: "f32", rows: 1, columns: count };
  for (const [codec, wanted] of [
    ["q8", 7.44e-5],
    ["q4", 1.121e-3],
  ]) {
    const unit = engine.encode(matrix, { codec, isExact: true });
    const decoded = new Float32Array(engine.decode(unit.bytes).bytes.buffer);
    let squares = 0;
    vector.forEach((value, i) => (squares += (value - decoded[i]) ** 2));
    const error = Math.sqrt(squares) / count;
    const limit = wanted * 1.001;
    figures.push(atMost(`ggml-vector-${codec}_0`, error, limit, `ggml ${wanted}`, "error"));
  }
  const draws = new Draws(3);
  const sums = { 2: 0, 3: 0, 4: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const bytes = new Uint8Array(draws.normal(2 ** 18).buffer);
    const gaussian = { bytes, dtype: "f32", rows: 256, columns: 1024 };
    for (const bits of Object.keys(LLOYD_MAX)) {
      sums[bits] += engine.encode(gaussian, { codec: "lm", bits: Number(bits) }).relativeError ** 2;
    }
  }
  for (const [bits, wanted] of Object.entries(LLOYD_MAX)) {
    const found = sums[bits] / ROUNDS;
    const off = Math.abs(found / wanted - 1);
    const beside = `mean squared error ${found.toFixed(6)}, optimum ${wanted}`;
    figures.push(atMost(`lloyd-max-${bits}-bits-off`, off, 0.01, beside, "share"));
  }
  const stride = isQuick ? 257 : 1;
  const { f16, bf16 } = conversions(workspace, stride);
  const beside = stride === 1 ? "all 2^32" : `every ${stride}th of 2^32`;
  figures.push(atMost("f16-mismatches", f16, 0, beside, "values"));
  figures.push(atMost("bf16-mismatches", bf16, 0, beside, "values"));
  return { figures };
}
