// What quantising codecs share: a unit's place in the workspace, vectors of f16 or q8, pages of rows.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import {
  BLOCK_VALUES,
  paddedRows,
  roundUp,
  type Sections,
  type UnitHeader,
  type Variant,
} from "./format.js";

/** A unit that is being written or read: addresses in the workspace. */
export interface UnitPlace {
  readonly header: UnitHeader;
  readonly sections: Sections;
  /** Of the header. */
  readonly address: number;
}

/** Values behind the last one that codecs may overwrite: room for padding. */
export function paddedCount(rows: number, columns: number): number {
  return roundUp(rows * columns, 4096) + 8 * columns;
}

/** Stores `count` f32, a multiple of 32, as f16 or q8. */
export function storeParts(
  workspace: CodecWorkspace,
  values: number,
  count: number,
  variant: Variant,
  codes: number,
  scales: number,
): void {
  const { kernels } = workspace;
  if (variant === "q8") kernels.q8Encode(values, codes, scales, count / BLOCK_VALUES);
  else kernels.f16Encode(values, codes, count);
}

/** Reverses {@link storeParts}. */
export function loadParts(
  workspace: CodecWorkspace,
  codes: number,
  scales: number,
  count: number,
  variant: Variant,
  target: number,
): void {
  const { kernels } = workspace;
  if (variant === "q8") kernels.q8Decode(codes, scales, target, count / BLOCK_VALUES);
  else kernels.f16Decode(codes, target, count);
}

/** Runs `work` for each page of `chan` or `pca`, with its first row and its padded row count. */
export function eachPage(
  { rows, group }: UnitHeader,
  work: (page: number, firstRow: number, pageRows: number) => void,
): void {
  for (let first = 0, page = 0; first < rows; first += group, page++) {
    work(page, first, roundUp(Math.min(group, rows - first), 8));
  }
}

/** Repeats the last row until the last page is full. */
export function repeatLastRow(workspace: CodecWorkspace, values: number, header: UnitHeader): void {
  const { rows, columns } = header;
  const end = paddedRows(header);
  const cells = workspace.f32(values, end * columns);
  for (let row = rows; row < end; row++) {
    cells.copyWithin(row * columns, (rows - 1) * columns, rows * columns);
  }
}
