// The codec `lowrank`: a truncated singular value decomposition as two factors. The smaller side's Gram
// matrix is formed once; orthogonal iteration on it finds the leading subspace, whatever the gap.
//
// Source: Halko, Martinsson and Tropp, "Finding Structure with Randomness", section 4.5 — iteration of
// a random subspace and the oversampling.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { seededRandom } from "../random.js";
import { BLOCK_VALUES, roundUp } from "./format.js";
import { loadParts, storeParts, type UnitPlace } from "./parts.js";

/** Dimensions beyond the rank that the iterated subspace has. */
const OVERSAMPLING = 16;
const ITERATIONS = 4;
const SEED = 0x51ab;
/** A Gram matrix of a longer side would not pay. */
export const GRAM_SIDE_MAX = 1024;

/** A Gram matrix and its moments. */
export interface Gram {
  readonly address: number;
  /** Length of the smaller side. */
  readonly side: number;
  /** The matrix with its smaller side as columns; the values themselves unless they lie across. */
  readonly tall: number;
  /** Length of the larger side. */
  readonly tallRows: number;
  readonly isAcross: boolean;
  /** Sum of the diagonal: the sum of all squares. */
  readonly trace: number;
  /** Sum of the squares of the matrix: of the squares of its eigenvalues. */
  readonly squares: number;
}

/** Whether a matrix of these sides can be decomposed: multiples of 8, the smaller one not too long. */
export function hasFactors(rows: number, columns: number): boolean {
  const side = Math.min(rows, columns);
  return rows % 8 === 0 && columns % 8 === 0 && side >= 8 && side <= GRAM_SIDE_MAX;
}

/** Forms the Gram matrix over the smaller side of `rows` × `columns` f32. */
export function formGram(
  workspace: CodecWorkspace,
  values: number,
  rows: number,
  columns: number,
): Gram {
  const { kernels } = workspace;
  const isAcross = columns > rows;
  const side = Math.min(rows, columns);
  const tallRows = Math.max(rows, columns);
  const rowBytes = side * 4;
  let tall = values;
  if (isAcross) {
    tall = workspace.take(rows * columns * 4);
    kernels.matrixTranspose(values, columns * 4, tall, rowBytes, rows, columns);
  }
  const address = workspace.take(side * rowBytes);
  const moments = workspace.take(16);
  kernels.matrixMultiply(
    tall,
    4,
    rowBytes,
    tall,
    rowBytes,
    address,
    rowBytes,
    side,
    side,
    tallRows,
    1,
  );
  kernels.matrixMirror(address, side);
  kernels.matrixMoments(address, side, moments);
  const [trace = 0, squares = 0] = workspace.f64(moments, 2);
  return { address, side, tall, tallRows, isAcross, trace, squares };
}

/** The leading eigenvectors of a Gram matrix. */
export interface Spectrum {
  /** Descending; the squares of singular values. */
  readonly eigenvalues: Float64Array;
  /** Rows of f32 of length `side`, as many as there are eigenvalues, a multiple of 8. */
  readonly vectors: number;
}

/** @param rank Eigenvalues wanted; as many or up to 7 more come back. */
export function findSpectrum(workspace: CodecWorkspace, gram: Gram, rank: number): Spectrum {
  const { kernels } = workspace;
  const { side } = gram;
  const kept = Math.min(side, roundUp(rank, 8));
  const width = Math.min(side, roundUp(rank + OVERSAMPLING, 8));
  const rowBytes = side * 4;
  let basis = workspace.take(width * rowBytes);
  let product = workspace.take(width * rowBytes);
  const multiply = (left: number, target: number) =>
    kernels.matrixMultiply(
      left,
      rowBytes,
      4,
      gram.address,
      rowBytes,
      target,
      rowBytes,
      width,
      side,
      side,
      0,
    );
  const random = seededRandom(SEED);
  const start = workspace.f32(basis, width * side);
  for (let index = 0; index < start.length; index++) start[index] = random.uint32() / 2 ** 31 - 1;
  kernels.matrixOrthonormalise(basis, width, side);
  // A basis of the whole space needs no iteration.
  const iterations = width === side ? 0 : ITERATIONS;
  for (let iteration = 0; iteration < iterations; iteration++) {
    multiply(basis, product);
    kernels.matrixOrthonormalise(product, width, side);
    [basis, product] = [product, basis];
  }
  multiply(basis, product);
  const turned = workspace.take(width * rowBytes);
  kernels.matrixTranspose(basis, rowBytes, turned, width * 4, width, side);
  const small = workspace.take(width * width * 4);
  kernels.matrixMultiply(
    product,
    rowBytes,
    4,
    turned,
    width * 4,
    small,
    width * 4,
    width,
    width,
    side,
    0,
  );
  const { eigenvalues, vectors } = eigen(workspace, small, width, kept);
  const leading = workspace.take(kept * rowBytes);
  kernels.matrixMultiply(
    vectors,
    width * 4,
    4,
    basis,
    rowBytes,
    leading,
    rowBytes,
    kept,
    side,
    width,
    0,
  );
  return { eigenvalues, vectors: leading };
}

/**
 * Eigenvalues, descending, and eigenvectors of a symmetric `n` × `n` f32 matrix.
 *
 * @param wanted How many of each.
 * @returns `vectors` is the address of rows of `n` f32.
 */
export function eigen(
  workspace: CodecWorkspace,
  matrix: number,
  n: number,
  wanted: number,
): { eigenvalues: Float64Array; vectors: number } {
  const wide = workspace.take(n * n * 8);
  const vectorsWide = workspace.take(n * n * 8);
  const values = workspace.take(n * 8);
  const scratch = workspace.take(n * 24);
  workspace.f64(wide, n * n).set(workspace.f32(matrix, n * n));
  workspace.kernels.eigenSymmetric(wide, n, values, vectorsWide, wanted, scratch);
  const vectors = workspace.take(wanted * n * 4);
  workspace.f32(vectors, wanted * n).set(workspace.f64(vectorsWide, wanted * n));
  return { eigenvalues: workspace.f64(values, wanted).slice(), vectors };
}

/** Writes the factors of the best approximation of that rank. The header's count is the rank. */
export function encodeFactors(workspace: CodecWorkspace, place: UnitPlace, values: number): void {
  const { header, sections, address } = place;
  const { rows, columns, count: rank } = header;
  const gram = formGram(workspace, values, rows, columns);
  const { vectors } = findSpectrum(workspace, gram, rank);
  const { first, second, length } = project(workspace, gram, vectors, rank, rows, columns);
  const codes = address + sections.codes;
  const scales = address + sections.scales;
  const bytesPerValue = header.variant === "q8" ? 1 : 2;
  const firstCount = rank * roundUp(rows, BLOCK_VALUES);
  storeParts(workspace, first, firstCount, header.variant, codes, scales);
  storeParts(
    workspace,
    second,
    rank * length,
    header.variant,
    codes + firstCount * bytesPerValue,
    scales + firstCount / (BLOCK_VALUES / 2),
  );
}

/** Both factors, component by component, each component padded with zeros. */
function project(
  workspace: CodecWorkspace,
  gram: Gram,
  vectors: number,
  rank: number,
  rows: number,
  columns: number,
): { first: number; second: number; length: number } {
  const { kernels } = workspace;
  const { side, tall, tallRows, isAcross } = gram;
  const width = Math.min(side, roundUp(rank, 8));
  const turned = workspace.take(side * width * 4);
  kernels.matrixTranspose(vectors, side * 4, turned, width * 4, width, side);
  const scores = workspace.take(tallRows * width * 4);
  kernels.matrixMultiply(
    tall,
    side * 4,
    4,
    turned,
    width * 4,
    scores,
    width * 4,
    tallRows,
    width,
    side,
    0,
  );
  const longLength = roundUp(tallRows, BLOCK_VALUES);
  const long = workspace.take(rank * longLength * 4);
  workspace.f32(long, rank * longLength).fill(0);
  kernels.matrixTranspose(scores, width * 4, long, longLength * 4, tallRows, rank);
  const shortLength = roundUp(side, BLOCK_VALUES);
  const short = workspace.take(rank * shortLength * 4);
  const cells = workspace.f32(short, rank * shortLength).fill(0);
  const source = workspace.f32(vectors, rank * side);
  for (let component = 0; component < rank; component++) {
    const row = source.subarray(component * side, (component + 1) * side);
    cells.set(row, component * shortLength);
  }
  const length = roundUp(columns, BLOCK_VALUES);
  void rows;
  return isAcross ? { first: short, second: long, length } : { first: long, second: short, length };
}

/** Multiplies the factors. */
export function decodeFactors(workspace: CodecWorkspace, place: UnitPlace, target: number): void {
  const { header, sections, address } = place;
  const { rows, columns, count: rank, variant } = header;
  const rowsLength = roundUp(rows, BLOCK_VALUES);
  const columnsLength = roundUp(columns, BLOCK_VALUES);
  const total = rank * (rowsLength + columnsLength);
  const factors = workspace.take(total * 4);
  const codes = address + sections.codes;
  loadParts(workspace, codes, address + sections.scales, total, variant, factors);
  // Whole tiles: the factors are padded, and so is the product, before its rows are cut.
  const pitch = roundUp(columns, 8);
  const isWhole = pitch === columns && rows % 4 === 0;
  const product = isWhole ? target : workspace.take(roundUp(rows, 4) * pitch * 4);
  workspace.kernels.matrixMultiply(
    factors,
    4,
    rowsLength * 4,
    factors + rank * rowsLength * 4,
    columnsLength * 4,
    product,
    pitch * 4,
    roundUp(rows, 4),
    pitch,
    rank,
    0,
  );
  if (isWhole) return;
  const from = workspace.f32(product, rows * pitch);
  const to = workspace.f32(target, rows * columns);
  for (let row = 0; row < rows; row++) {
    to.set(from.subarray(row * pitch, row * pitch + columns), row * columns);
  }
}
