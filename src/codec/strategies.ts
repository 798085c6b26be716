// Compression by a named strategy, without an error budget: what the caller asks for is what happens, and
// the measured error says what it did.
import { MisuseError } from "../errors.js";
import type { AdaptiveCompressor, ErrorBudget } from "./adaptive-compressor.js";
import type { EncodedUnit } from "./engine.js";
import type { Choice, Matrix } from "./unit-header.js";

/** A strategy and its one parameter. */
export type Strategy =
  /** Codes of so many bits: 8 or 4. Default: 8. */
  | { readonly name: "quantization"; readonly bits?: 8 | 4 }
  /** Truncated decomposition that keeps this share of the smaller side. Default: 0.5. */
  | { readonly name: "svd"; readonly rankRatio?: number }
  /** This share of the values, the smallest ones, becomes zero. Default: 0.7. */
  | { readonly name: "sparse"; readonly sparsity?: number }
  /** Whatever keeps the budget with the fewest bytes. */
  | { readonly name: "auto"; readonly budget: ErrorBudget };

/**
 * Compresses a tensor by a strategy.
 *
 * @param isAfterRotary The tensor holds keys that rotary embedding has been applied to. Default: false.
 * @throws {MisuseError} `bad-option` — the parameter is out of range, or `svd` of keys after rotary embedding,
 *   which have no low rank.
 */
export function compressBy(
  compressor: AdaptiveCompressor,
  matrix: Matrix,
  strategy: Strategy,
  isAfterRotary = false,
): EncodedUnit {
  if (strategy.name === "auto") {
    const rotary = isAfterRotary ? "after" : "none";
    return compressor.compress(matrix, strategy.budget, { rotary });
  }
  if (strategy.name === "svd" && isAfterRotary) {
    throw new MisuseError("bad-option", "keys after rotary embedding have no low rank");
  }
  return compressor.engine.encode(matrix, choiceOf(matrix, strategy));
}

function choiceOf(matrix: Matrix, strategy: Exclude<Strategy, { name: "auto" }>): Choice {
  if (strategy.name === "quantization") {
    const { bits = 8 } = strategy;
    if (bits !== 8 && bits !== 4) throw new MisuseError("bad-option", "bits are 8 or 4");
    return { codec: bits === 8 ? "q8" : "q4" };
  }
  if (strategy.name === "svd") {
    const ratio = checkShare(strategy.rankRatio ?? 0.5, "rankRatio");
    const rank = Math.max(1, Math.round(Math.min(matrix.rows, matrix.columns) * ratio));
    return { codec: "lowrank", rank };
  }
  const sparsity = checkShare(strategy.sparsity ?? 0.7, "sparsity");
  return { codec: "sparse", threshold: magnitudeAt(matrix, sparsity) };
}

function checkShare(value: number, name: string): number {
  if (value >= 0 && value <= 1) return value;
  throw new MisuseError("bad-option", `${name} is a number from 0 to 1`);
}

/** The magnitude below which this share of the values lies. */
function magnitudeAt({ bytes, dtype }: Matrix, share: number): number {
  if (dtype !== "f32") throw new MisuseError("bad-option", `the strategy sparse takes f32`);
  const values = new Float32Array(bytes.slice().buffer);
  const magnitudes = values.map(Math.abs).sort();
  return magnitudes[Math.min(magnitudes.length - 1, Math.floor(share * magnitudes.length))] ?? 0;
}
