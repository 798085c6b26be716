// Every codec that could hold a tensor, with the bytes it would take and the error it would make.

import { hasFactors } from "./factors.js";
import { CODEC_IDS, type CodecName, sectionsOf, type UnitHeader, type Variant } from "./format.js";
import type { Facts } from "./scan.js";
import { type Choice, lmGroup, type Matrix, PAGE_ROWS } from "./unit-header.js";

/** What an error budget is measured by. */
export type ErrorMetric = "relative" | "max" | "attention";

/** A codec that may be chosen. */
export interface Candidate {
  readonly choice: Choice;
  /** Bytes of the unit; of `plane` an estimate. */
  readonly bytes: number;
  /** Relative error, estimated. */
  readonly relative: number;
  /** Largest absolute error, estimated. */
  readonly largest: number;
}

/** Relative error of Lloyd-Max codes of 2, 3 and 4 bits on a rotated vector, whatever the values. */
const LM_ERRORS = new Map([
  [2, 0.343],
  [3, 0.186],
  [4, 0.0975],
]);
/** Relative error of rounding to 11 and to 8 bits, evenly spread. */
const F16_ERROR = (2 ** -11 * 0.75) / Math.sqrt(3);
const BF16_ERROR = (2 ** -8 * 0.75) / Math.sqrt(3);
/** Relative error of q8 vectors of a codec's parts. */
const Q8_PART_ERROR = 0.006;
/** How far the largest of many errors lies from their root mean square. */
const PEAK_FACTOR = 5;

function headerOf(matrix: Matrix, choice: Choice, count = 0): UnitHeader {
  const isLm = choice.codec === "lm";
  return {
    codec: choice.codec,
    dtype: matrix.dtype,
    rows: matrix.rows,
    columns: matrix.columns,
    group: isLm ? (lmGroup(matrix.columns) ?? 0) : choice.codec === "chan" ? PAGE_ROWS : 0,
    bits: choice.bits ?? 0,
    variant: choice.variant ?? "f16",
    count,
    ...{ scaleExponent: 0, isBeforeRotary: false, isExact: false },
    ...{ relativeError: 0, maxError: 0 },
  };
}

function bytesOf(matrix: Matrix, choice: Choice, count = 0): number {
  return sectionsOf(headerOf(matrix, choice, count)).totalBytes;
}

/** Quantisers whose error the ranges tell. */
export function quantisers(matrix: Matrix, facts: Facts): Candidate[] {
  const { squares, blocks, channels, widestRange, magnitude, deviation } = facts;
  const found: Candidate[] = [];
  const add = (choice: Choice, relative: number, largest: number) =>
    found.push({ choice, bytes: bytesOf(matrix, choice), relative, largest });
  const share = (sum: number) => (squares > 0 ? Math.sqrt(sum / squares) : 0);
  add({ codec: "q8" }, share((4 * blocks) / (12 * 254 ** 2)), magnitude / 253);
  add({ codec: "q4" }, share((4 * blocks) / (12 * 16 ** 2)), magnitude / 8);
  if (matrix.columns % 16 === 0) {
    for (const bits of [8, 6, 4, 3, 2]) {
      const steps = 2 ** bits - 1;
      const low = bits <= 3 ? 0.97 : 1;
      const relative = share(channels / (12 * steps ** 2)) * low;
      add({ codec: "chan", bits }, relative, (0.52 * widestRange) / steps);
    }
  }
  if (lmGroup(matrix.columns) !== null) {
    for (const [bits, error] of LM_ERRORS) {
      add({ codec: "lm", bits }, error, error * deviation * PEAK_FACTOR);
    }
  }
  if (matrix.dtype === "f32") {
    const isPlain = magnitude < 65504 && magnitude > 1e-3;
    if (isPlain) add({ codec: "half", variant: "f16" }, F16_ERROR, magnitude * 2 ** -11);
    add({ codec: "half", variant: "bf16" }, BF16_ERROR, magnitude * 2 ** -8);
  }
  return found;
}

/**
 * Magnitude sparsity, with the threshold that drops the share of squares that the budget allows.
 *
 * @param largestAllowed With the metric `max`: the largest magnitude that may be dropped.
 */
export function sparsities(
  matrix: Matrix,
  facts: Facts,
  epsilon: number,
  largestAllowed: number | null,
): Candidate[] {
  return (["f16", "q8"] as const).flatMap((variant) => {
    const found = thresholdFor(facts, variant, epsilon, largestAllowed);
    if (found === null) return [];
    const { threshold, kept, dropped } = found;
    const choice: Choice = { codec: "sparse", variant, threshold };
    const count = Math.ceil(kept * matrix.rows * matrix.columns);
    const partError = variant === "q8" ? Q8_PART_ERROR : F16_ERROR;
    const largest = Math.max(threshold, facts.magnitude / (variant === "q8" ? 253 : 2048));
    const relative = Math.sqrt(dropped + partError ** 2);
    return [{ choice, bytes: bytesOf(matrix, choice, count), relative, largest }];
  });
}

function thresholdFor(
  { bins, magnitude }: Facts,
  variant: Variant,
  epsilon: number,
  largestAllowed: number | null,
): { threshold: number; kept: number; dropped: number } | null {
  const allowed = ((variant === "q8" ? 0.7 : 0.9) * epsilon) ** 2;
  if (largestAllowed !== null && variant === "q8" && magnitude / 253 > largestAllowed) return null;
  let dropped = 0;
  let kept = 1;
  let threshold = 0;
  for (const { from, share, energyShare } of bins) {
    const isAllowed =
      largestAllowed === null ? dropped + energyShare <= allowed : from * 1.125 <= largestAllowed;
    if (!isAllowed) break;
    dropped += energyShare;
    kept -= share;
    threshold = from === 0 ? 2 ** -149 : from * 1.125;
  }
  return threshold === 0 ? null : { threshold, kept: Math.max(0, kept), dropped };
}

/** Most components that take no more than `bytesMax`; 0 if the matrix has no factors. */
export function rankLimit(matrix: Matrix, variant: Variant, bytesMax: number): number {
  const { rows, columns } = matrix;
  if (!hasFactors(rows, columns)) return 0;
  const perRank =
    bytesOf(matrix, { codec: "lowrank", variant }, 9) -
    bytesOf(matrix, { codec: "lowrank", variant }, 8);
  return Math.min(Math.min(rows, columns), Math.floor((bytesMax - 128) / Math.max(1, perRank)));
}

/**
 * The truncated decomposition whose dropped components are the error that the budget allows.
 *
 * @param eigenvalues The leading ones of the Gram matrix, descending.
 * @param trace Of that matrix.
 * @returns Null if even all the eigenvalues given leave too much.
 */
export function lowRankCandidate(
  matrix: Matrix,
  variant: Variant,
  eigenvalues: ArrayLike<number>,
  trace: number,
  epsilon: number,
): Candidate | null {
  const share = variant === "q8" ? 0.9 : 0.93;
  const partError = variant === "q8" ? Q8_PART_ERROR * Math.SQRT2 : F16_ERROR;
  if (trace <= 0) return null;
  let left = trace;
  for (let rank = 1; rank <= eigenvalues.length; rank++) {
    left -= eigenvalues[rank - 1] as number;
    const tail = Math.max(0, left) / trace;
    if (tail > (share * epsilon) ** 2) continue;
    const choice: Choice = { codec: "lowrank", variant, rank };
    const relative = Math.sqrt(tail + partError ** 2);
    return { choice, bytes: bytesOf(matrix, choice, rank), relative, largest: Number.NaN };
  }
  return null;
}

/** The lossless codecs, bytes of `plane` estimated. */
export function losslessCandidates(matrix: Matrix, planeBits: number): Candidate[] {
  const { rows, columns } = matrix;
  const plane = 256 + Math.ceil((rows * columns * planeBits) / 8);
  return [
    { choice: { codec: "plane" }, bytes: plane, relative: 0, largest: 0 },
    { choice: { codec: "raw" }, bytes: bytesOf(matrix, { codec: "raw" }), relative: 0, largest: 0 },
  ];
}

/** Whether a codec gives back exactly what it was given. */
export function isLossless(codec: CodecName): boolean {
  return CODEC_IDS[codec] <= CODEC_IDS.plane;
}
