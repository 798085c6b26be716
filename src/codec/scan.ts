// One look at a tensor before anything is encoded: a sample of pages, magnitudes and bytes, from which
// the error of every codec can be told. Nothing here is a promise: the encoder measures.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { HUFFMAN_SCRATCH_BYTES } from "../core/codec-workspace.js";
import { dtypeTraits } from "../types.js";
import type { Loaded } from "./engine.js";
import { hasFactors } from "./factors.js";
import { PAGE_ROWS } from "./unit-header.js";

const SCAN_BYTES = 40;
/** Pages looked at, and columns of each. */
const PAGES_MAX = 4;
const WINDOW_COLUMNS = 128;
const MAGNITUDE_SAMPLES = 4096;
const MAGNITUDE_BINS = 2048;
const ENTROPY_PIECES = 4;
const ENTROPY_ELEMENTS = 512;
const RANK_ROWS = 32;

/** What the scan found. Sums are of the sample. */
export interface Facts {
  /** Sum of squares. */
  readonly squares: number;
  /** Sum over blocks of 32 of 32 × (largest magnitude)². */
  readonly blocks: number;
  /** Sum over pages and channels of rows × range². */
  readonly channels: number;
  /** Largest range of a channel. */
  readonly widestRange: number;
  /** Of all values; NaN if one is not finite. */
  readonly magnitude: number;
  /** Root of the mean square. */
  readonly deviation: number;
  /** Share of values, and of squares, in each bin of magnitudes, ascending. */
  readonly bins: readonly MagnitudeBin[];
  /** Bits per element that `plane` would need. */
  readonly planeBits: number;
}

/** Values whose magnitudes share their upper bits. */
export interface MagnitudeBin {
  /** The least magnitude of the bin. */
  readonly from: number;
  readonly share: number;
  readonly energyShare: number;
}

/** Looks at a loaded tensor of floats. */
export function scan(workspace: CodecWorkspace, loaded: Loaded): Facts {
  return workspace.within(() => {
    const { rows, columns } = loaded.matrix;
    const count = rows * columns;
    const { kernels } = workspace;
    const bits = kernels.measureMagnitude(loaded.values, count);
    const magnitude = bits >= 0x7f800000 ? Number.NaN : floatOfBits(bits);
    const [squares, blocks, channels, widestRange, sampled] = scanPages(workspace, loaded);
    return {
      ...{ squares, blocks, channels, widestRange, magnitude },
      deviation: sampled === 0 ? 0 : Math.sqrt(squares / sampled),
      bins: scanMagnitudes(workspace, loaded),
      planeBits: planeBitsOf(workspace, loaded),
    };
  });
}

function floatOfBits(bits: number): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0] as number;
}

/** Least magnitude of a bin: eight bins a power of two, and equal ones below the normal numbers. */
function binStart(bin: number): number {
  if (bin < 8) return bin * 2 ** -129;
  return (1 + (bin & 7) / 8) * 2 ** ((bin >> 3) - 127);
}

function scanPages(
  workspace: CodecWorkspace,
  { matrix, values }: Loaded,
): [squares: number, blocks: number, channels: number, range: number, sampled: number] {
  // Rows too short for a tile are looked at as if they were one.
  const isTiled = matrix.columns % 16 === 0;
  const columns = isTiled ? matrix.columns : 64;
  const rows = isTiled ? matrix.rows : Math.floor((matrix.rows * matrix.columns) / 64);
  const pages = Math.min(PAGES_MAX, Math.ceil(rows / PAGE_ROWS));
  const width = Math.min(columns, WINDOW_COLUMNS);
  const windows = Math.floor(columns / width);
  const target = workspace.take(SCAN_BYTES);
  const scratch = workspace.take(8 * width);
  workspace.bytes(target, SCAN_BYTES).fill(0);
  const pageCount = Math.ceil(rows / PAGE_ROWS);
  let sampled = 0;
  for (let page = 0; page < pages; page++) {
    const first = Math.floor((page * pageCount) / pages) * PAGE_ROWS;
    const height = Math.min(PAGE_ROWS, rows - first);
    const window = Math.floor((page * windows) / pages) * width;
    const source = values + (first * columns + window) * 4;
    workspace.kernels.measurePage(source, columns * 4, height, width, target, scratch);
    sampled += height * (width & ~15);
  }
  const [squares = 0, blocks = 0, channels = 0, range = 0] = workspace.f64(target, 4);
  return [squares, blocks, channels, range, sampled];
}

function scanMagnitudes(workspace: CodecWorkspace, { matrix, values }: Loaded): MagnitudeBin[] {
  const count = matrix.rows * matrix.columns;
  const step = Math.max(1, Math.floor(count / MAGNITUDE_SAMPLES));
  // An odd step visits every column.
  const stride = step > 1 ? step | 1 : 1;
  const sampled = Math.floor((count - 1) / stride) + 1;
  const table = workspace.take(MAGNITUDE_BINS * 4);
  const counts = workspace.u32(table, MAGNITUDE_BINS).fill(0);
  workspace.kernels.measureMagnitudes(values, sampled, stride * 4, table);
  const found: [from: number, count: number, energy: number][] = [];
  let total = 0;
  for (let bin = 0; bin < MAGNITUDE_BINS; bin++) {
    const inBin = counts[bin] as number;
    if (inBin === 0) continue;
    const from = binStart(bin);
    const energy = bin === 0 ? 0 : inBin * (from * (1 + 1 / 16)) ** 2;
    total += energy;
    found.push([from, inBin, energy]);
  }
  return found.map(([from, inBin, energy]) => {
    const energyShare = total > 0 ? energy / total : 0;
    return { from, share: inBin / sampled, energyShare };
  });
}

/** Entropy of each plane of a sample, with what the code lengths of a chunk add. */
export function planeBitsOf(workspace: CodecWorkspace, { matrix, original }: Loaded): number {
  return workspace.within(() => {
    const { kernels } = workspace;
    const { elementBytes } = dtypeTraits(matrix.dtype);
    const { dtype } = matrix;
    const isTurned = dtype === "f32" || dtype === "f16" || dtype === "bf16" ? 1 : 0;
    const unitBytes = Math.min(4, elementBytes);
    const units = (matrix.rows * matrix.columns * elementBytes) / unitBytes;
    const piece = Math.min(ENTROPY_ELEMENTS, Math.floor(units / ENTROPY_PIECES));
    if (piece === 0) return elementBytes * 8;
    const sampled = piece * ENTROPY_PIECES;
    const planes = workspace.take(sampled * unitBytes + 16);
    const gathered = workspace.take(sampled * unitBytes);
    for (let each = 0; each < ENTROPY_PIECES; each++) {
      const first = Math.floor(((units - piece) * each) / (ENTROPY_PIECES - 1));
      const source = workspace.bytes(original + first * unitBytes, piece * unitBytes);
      workspace.bytes(gathered + each * piece * unitBytes, piece * unitBytes).set(source);
    }
    let base = planes;
    if (unitBytes === 1) base = gathered;
    else if (unitBytes === 2) {
      kernels.planeSplit2(gathered, sampled, isTurned, planes, planes + sampled);
    } else kernels.planeSplit4(gathered, sampled, isTurned, planes, sampled);
    const scratch = workspace.take(HUFFMAN_SCRATCH_BYTES);
    let bits = 0;
    for (let plane = 0; plane < unitBytes; plane++) {
      kernels.huffmanCount(base + plane * sampled, sampled, scratch);
      bits += entropyOf(workspace.u32(scratch, 256), sampled);
    }
    return (bits * elementBytes) / unitBytes;
  });
}

/** Bits per symbol of a Huffman code, roughly, with the bias of a small sample taken back. */
function entropyOf(counts: Uint32Array, total: number): number {
  let sum = 0;
  let used = 0;
  for (const count of counts) {
    if (count === 0) continue;
    sum += count * Math.log2(count);
    used++;
  }
  if (used === 1) return 0;
  const bias = (used - 1) / (2 * total * Math.LN2);
  return Math.min(8, Math.max(1, Math.log2(total) - sum / total + bias) + 0.03);
}

/**
 * How many directions the rows take, roughly: tr(C)² ÷ tr(C²) of their second moments C, from the products of sampled rows with each other. A
 * product of two rows estimates tr(C²) without the bias that its own square would bring.
 *
 * @returns 0 if the sides have no factors.
 */
export function effectiveRankOf(workspace: CodecWorkspace, { matrix, values }: Loaded): number {
  const { rows, columns } = matrix;
  if (!hasFactors(rows, columns)) return 0;
  return workspace.within(() => {
    const { kernels } = workspace;
    const sampled = Math.min(RANK_ROWS, rows);
    const rowBytes = columns * 4;
    const gathered = workspace.take(sampled * rowBytes);
    const target = workspace.f32(gathered, sampled * columns);
    const source = workspace.f32(values, rows * columns);
    for (let row = 0; row < sampled; row++) {
      const from = Math.floor((row * rows) / sampled) * columns;
      target.set(source.subarray(from, from + columns), row * columns);
    }
    const turned = workspace.take(columns * sampled * 4);
    kernels.matrixTranspose(gathered, rowBytes, turned, sampled * 4, sampled, columns);
    const gram = workspace.take(sampled * sampled * 4);
    const { matrixMultiply } = kernels;
    const gramRow = sampled * 4;
    matrixMultiply(
      turned,
      4,
      gramRow,
      turned,
      gramRow,
      gram,
      gramRow,
      sampled,
      sampled,
      columns,
      1,
    );
    const products = workspace.f32(gram, sampled * sampled);
    let trace = 0;
    let squares = 0;
    for (let row = 0; row < sampled; row++) {
      trace += products[row * sampled + row] as number;
      for (let other = row + 1; other < sampled; other++) {
        squares += (products[row * sampled + other] as number) ** 2;
      }
    }
    const pairs = (sampled * (sampled - 1)) / 2;
    const meanSquares = squares / pairs;
    return meanSquares > 0 ? (trace / sampled) ** 2 / meanSquares : 0;
  });
}
