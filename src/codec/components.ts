// The codec `pca`: values in the basis of their own principal components, with bits where the variance
// is. For keys and values that have gone cold: the basis must be paid for by many rows.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { eigen } from "./factors.js";
import { TILE_CHANNELS, type UnitHeader } from "./format.js";
import { eachPage, repeatLastRow, type UnitPlace } from "./parts.js";

/** A tile with any bits has at least so many: one bit over a range is worth little. */
const TILE_BITS_MIN = 2;
const TILE_BITS_MAX = 8;

/** The rotated values, and how many bits each tile of components gets. */
export interface ComponentPlan {
  /** Address of `rows` × `columns` f32 in the basis, the last row repeated to a full page. */
  readonly rotated: number;
  /** Address of the f16 mean and basis. */
  readonly basis: number;
  readonly tileBits: readonly number[];
}

/**
 * Finds the basis and gives bits to tiles until a value has `bitsPerValue`, ranges included and the
 * basis apart.
 */
export function planComponents(
  workspace: CodecWorkspace,
  values: number,
  header: UnitHeader,
  bitsPerValue: number,
): ComponentPlan {
  const { rows, columns } = header;
  const basis = findBasis(workspace, values, rows, columns);
  const rotated = workspace.take((rows + header.group) * columns * 4);
  rotate(workspace, values, rows, columns, basis, rotated);
  repeatLastRow(workspace, rotated, header);
  return { rotated, basis, tileBits: shareBits(workspace, rotated, header, bitsPerValue) };
}

function findBasis(
  workspace: CodecWorkspace,
  values: number,
  rows: number,
  columns: number,
): number {
  const { kernels } = workspace;
  const basis = workspace.take((columns + 1) * columns * 2);
  const cells = workspace.f32(values, rows * columns);
  const sums = new Float64Array(columns);
  for (let index = 0; index < cells.length; index++) {
    sums[index % columns] = (sums[index % columns] as number) + (cells[index] as number);
  }
  const mean = workspace.take(columns * 4);
  workspace.f32(mean, columns).set(sums.map((sum) => sum / rows));
  kernels.f16Encode(mean, basis, columns);
  kernels.f16Decode(basis, mean, columns);
  const centred = workspace.take(rows * columns * 4);
  subtractMean(workspace, values, rows, columns, mean, centred);
  const gram = workspace.take(columns * columns * 4);
  const rowBytes = columns * 4;
  const { matrixMultiply, matrixMirror } = kernels;
  matrixMultiply(
    centred,
    4,
    rowBytes,
    centred,
    rowBytes,
    gram,
    rowBytes,
    columns,
    columns,
    rows,
    1,
  );
  matrixMirror(gram, columns);
  const { vectors } = eigen(workspace, gram, columns, columns);
  kernels.f16Encode(vectors, basis + columns * 2, columns * columns);
  return basis;
}

function subtractMean(
  workspace: CodecWorkspace,
  values: number,
  rows: number,
  columns: number,
  mean: number,
  target: number,
): void {
  const from = workspace.f32(values, rows * columns);
  const to = workspace.f32(target, rows * columns);
  const means = workspace.f32(mean, columns);
  for (let row = 0, index = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, index++) {
      to[index] = (from[index] as number) - (means[column] as number);
    }
  }
}

/** Values without their mean, in the basis as it is stored. */
function rotate(
  workspace: CodecWorkspace,
  values: number,
  rows: number,
  columns: number,
  basis: number,
  target: number,
): void {
  const { kernels } = workspace;
  const rowBytes = columns * 4;
  const wide = workspace.take((columns + 1) * rowBytes);
  kernels.f16Decode(basis, wide, (columns + 1) * columns);
  const centred = workspace.take((rows + 4) * rowBytes);
  subtractMean(workspace, values, rows, columns, wide, centred);
  const turned = workspace.take(columns * rowBytes);
  kernels.matrixTranspose(wide + rowBytes, rowBytes, turned, rowBytes, columns, columns);
  const padded = Math.ceil(rows / 4) * 4;
  const { matrixMultiply } = kernels;
  matrixMultiply(
    centred,
    rowBytes,
    4,
    turned,
    rowBytes,
    target,
    rowBytes,
    padded,
    columns,
    columns,
    0,
  );
}

/** Squared error of a tile at `bits`, from its energy and the squares of its ranges. */
function tileError(energy: number, ranges: number, bits: number): number {
  return bits === 0 ? energy : Math.min(energy, ranges / (12 * (2 ** bits - 1) ** 2));
}

/** Bits of each tile, from what the rotated values look like. */
function shareBits(
  workspace: CodecWorkspace,
  rotated: number,
  header: UnitHeader,
  bitsPerValue: number,
): number[] {
  const { rows, columns, group } = header;
  const tiles = columns / TILE_CHANNELS;
  const energies = new Float64Array(tiles);
  const ranges = new Float64Array(tiles);
  const scan = workspace.take(40);
  const scratch = workspace.take(8 * TILE_CHANNELS);
  for (let tile = 0; tile < tiles; tile++) {
    workspace.bytes(scan, 40).fill(0);
    eachPage(header, (_, first, pageRows) => {
      const source = rotated + (first * columns + tile * TILE_CHANNELS) * 4;
      const { measurePage } = workspace.kernels;
      measurePage(source, columns * 4, pageRows, TILE_CHANNELS, scan, scratch);
    });
    const [squares = 0, , channels = 0] = workspace.f64(scan, 3);
    energies[tile] = squares;
    ranges[tile] = channels;
  }
  const rangeBits = (32 * Math.ceil(rows / group)) / rows;
  return allotTileBits(energies, ranges, rangeBits, bitsPerValue);
}

/**
 * Bits of each tile: each step goes to the tile whose squared error it lowers most per bit.
 *
 * @param energies Squares of each tile's values; `ranges` rows · range² summed over its channels.
 * @param rangeBits What ranges cost a value of a tile that has bits.
 * @param bitsPerValue What a value may cost on average, ranges included.
 */
export function allotTileBits(
  energies: Float64Array,
  ranges: Float64Array,
  rangeBits: number,
  bitsPerValue: number,
): number[] {
  const tiles = energies.length;
  const bits = new Array<number>(tiles).fill(0);
  let left = bitsPerValue * tiles;
  for (;;) {
    let best = -1;
    let bestGain = 0;
    for (let tile = 0; tile < tiles; tile++) {
      const now = bits[tile] as number;
      const next = now === 0 ? TILE_BITS_MIN : now + 1;
      const price = next - now + (now === 0 ? rangeBits : 0);
      if (next > TILE_BITS_MAX || price > left) continue;
      const energy = energies[tile] as number;
      const range = ranges[tile] as number;
      const gain = (tileError(energy, range, now) - tileError(energy, range, next)) / price;
      if (gain > bestGain) {
        best = tile;
        bestGain = gain;
      }
    }
    if (best < 0) return bits;
    const now = bits[best] as number;
    left -= now === 0 ? TILE_BITS_MIN + rangeBits : 1;
    bits[best] = now === 0 ? TILE_BITS_MIN : now + 1;
  }
}

/** Writes a plan into the sections. */
export function encodeComponents(
  workspace: CodecWorkspace,
  place: UnitPlace,
  plan: ComponentPlan,
): void {
  const { header, sections, address } = place;
  const { columns } = header;
  const basisBytes = (columns + 1) * columns * 2;
  workspace
    .bytes(address + sections.basis, basisBytes)
    .set(workspace.bytes(plan.basis, basisBytes));
  workspace.bytes(address + sections.extra, plan.tileBits.length).set(plan.tileBits);
  const scratch = workspace.take(16 * header.group + 192);
  eachTile(place, plan.tileBits, (first, pageRows, tile, bits, codes, ranges) => {
    const source = plan.rotated + (first * columns + tile * TILE_CHANNELS) * 4;
    const { chanEncode } = workspace.kernels;
    chanEncode(source, columns * 4, pageRows, TILE_CHANNELS, bits, codes, ranges, scratch);
  });
}

/** Runs `work` for each tile of each page that has bits. */
function eachTile(
  { header, sections, address }: UnitPlace,
  tileBits: ArrayLike<number>,
  work: (
    firstRow: number,
    pageRows: number,
    tile: number,
    bits: number,
    codes: number,
    ranges: number,
  ) => void,
): void {
  let codes = address + sections.codes;
  let ranges = address + sections.scales;
  eachPage(header, (_, first, pageRows) => {
    for (let tile = 0; tile < tileBits.length; tile++) {
      const bits = tileBits[tile] as number;
      if (bits === 0) continue;
      work(first, pageRows, tile, bits, codes, ranges);
      codes += pageRows * bits * 2;
      ranges += 64;
    }
  });
}

/** Rotates back what the sections hold, and adds the mean. */
export function decodeComponents(
  workspace: CodecWorkspace,
  place: UnitPlace,
  target: number,
): void {
  const { header, sections, address } = place;
  const { rows, columns } = header;
  const { kernels } = workspace;
  const rowBytes = columns * 4;
  const padded = rows + header.group;
  const rotated = workspace.take(padded * rowBytes);
  workspace.f32(rotated, padded * columns).fill(0);
  const tileBits = workspace.bytes(address + sections.extra, columns / TILE_CHANNELS);
  const scratch = workspace.take((8 + header.group) * TILE_CHANNELS);
  eachTile(place, tileBits, (first, pageRows, tile, bits, codes, ranges) => {
    const to = rotated + (first * columns + tile * TILE_CHANNELS) * 4;
    kernels.chanDecode(codes, ranges, pageRows, TILE_CHANNELS, bits, to, rowBytes, scratch);
  });
  const wide = workspace.take((columns + 1) * rowBytes);
  kernels.f16Decode(address + sections.basis, wide, (columns + 1) * columns);
  const product = workspace.take((rows + 4) * rowBytes);
  kernels.matrixMultiply(
    rotated,
    rowBytes,
    4,
    wide + rowBytes,
    rowBytes,
    product,
    rowBytes,
    Math.ceil(rows / 4) * 4,
    columns,
    columns,
    0,
  );
  const from = workspace.f32(product, rows * columns);
  const to = workspace.f32(target, rows * columns);
  const mean = workspace.f32(wide, columns);
  for (let row = 0, index = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, index++) {
      to[index] = (from[index] as number) + (mean[column] as number);
    }
  }
}
