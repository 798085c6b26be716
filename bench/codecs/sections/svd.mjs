// Truncated singular value decompositions beside ml-matrix, and how far from the best error they are.
import { Matrix, SVD } from "ml-matrix";
import { CodecEngine } from "../../../dist/src/codec/engine.js";
import { findSpectrum, formGram } from "../../../dist/src/codec/factors.js";
import { CodecWorkspace } from "../../../dist/src/core/codec-workspace.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { Draws, multiply } from "../data/random.mjs";
import { atLeast, atMost, median, plain } from "../timing.mjs";

/** A matrix whose spectrum decays and then lies flat. */
function decaying(rows, columns, seed) {
  const draws = new Draws(seed);
  const a = draws.normal(rows * columns, 1 / Math.sqrt(columns));
  const b = draws.normal(columns * columns, 1 / Math.sqrt(columns));
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) a[i * columns + j] *= Math.exp(-j / 14) + 0.004;
  }
  return multiply(a, b, rows, columns, columns);
}

/** Best relative error of that rank, from singular values in double precision. */
function bestError(singular, rank) {
  const squares = singular.map((value) => value * value);
  const total = squares.reduce((sum, value) => sum + value, 0);
  return Math.sqrt(squares.slice(rank).reduce((sum, value) => sum + value, 0) / total);
}

export async function run({ isQuick }) {
  const workspace = await CodecWorkspace.create(2 ** 28, createUnsharedMemory);
  const engine = new CodecEngine(workspace);
  const rows = 2048;
  const columns = 128;
  const rank = 32;
  const values = decaying(rows, columns, 7);
  const matrix = { bytes: new Uint8Array(values.buffer), dtype: "f32", rows, columns };
  const theirs = Matrix.from1DArray(rows, columns, values);
  const theirMs = [];
  let singular = [];
  for (let round = 0; round < (isQuick ? 1 : 3); round++) {
    const start = performance.now();
    singular = new SVD(theirs, { autoTranspose: true }).diagonal;
    theirMs.push(performance.now() - start);
  }
  const ourMs = [];
  const projectMs = [];
  let error = 0;
  engine.load(matrix, (loaded) => {
    for (let round = 0; round < 30; round++) {
      workspace.within(() => {
        const start = performance.now();
        const gram = formGram(workspace, loaded.values, rows, columns);
        findSpectrum(workspace, gram, rank);
        ourMs.push(performance.now() - start);
      });
      const start = performance.now();
      const unit = engine.encodeLoaded(loaded, { codec: "lowrank", rank, variant: "f16" });
      projectMs.push(performance.now() - start);
      error = unit.relativeError;
    }
  });
  const factorMs = median(ourMs);
  const wholeMs = median(projectMs);
  const best = bestError(singular, rank);
  const beside = `ml-matrix ${median(theirMs).toFixed(0)} ms; factors, f16, decode and measurement`;
  const figures = [
    atLeast("svd-2048x128-r32-over-ml-matrix", median(theirMs) / wholeMs, 90, beside),
    atMost("svd-2048x128-r32-error-over-best", error / best, 1.001, `best ${best.toFixed(5)}`),
    atMost("svd-2048x128-r32", wholeMs, 5, "stretch; factors stored and measured", "ms"),
    plain("svd-2048x128-r32-spectrum", factorMs, "ms", "Gram matrix and leading eigenvectors"),
  ];
  const large = decaying(4096, 1024, 9);
  engine.load(
    { bytes: new Uint8Array(large.buffer), dtype: "f32", rows: 4096, columns: 1024 },
    (loaded) => {
      const ms = [];
      for (let round = 0; round < (isQuick ? 1 : 3); round++) {
        const start = performance.now();
        engine.encodeLoaded(loaded, { codec: "lowrank", rank: 128, variant: "f16" });
        ms.push(performance.now() - start);
      }
      figures.push(plain("svd-4096x1024-r128", median(ms), "ms", "as above"));
    },
  );
  return { figures };
}
