// Bits per value beside errors, for every codec on every kind of tensor: relative, largest, and of the
// attention output where a tensor is keys or values.
import { CodecEngine } from "../../../dist/src/codec/engine.js";
import { CodecWorkspace } from "../../../dist/src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { capture } from "../data/captured.mjs";
import { D, makeHead } from "../data/heads.mjs";
import { attend } from "../data/kinds.mjs";
import { Draws, multiply } from "../data/random.mjs";
import { plain } from "../timing.mjs";

const bitsOf = (codec, list) => list.map((bits) => ({ codec, bits }));

/** What is tried, by the name of its line in the plots. */
const LINES = {
  half: [{ codec: "half" }, { codec: "half", variant: "bf16" }],
  block: [{ codec: "q8" }, { codec: "q4" }],
  chan: bitsOf("chan", [8, 6, 4, 3, 2]),
  lm: bitsOf("lm", [4, 3, 2]),
  sparse: [0.5, 0.3, 0.1].map((share) => ({ codec: "sparse", variant: "q8", share })),
  lowrank: [2, 4, 8].map((divisor) => ({ codec: "lowrank", variant: "q8", divisor })),
  pca: [4, 3, 2].map((bitsPerValue) => ({ codec: "pca", bitsPerValue })),
};

/** Features of patches of an image: neighbours are alike, few directions matter. */
function imageFeatures(draws, side, columns) {
  const rank = 48;
  const coarse = draws.normal(8 * 8 * rank);
  const factors = new Float32Array(side * side * rank);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = Math.floor((y * 8) / side) * 8 + Math.floor((x * 8) / side);
      for (let r = 0; r < rank; r++) {
        factors[(y * side + x) * rank + r] = coarse[at * rank + r] + 0.5 * draws.g();
      }
    }
  }
  const basis = draws.fill(
    rank * columns,
    (i) => draws.g() * Math.exp(-Math.floor(i / columns) / 16),
  );
  return multiply(factors, basis, side * side, rank, columns).map((v) => v + 0.2 * draws.g());
}

/** Sentences as points on a sphere, in clusters. */
function embeddings(draws, rows, columns) {
  const centres = draws.normal(20 * columns);
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const centre = Math.floor(draws.u() * 20) * columns;
    let squares = 0;
    for (let c = 0; c < columns; c++) {
      const value = centres[centre + c] + 0.8 * draws.g();
      values[row * columns + c] = value;
      squares += value * value;
    }
    for (let c = 0; c < columns; c++) values[row * columns + c] /= Math.sqrt(squares);
  }
  return values;
}

async function tensors() {
  const draws = new Draws(7);
  const head = makeHead("mid", 100, { tokenCount: 1024, queryCount: 128 });
  const { keys, values, queries } = head;
  const captured = await capture();
  return {
    "keys (generator)": { values: keys, columns: D, partner: values, queries },
    "values (generator)": { values, columns: D, keys, queries },
    "keys (captured)": captured.keys,
    "values (captured)": captured.values,
    "ReLU outputs (captured)": captured.relu,
    "residual (captured)": captured.residual,
    weights: {
      values: draws.fill(1024 * D, () => 0.02 * draws.g() * Math.exp(0.3 * draws.g())),
      columns: D,
    },
    "image features": { values: imageFeatures(draws, 32, D), columns: D },
    embeddings: { values: embeddings(draws, 1024, 256), columns: 256 },
  };
}

/** Relative error of the attention output when keys or values are replaced. */
function attentionError({ values, columns, partner, keys, queries }, coded) {
  const rows = values.length / columns;
  let errors = 0;
  let squares = 0;
  for (let at = 0; at < queries.length; at += columns) {
    const query = queries.subarray(at, at + columns);
    const exact = attend(query, keys ?? values, partner ?? values, rows, columns);
    const other = attend(query, keys ?? coded, partner ?? coded, rows, columns);
    exact.forEach((value, c) => {
      errors += (value - other[c]) ** 2;
      squares += value ** 2;
    });
  }
  return Math.sqrt(errors / squares);
}

/** The choice as the engine takes it, or null where it cannot be. */
function choiceFor({ share, divisor, ...choice }, { values, columns }) {
  if (choice.codec === "pca" && columns > 256) return null;
  if (divisor !== undefined) {
    const rank = Math.floor(Math.min(columns, values.length / columns) / divisor);
    return { ...choice, rank };
  }
  if (share === undefined) return choice;
  const magnitudes = Float32Array.from(values, Math.abs).sort();
  return { ...choice, threshold: magnitudes[Math.floor(values.length * (1 - share))] || 1e-30 };
}

export async function run() {
  const engine = new CodecEngine(await CodecWorkspace.create(2 ** 26, createUnsharedMemory));
  const figures = [];
  const tables = [];
  const panels = [];
  for (const [title, tensor] of Object.entries(await tensors())) {
    const { values, columns } = tensor;
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const matrix = { bytes, dtype: "f32", rows: values.length / columns, columns };
    const magnitude = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const lossless = engine.encode(matrix, { codec: "plane" }).bytes.byteLength * 8;
    const losslessBits = lossless / values.length;
    const table = { [`${title}: plane`]: { bits: losslessBits.toFixed(2), relative: "exact" } };
    const lines = {};
    for (const [line, choices] of Object.entries(LINES)) {
      for (const given of choices) {
        const choice = choiceFor(given, tensor);
        if (choice === null) continue;
        const unit = engine.encode(matrix, choice);
        const decoded = new Float32Array(engine.decode(unit.bytes).bytes.buffer, 0, values.length);
        const point = {
          bits: (unit.bytes.byteLength * 8) / values.length,
          relative: unit.relativeError,
          largest: unit.maxError / magnitude,
          attention: tensor.queries === undefined ? null : attentionError(tensor, decoded),
        };
        lines[line] = [...(lines[line] ?? []), point];
        const detail = choice.bits ?? choice.bitsPerValue ?? choice.rank ?? choice.variant ?? "";
        table[`${title}: ${choice.codec} ${detail}${given.share ?? ""}`] = {
          bits: point.bits.toFixed(2),
          relative: point.relative.toExponential(2),
          largest: point.largest.toExponential(2),
          attention: point.attention?.toExponential(2) ?? "",
        };
      }
    }
    tables.push(table);
    panels.push({ title, losslessBits, lines });
    const name = title.replaceAll(/[ ,()]+/g, "-").replace(/-$/, "");
    figures.push(plain(`rate-lossless-bits/${name}`, losslessBits, "bits"));
    figures.push(plain(`rate-chan4-relative-error/${name}`, lines.chan[2].relative, "share"));
    if (tensor.queries !== undefined) {
      figures.push(plain(`rate-chan4-attention-error/${name}`, lines.chan[2].attention, "share"));
      figures.push(plain(`rate-q4-attention-error/${name}`, lines.block[1].attention, "share"));
    }
  }
  return { figures, tables, panels };
}
