// From a tensor and a choice to the header of its unit: what a choice may say, and what follows from it.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { MisuseError } from "../errors.js";
import type { Dtype } from "../types.js";
import { type CodecName, roundUp, type UnitHeader, type Variant } from "./format.js";

/** A tensor as codecs see it: its last dimension is the columns. */
export interface Matrix {
  /** Little-endian elements, row by row; exactly `rows` × `columns` of them. */
  readonly bytes: Uint8Array;
  readonly dtype: Dtype;
  readonly rows: number;
  readonly columns: number;
}

/** A codec with everything that decides its bytes. */
export interface Choice {
  readonly codec: CodecName;
  /** Of `chan` 1 to 8, of `lm` 2 to 4. */
  readonly bits?: number;
  /** Default: `f16`. */
  readonly variant?: Variant;
  /** Of `chan` and `pca`: rows of a page. Default: 64. */
  readonly pageRows?: number;
  /** Of `lowrank`: 1 to the smaller side. */
  readonly rank?: number;
  /** Of `sparse`: magnitudes from here on are kept. */
  readonly threshold?: number;
  /** Of `pca`: bits per value, ranges included, the basis apart. */
  readonly bitsPerValue?: number;
  /** Of `q8` and `q4`: codes as ggml computes them. Default: false. */
  readonly isExact?: boolean;
  /** Of `lowrank` and `pca`, for keys: they have not been rotated by position yet. */
  readonly isBeforeRotary?: boolean;
}

/** Rows of a page of `chan`, unless the choice says otherwise: one page of a KV cache. */
export const PAGE_ROWS = 64;
const COMPONENT_PAGE_ROWS = 128;
/** log2 of the longest vector that is rotated. */
const LM_GROUP_MAX = 10;
const LM_GROUP_MIN = 5;
/** log2 of the length of the vectors that `lm` rotates in rows of this length; null if there is none. */
export function lmGroup(columns: number): number | null {
  const group = Math.min(LM_GROUP_MAX, Math.log2(columns & -columns));
  return group < LM_GROUP_MIN ? null : group;
}

/** The header of a codec that has no parameters but a variant. */
export function plainHeader(matrix: Matrix, { codec, variant = "f16" }: Choice): UnitHeader {
  const { dtype, rows, columns } = matrix;
  return {
    codec,
    dtype,
    rows,
    columns,
    variant,
    ...{ group: 0, scaleExponent: 0, bits: 0, count: 0, isBeforeRotary: false, isExact: false },
    ...{ relativeError: 0, maxError: 0 },
  };
}

/** The header of a quantised unit, its errors still 0. @throws {MisuseError} `bad-option`. */
export function headerFor(
  workspace: CodecWorkspace,
  matrix: Matrix,
  choice: Choice,
  values: number,
  scaleExponent: number,
): { header: UnitHeader; thresholdBits: number } {
  const { codec, bits = 0, isExact = false, isBeforeRotary = false } = choice;
  const refuse = (what: string) => new MisuseError("bad-option", `${codec}: ${what}`);
  const { rows, columns } = matrix;
  const base = { ...plainHeader(matrix, choice), scaleExponent, isExact, isBeforeRotary };
  if (codec === "chan" || codec === "pca") {
    const group = choice.pageRows ?? (codec === "pca" ? COMPONENT_PAGE_ROWS : PAGE_ROWS);
    if (columns % 16 !== 0) throw refuse("columns are a multiple of 16");
    if (group % 8 !== 0 || group < 8 || group > 248) throw refuse("pages of 8 to 248 rows");
    if (codec === "chan" && !(bits >= 1 && bits <= 8)) throw refuse("1 to 8 bits");
    return { header: { ...base, group, bits }, thresholdBits: 0 };
  }
  if (codec === "lm") {
    const group = lmGroup(columns);
    if (group === null) throw refuse("columns are a multiple of 32");
    if (!(bits >= 2 && bits <= 4)) throw refuse("2 to 4 bits");
    return { header: { ...base, group, bits }, thresholdBits: 0 };
  }
  if (codec === "lowrank") {
    const rank = choice.rank ?? 0;
    if (rows % 8 !== 0 || columns % 8 !== 0) throw refuse("sides are multiples of 8");
    if (!(rank >= 1 && rank <= Math.min(rows, columns))) throw refuse("rank");
    return { header: { ...base, count: rank }, thresholdBits: 0 };
  }
  if (codec === "sparse") {
    const scaled = Math.fround((choice.threshold ?? 0) * 2 ** scaleExponent);
    const thresholdBits = Math.max(1, new Uint32Array(Float32Array.of(scaled).buffer)[0] as number);
    const count = countKept(workspace, values, rows * columns, thresholdBits);
    return { header: { ...base, count }, thresholdBits };
  }
  return { header: base, thresholdBits: 0 };
}

/** How many magnitudes are at least the threshold. */
function countKept(
  workspace: CodecWorkspace,
  values: number,
  count: number,
  thresholdBits: number,
): number {
  return workspace.within(() => {
    const padded = roundUp(count, 64);
    workspace.f32(values, padded).fill(0, count);
    const bitmap = workspace.take(padded / 8);
    const kept = workspace.take((padded + 1) * 4);
    return workspace.kernels.sparseEncode(values, padded, thresholdBits, bitmap, kept);
  });
}
