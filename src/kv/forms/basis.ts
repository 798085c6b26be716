// Basis: directions that the keys, or the values, of a layer's heads lie along, most energy first, and the
// bits that each sixteen of them get. Found once, on rows of the same model, and shared by all pages:
// a page of 64 tokens could not pay for directions of its own. Layer: kv.
//
//   bytes  per head: components, by rows, f16: [components, headDim]
import { allotTileBits } from "../../codec/components.js";
import { findSpectrum, formGram } from "../../codec/factors.js";
import type { CodecWorkspace } from "../../core/codec-workspace.js";
import { workspaceHash } from "../../core/workspace-hash.js";
import { MisuseError } from "../../errors.js";
import type { KvLayerShape } from "../page-form.js";
import { elementBytes, sideBytes } from "./section.js";
import { chanScratchBytes, SIDE_MULTIPLE, type Side } from "./sides.js";

const TILE_CHANNELS = SIDE_MULTIPLE;
/** Tokens whose ranges are estimated together: a page's. */
const RANGE_TOKENS = 64;

/** What a head's rows are projected on. Serialisable: give these fields to `basisOf` again. */
export interface BasisParts {
  readonly heads: number;
  readonly headDim: number;
  /** Bits of each 16 components, 1 to 8; components behind them are left out. */
  readonly tileBits: readonly number[];
  /** f16, `[heads, components, headDim]`. */
  readonly bytes: Uint8Array;
}

export interface Basis extends BasisParts {
  readonly components: number;
  /** A number that other bases hardly share, never 0. Sections carry it. */
  readonly key: number;
}

/**
 * How the components are coded: `rank` of them, a multiple of 16, at `bits` each; or as many as pay, so
 * that a value costs `bitsPerValue` on average, ranges included.
 */
export type BasisBits =
  | { readonly rank: number; readonly bits: number }
  | { readonly bitsPerValue: number };

/**
 * Finds the basis of a layer's keys or values.
 *
 * @param rows `[heads, tokens, headDim]` in the layer's dtype, finite.
 * @param tokens At least `headDim`, a multiple of 64; a few hundred do. Leave the first page out: sinks.
 * @throws {MisuseError} `bad-shape`, `bad-size` — the shape does not fit, or the workspace is too small;
 *   `bad-option` — a rank or bits out of range.
 * @remarks Some milliseconds per head. The same rows give the same basis on every engine.
 */
export function fitBasis(
  workspace: CodecWorkspace,
  layer: KvLayerShape,
  rows: Uint8Array,
  tokens: number,
  wanted: BasisBits,
): Basis {
  const { heads, headDim } = layer;
  if (rows.byteLength !== sideBytes(layer, tokens)) {
    throw new MisuseError("bad-size", "the rows are not those of the shape");
  }
  if (tokens % RANGE_TOKENS !== 0 || tokens < headDim || headDim % TILE_CHANNELS !== 0) {
    throw new MisuseError(
      "bad-shape",
      "a basis is found on 64 n tokens, at least as many as channels",
    );
  }
  const tiles = headDim / TILE_CHANNELS;
  requireBits(wanted, tiles);
  if (basisWorkspaceBytes(headDim, tokens) > workspace.freeBytes) {
    throw new MisuseError("bad-size", "so many rows do not fit the workspace");
  }
  const energies = new Float64Array(tiles);
  const ranges = new Float64Array(tiles);
  const all = new Uint8Array(heads * headDim * headDim * 2);
  for (let head = 0; head < heads; head++) {
    const bytes = workspace.within(() =>
      fitHead(workspace, layer, rows, tokens, head, energies, ranges),
    );
    all.set(bytes, head * bytes.byteLength);
  }
  const tileBits =
    "rank" in wanted
      ? new Array<number>(wanted.rank / TILE_CHANNELS).fill(wanted.bits)
      : descending(allotTileBits(energies, ranges, 32 / RANGE_TOKENS, wanted.bitsPerValue));
  const components = tileBits.length * TILE_CHANNELS;
  const headBytes = components * headDim * 2;
  const bytes = new Uint8Array(heads * headBytes);
  for (let head = 0; head < heads; head++) {
    const from = head * headDim * headDim * 2;
    bytes.set(all.subarray(from, from + headBytes), head * headBytes);
  }
  return basisOf(workspace, { heads, headDim, tileBits, bytes });
}

/** Bytes of workspace that {@link fitBasis} needs. */
export function basisWorkspaceBytes(headDim: number, tokens: number): number {
  return tokens * headDim * 12 + headDim * headDim * 80 + 65536;
}

/** Without the tiles that have no bits: with falling energies they are the last. */
function descending(tileBits: readonly number[]): number[] {
  const used = tileBits.indexOf(0);
  const kept = used < 0 ? [...tileBits] : tileBits.slice(0, used);
  if (kept.length === 0) throw new MisuseError("bad-option", "bits for not even one tile");
  return kept;
}

function requireBits(wanted: BasisBits, tiles: number): void {
  if ("bitsPerValue" in wanted) {
    if (wanted.bitsPerValue >= 1 && wanted.bitsPerValue <= 8) return;
    throw new MisuseError("bad-option", "a basis has 1 to 8 bits a value");
  }
  const { rank, bits } = wanted;
  const isRank = Number.isInteger(rank / TILE_CHANNELS) && rank >= 1 && rank <= tiles * 16;
  if (isRank && Number.isInteger(bits) && bits >= 1 && bits <= 8) return;
  throw new MisuseError(
    "bad-option",
    "a rank is a multiple of 16 up to the channels, bits are 1 to 8",
  );
}

/** Adds a head's energies and ranges by tile. @returns All its components, f16. */
function fitHead(
  workspace: CodecWorkspace,
  layer: KvLayerShape,
  rows: Uint8Array,
  tokens: number,
  head: number,
  energies: Float64Array,
  ranges: Float64Array,
): Uint8Array {
  const { kernels } = workspace;
  const { headDim, dtype } = layer;
  const rowBytes = headDim * 4;
  const count = tokens * headDim;
  const values = workspace.take(count * 4);
  loadRows(workspace, layer, rows, head, count, values);
  if (kernels.measureMagnitude(values, count) >>> 23 >= 255) {
    throw new MisuseError("bad-option", `a basis is found on finite ${dtype}`);
  }
  const gram = formGram(workspace, values, tokens, headDim);
  const { vectors } = findSpectrum(workspace, gram, headDim);
  const halves = workspace.take(headDim * headDim * 2);
  kernels.f16Encode(vectors, halves, headDim * headDim);
  const turned = workspace.take(headDim * rowBytes);
  kernels.matrixTranspose(vectors, rowBytes, turned, rowBytes, headDim, headDim);
  const rotated = workspace.take(count * 4);
  const { matrixMultiply } = kernels;
  matrixMultiply(
    values,
    rowBytes,
    4,
    turned,
    rowBytes,
    rotated,
    rowBytes,
    tokens,
    headDim,
    headDim,
    0,
  );
  const scan = workspace.take(40);
  const scratch = workspace.take(8 * TILE_CHANNELS);
  for (let tile = 0; tile < energies.length; tile++) {
    workspace.bytes(scan, 40).fill(0);
    for (let first = 0; first < tokens; first += RANGE_TOKENS) {
      const from = rotated + (first * headDim + tile * TILE_CHANNELS) * 4;
      kernels.measurePage(from, rowBytes, RANGE_TOKENS, TILE_CHANNELS, scan, scratch);
    }
    const [squares = 0, , channels = 0] = workspace.f64(scan, 3);
    energies[tile] = (energies[tile] as number) + squares;
    ranges[tile] = (ranges[tile] as number) + channels;
  }
  return workspace.bytes(halves, headDim * headDim * 2).slice();
}

function loadRows(
  workspace: CodecWorkspace,
  layer: KvLayerShape,
  rows: Uint8Array,
  head: number,
  count: number,
  target: number,
): void {
  const headBytes = count * elementBytes(layer);
  const own = rows.subarray(head * headBytes, (head + 1) * headBytes);
  workspace.within(() => {
    const source = layer.dtype === "f32" ? target : workspace.take(headBytes);
    workspace.bytes(source, headBytes).set(own);
    if (layer.dtype === "f16") workspace.kernels.f16Decode(source, target, count);
    if (layer.dtype === "bf16") workspace.kernels.bf16Decode(source, target, count);
  });
}

/**
 * A basis from its parts, as they were kept somewhere.
 *
 * @throws {MisuseError} `bad-shape`, `bad-size` — the parts do not fit each other.
 */
export function basisOf(workspace: CodecWorkspace, parts: BasisParts): Basis {
  const { heads, headDim, tileBits, bytes } = parts;
  const components = tileBits.length * TILE_CHANNELS;
  const areBits = tileBits.every((bits) => Number.isInteger(bits) && bits >= 1 && bits <= 8);
  const areCounts = Number.isInteger(heads) && heads >= 1 && Number.isInteger(headDim / 16);
  if (!areBits || !areCounts || components < 1 || components > headDim) {
    throw new MisuseError("bad-shape", "the parts are not those of a basis");
  }
  if (bytes.byteLength !== heads * components * headDim * 2) {
    throw new MisuseError("bad-size", "a basis has two bytes per head, component and channel");
  }
  const own = bytes.slice();
  const hashed = new Uint8Array(own.byteLength + tileBits.length);
  hashed.set(own);
  hashed.set(tileBits, own.byteLength);
  const key = workspaceHash(workspace, hashed);
  return { heads, headDim, tileBits: [...tileBits], bytes: own, components, key };
}

/** Rows in a basis, its tiles as `chan` pages with their own bits. */
export function basisSide(basis: Basis): Side {
  const { components, headDim, tileBits } = basis;
  const rowBytes = components * 4;
  /** f32 components of a head at the address. */
  const load = (workspace: CodecWorkspace, head: number): number => {
    const count = components * headDim;
    const wide = workspace.take(count * 4);
    workspace.within(() => {
      const halves = workspace.take(count * 2);
      workspace
        .bytes(halves, count * 2)
        .set(basis.bytes.subarray(head * count * 2, (head + 1) * count * 2));
      workspace.kernels.f16Decode(halves, wide, count);
    });
    return wide;
  };
  return {
    basisKey: basis.key,
    byteLength: (rows) => tileBits.reduce((sum, bits) => sum + rows * bits * 2 + 64, 0),
    scratchBytes: (rows) =>
      components * headDim * 8 + rows * rowBytes + chanScratchBytes(rows, TILE_CHANNELS) + 512,
    encode: (workspace, { values, rows, head }, target) => {
      const { kernels } = workspace;
      const wide = load(workspace, head);
      const turned = workspace.take(components * headDim * 4);
      kernels.matrixTranspose(wide, headDim * 4, turned, rowBytes, components, headDim);
      const rotated = workspace.take(rows * rowBytes);
      const { matrixMultiply } = kernels;
      matrixMultiply(
        values,
        headDim * 4,
        4,
        turned,
        rowBytes,
        rotated,
        rowBytes,
        rows,
        components,
        headDim,
        0,
      );
      const scratch = workspace.take(chanScratchBytes(rows, TILE_CHANNELS));
      let codes = target;
      tileBits.forEach((bits, tile) => {
        const from = rotated + tile * TILE_CHANNELS * 4;
        const ranges = codes + rows * bits * 2;
        kernels.chanEncode(from, rowBytes, rows, TILE_CHANNELS, bits, codes, ranges, scratch);
        codes = ranges + 64;
      });
    },
    decode: (workspace, source, { values, rows, head }) => {
      const { kernels } = workspace;
      const wide = load(workspace, head);
      const rotated = workspace.take(rows * rowBytes);
      const scratch = workspace.take(chanScratchBytes(rows, TILE_CHANNELS));
      let codes = source;
      tileBits.forEach((bits, tile) => {
        const to = rotated + tile * TILE_CHANNELS * 4;
        const ranges = codes + rows * bits * 2;
        kernels.chanDecode(codes, ranges, rows, TILE_CHANNELS, bits, to, rowBytes, scratch);
        codes = ranges + 64;
      });
      const { matrixMultiply } = kernels;
      matrixMultiply(
        rotated,
        rowBytes,
        4,
        wide,
        headDim * 4,
        values,
        headDim * 4,
        rows,
        headDim,
        components,
        0,
      );
    },
  };
}
