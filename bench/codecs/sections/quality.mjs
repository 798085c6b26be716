// Attention error of page codecs with exact pins, on six types of heads and three variants of their
// generator. Queries 128 to 255 are scored; no encoder sees any query.
import { CodecEngine } from "../../../dist/src/codec/engine.js";
import { CodecWorkspace } from "../../../dist/src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { attentionError, D, HEAD_TYPES, makeHead, rotary, VARIANTS } from "../data/heads.mjs";

const SINKS = 4;
const RECENT = 32;
const PIN_BITS = 16;

/** How keys and values are coded. `isBefore`: keys are coded before rotary embedding. */
const RECIPES = {
  A8: { keys: { codec: "chan", bits: 8 }, values: { codec: "q8" } },
  A4: { keys: { codec: "chan", bits: 4 }, values: { codec: "lm", bits: 4 } },
  P3: {
    keys: { codec: "pca", bitsPerValue: 3 },
    values: { codec: "pca", bitsPerValue: 3 },
    isBefore: true,
  },
  q4: { keys: { codec: "q4" }, values: { codec: "q4" } },
};
const TARGETS = { A8: 0.008, A4: 0.045, P3: 0.04 };

const bytesOf = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Codes the tokens between the pins. @returns All tokens decoded, and bits per value of the middle. */
function code(engine, source, choice, tokenCount) {
  const rows = tokenCount - SINKS - RECENT;
  const middle = source.slice(SINKS * D, (SINKS + rows) * D);
  const matrix = { bytes: bytesOf(middle), dtype: "f32", rows, columns: D };
  const unit = engine.encode(matrix, choice);
  const decoded = engine.decode(unit.bytes);
  const values = new Float32Array(source);
  values.set(new Float32Array(decoded.bytes.buffer), SINKS * D);
  const basisBits = choice.codec === "pca" ? (D + 1) * D * 16 : 0;
  return { values, bits: (unit.bytes.byteLength * 8 - basisBits) / (rows * D), basisBits };
}

function measure(engine, head, recipe) {
  const { tokenCount } = head;
  const keys = code(engine, recipe.isBefore ? head.keysBefore : head.keys, recipe.keys, tokenCount);
  if (recipe.isBefore) {
    for (let t = SINKS; t < tokenCount - RECENT; t++) rotary(keys.values, t, t);
    for (const [from, to] of [
      [0, SINKS],
      [tokenCount - RECENT, tokenCount],
    ]) {
      keys.values.set(head.keys.subarray(from * D, to * D), from * D);
    }
  }
  const values = code(engine, head.values, recipe.values, tokenCount);
  const pinned = (SINKS + RECENT) / tokenCount;
  const core = (keys.bits + values.bits) / 2;
  return {
    error: attentionError(head, keys.values, values.values, 128, 256),
    core,
    bits: core * (1 - pinned) + PIN_BITS * pinned,
    basis: (keys.basisBits + values.basisBits) / (2 * tokenCount * D),
  };
}

const geometricMean = (values) =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
const percent = (value) => `${(value * 100).toFixed(2)} %`;

export async function run({ isQuick }) {
  const workspace = await CodecWorkspace.create(2 ** 26, createUnsharedMemory);
  const engine = new CodecEngine(workspace);
  const seeds = isQuick ? [100] : [100, 200];
  const found = [];
  for (const variant of Object.keys(VARIANTS)) {
    for (const type of Object.keys(HEAD_TYPES)) {
      for (const seed of seeds) {
        const head = makeHead(type, seed, { variant });
        for (const [name, recipe] of Object.entries(RECIPES)) {
          found.push({ variant, type, name, ...measure(engine, head, recipe) });
        }
      }
    }
  }
  const table = {};
  const figures = [];
  const of = (name, variant) => found.filter((e) => e.name === name && e.variant === variant);
  const means = new Map();
  for (const variant of Object.keys(VARIANTS)) {
    for (const name of Object.keys(RECIPES)) {
      const errors = of(name, variant).map(({ error }) => error);
      means.set(`${name} ${variant}`, geometricMean(errors));
      const [{ core, bits, basis }] = of(name, variant);
      table[`${name} ${variant}`] = {
        "attention error": percent(geometricMean(errors)),
        worst: percent(Math.max(...errors)),
        "core bits": core.toFixed(2),
        "bits with pins": bits.toFixed(2),
        "basis bits": basis.toFixed(2),
      };
    }
  }
  const variants = Object.keys(VARIANTS);
  for (const name of ["A8", "A4", "P3"]) {
    for (const variant of variants) {
      const value = means.get(`${name} ${variant}`);
      const target = TARGETS[name];
      const { bits, core } = of(name, variant)[0];
      figures.push({
        id: `codecs/attention-error-${name.toLowerCase()}/${variant}`,
        value,
        unit: "share",
        target,
        met: value <= target,
        beside: `${core.toFixed(2)} bits, ${bits.toFixed(2)} with pins; q4 ${percent(means.get(`q4 ${variant}`))}`,
      });
    }
  }
  for (const variant of variants) {
    const value = means.get(`q4 ${variant}`) / means.get(`A4 ${variant}`);
    const met = value >= 2;
    figures.push({
      id: `codecs/attention-error-q4-over-a4/${variant}`,
      ...{ value, unit: "ratio", target: 2, met, beside: "the same pins, mean of all heads" },
    });
  }
  const ratios = variants.flatMap((variant) =>
    Object.keys(HEAD_TYPES).map((type) => {
      const mean = (name) =>
        geometricMean(
          of(name, variant)
            .filter((e) => e.type === type)
            .map(({ error }) => error),
        );
      return { head: `${type}, ${variant}`, ratio: mean("q4") / mean("A4") };
    }),
  );
  const least = ratios.reduce((a, b) => (a.ratio <= b.ratio ? a : b));
  figures.push({
    id: "codecs/attention-error-q4-over-a4/least",
    value: least.ratio,
    unit: "ratio",
    target: 2,
    met: least.ratio >= 2,
    beside: `${least.head}; ${ratios.filter(({ ratio }) => ratio >= 2).length} of ${ratios.length} heads reach 2`,
  });
  return { tables: [table], figures };
}
