// Tensors larger than the workspace: rows are cut into parts that fit, and each part is a unit of its own.
// A relative error, and a largest one, of every part is one of the whole.
import { CorruptionError, MisuseError } from "../errors.js";
import { dtypeTraits } from "../types.js";
import type { AdaptiveCompressor, Compressed, ErrorBudget } from "./adaptive-compressor.js";
import { parseUnit } from "./format.js";
import type { Matrix } from "./unit-header.js";

/**
 * Compresses a tensor part by part, top to bottom. One part is in memory at a time.
 *
 * @param budget With the metric `max`, each part's own largest magnitude counts, which is stricter.
 * @throws {MisuseError} `bad-size` — not even eight rows fit the workspace; `bad-option` — the metric is
 *   `attention`, which needs all rows at once.
 */
export function* compressStream(
  compressor: AdaptiveCompressor,
  matrix: Matrix,
  budget: ErrorBudget,
): Generator<Compressed> {
  const { rows, columns, dtype, bytes } = matrix;
  if (budget.metric === "attention") {
    throw new MisuseError("bad-option", "the metric attention needs all rows at once");
  }
  const { engine } = compressor;
  let partRows = rows;
  while (partRows > 8 && !engine.fits(partRows, columns, dtype)) {
    partRows = Math.ceil(partRows / 2 / 64) * 64 < partRows ? Math.ceil(partRows / 2 / 64) * 64 : 8;
  }
  const rowBytes = columns * dtypeTraits(dtype).elementBytes;
  for (let first = 0; first < rows; first += partRows) {
    const height = Math.min(partRows, rows - first);
    const part = bytes.subarray(first * rowBytes, (first + height) * rowBytes);
    yield compressor.compress({ ...matrix, bytes: part, rows: height }, budget);
  }
}

/**
 * Decodes units that lie one after the other, as {@link compressStream} gives them.
 *
 * @throws {CorruptionError} A unit is malformed.
 */
export function* decompressStream(
  compressor: AdaptiveCompressor,
  units: Uint8Array,
): Generator<Matrix> {
  for (let offset = 0; offset < units.byteLength; ) {
    const rest = units.subarray(offset);
    const parsed = parseUnit(rest, Number.MAX_SAFE_INTEGER);
    if (parsed.verdict === "malformed") throw new CorruptionError("codec", parsed.reason);
    yield compressor.decompress(rest);
    offset += parsed.sections.totalBytes;
  }
}
