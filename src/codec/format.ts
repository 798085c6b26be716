// The one format of compressed tensors: header, sections, and the reader that refuses what is malformed
// before anything is allocated. See docs/codec-format.md.
import { type Dtype, dtypeOfId, dtypeTraits } from "../types.js";

/** Codecs by name, with their ids in the format and in records. Ids are never reused. */
export const CODEC_IDS = {
  raw: 0,
  const: 1,
  narrow: 2,
  plane: 3,
  half: 4,
  q8: 5,
  q4: 6,
  chan: 7,
  lm: 8,
  sparse: 9,
  lowrank: 10,
  pca: 11,
} as const;

/** Name of a codec. */
export type CodecName = keyof typeof CODEC_IDS;

const CODEC_NAMES = Object.keys(CODEC_IDS) as CodecName[];

export const HEADER_BYTES = 64;
const MAGIC = 0x31424354;
const VERSION = 1;
const FLAG_BEFORE_ROTARY = 2;
const FLAG_EXACT = 16;
const SECTION_BYTES = 64;
/** Bytes of the original in one chunk of `plane`. */
export const CHUNK_BYTES = 262_144;
export const BLOCK_VALUES = 32;
export const TILE_CHANNELS = 16;
export const LM_UNIT_VALUES = 128;
/** Columns of `pca`: the basis has as many rows. */
export const PCA_COLUMNS_MAX = 256;

/** Element type of the parts that a codec stores as numbers. */
export type Variant = "f16" | "bf16" | "q8";
const VARIANTS: readonly Variant[] = ["f16", "bf16", "q8"];

/** What the header says, but for what follows from it. */
export interface UnitHeader {
  readonly codec: CodecName;
  readonly dtype: Dtype;
  readonly rows: number;
  readonly columns: number;
  /** Rows of a page, or log2 of a vector's length; 0 where there is neither. */
  readonly group: number;
  /** Values were multiplied by 2 to this power. */
  readonly scaleExponent: number;
  readonly bits: number;
  readonly variant: Variant;
  /** Chunks, kept values or rank. */
  readonly count: number;
  readonly isBeforeRotary: boolean;
  readonly isExact: boolean;
  /** Measured: root of the squared error's share of the squares. */
  readonly relativeError: number;
  /** Measured: largest absolute error. */
  readonly maxError: number;
}

/** Where the sections lie, in bytes from the start of the header. */
export interface Sections {
  readonly codes: number;
  readonly scales: number;
  readonly basis: number;
  readonly extra: number;
  /** Bytes of header and sections. */
  readonly totalBytes: number;
}

/** Section lengths in bytes. */
interface SectionBytes {
  codes: number;
  scales: number;
  basis: number;
  extra: number;
}

export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

export function originalBytes({ rows, columns, dtype }: UnitHeader): number {
  return rows * columns * dtypeTraits(dtype).elementBytes;
}

/** Bytes of q8 vectors or halves, `parts` of `length` values each, codes and scales. */
function partBytes(parts: number, length: number, variant: Variant): [number, number] {
  if (variant !== "q8") return [parts * length * 2, 0];
  return [parts * length, (parts * length) / (BLOCK_VALUES / 2)];
}

/** Rows of each page of `chan` and `pca`, padding included. */
export function paddedRows({ rows, group }: UnitHeader): number {
  return rows - (rows % group) + roundUp(rows % group, 8);
}

/** Vectors of `lm`, padding included. */
export function lmVectorCount({ rows, columns, group }: UnitHeader): number {
  const length = 2 ** group;
  return roundUp(rows * columns, Math.max(LM_UNIT_VALUES, length)) / length;
}

function sectionBytes(header: UnitHeader, codesBytes: number, tileBits: number): SectionBytes {
  const { codec, rows, columns, variant, count, bits } = header;
  const values = rows * columns;
  const bytes: SectionBytes = { codes: 0, scales: 0, basis: 0, extra: 0 };
  const blocks = Math.ceil(values / BLOCK_VALUES);
  switch (codec) {
    case "raw":
      bytes.codes = originalBytes(header);
      break;
    case "const":
      bytes.codes = dtypeTraits(header.dtype).elementBytes;
      break;
    case "narrow":
    case "half":
      bytes.codes = values * 2;
      break;
    case "plane":
      bytes.codes = codesBytes;
      bytes.extra = (count + 1) * 4;
      break;
    case "q8":
    case "q4":
      bytes.codes = blocks * (codec === "q8" ? 32 : 16);
      bytes.scales = blocks * 2;
      break;
    case "chan":
      bytes.codes = (paddedRows(header) * columns * bits) / 8;
      bytes.scales = Math.ceil(rows / header.group) * columns * 4;
      break;
    case "lm": {
      const vectors = lmVectorCount(header);
      bytes.codes = (vectors * 2 ** header.group * bits) / 8;
      bytes.scales = vectors * 2;
      break;
    }
    case "sparse": {
      bytes.codes = roundUp(values, 64) / 8;
      [bytes.extra, bytes.scales] = partBytes(1, roundUp(count, BLOCK_VALUES), variant);
      break;
    }
    case "lowrank": {
      const length = roundUp(rows, BLOCK_VALUES) + roundUp(columns, BLOCK_VALUES);
      [bytes.codes, bytes.scales] = partBytes(count, length, variant);
      break;
    }
    case "pca":
      bytes.codes = paddedRows(header) * tileBits * 2;
      bytes.scales = Math.ceil(rows / header.group) * count * 64;
      bytes.basis = (columns + 1) * columns * 2;
      bytes.extra = columns / TILE_CHANNELS;
      break;
  }
  return bytes;
}

/**
 * Where the sections of a unit lie.
 *
 * @param codesBytes Of `plane` only: bytes of its chunks.
 * @param tileBits Of `pca` only: sum of its tiles' bits; `count` is then the tiles that have any.
 */
export function sectionsOf(header: UnitHeader, codesBytes = 0, tileBits = 0): Sections {
  const bytes = sectionBytes(header, codesBytes, tileBits);
  const scales = roundUp(HEADER_BYTES + bytes.codes, SECTION_BYTES);
  const basis = roundUp(scales + bytes.scales, SECTION_BYTES);
  const extra = roundUp(basis + bytes.basis, SECTION_BYTES);
  return { codes: HEADER_BYTES, scales, basis, extra, totalBytes: extra + bytes.extra };
}

/** Writes the 64 bytes of a header to the start of `target`. */
export function writeHeader(target: Uint8Array, header: UnitHeader, sections: Sections): void {
  const view = new DataView(target.buffer, target.byteOffset, HEADER_BYTES);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, VERSION);
  view.setUint8(5, CODEC_IDS[header.codec]);
  view.setUint8(6, dtypeTraits(header.dtype).id);
  const flags =
    (header.isBeforeRotary ? FLAG_BEFORE_ROTARY : 0) | (header.isExact ? FLAG_EXACT : 0);
  view.setUint8(7, flags);
  view.setUint32(8, header.rows, true);
  view.setUint32(12, header.columns, true);
  view.setUint8(16, header.group);
  view.setInt8(17, header.scaleExponent);
  view.setUint8(18, header.bits);
  view.setUint8(19, VARIANTS.indexOf(header.variant));
  view.setUint32(20, header.count, true);
  view.setBigUint64(24, BigInt(originalBytes(header)), true);
  view.setUint32(32, sections.codes, true);
  view.setUint32(36, sections.scales, true);
  view.setUint32(40, sections.basis, true);
  view.setUint32(44, sections.extra, true);
  view.setFloat32(48, header.relativeError, true);
  view.setFloat32(52, header.maxError, true);
  view.setUint32(56, sections.totalBytes - HEADER_BYTES, true);
  view.setUint32(60, 0, true);
}

export type ParsedUnit =
  | { readonly verdict: "valid"; readonly header: UnitHeader; readonly sections: Sections }
  | { readonly verdict: "malformed"; readonly reason: string };

function malformed(reason: string): ParsedUnit {
  return { verdict: "malformed", reason };
}

const FLOATS: readonly Dtype[] = ["f32", "f16", "bf16"];

/** Why the fields of a header do not fit each other, or null. */
function contradiction(header: UnitHeader): string | null {
  const { codec, dtype, rows, columns, group, bits, variant, count } = header;
  const isQuantised = CODEC_IDS[codec] >= CODEC_IDS.q8;
  if (isQuantised && !FLOATS.includes(dtype)) return `${codec} of ${dtype}`;
  if ((codec === "narrow" || codec === "half") && dtype !== "f32") return `${codec} of ${dtype}`;
  const isPaged = codec === "chan" || codec === "pca";
  if (isPaged && (group < 8 || group % 8 !== 0 || columns % TILE_CHANNELS !== 0)) return "group";
  if (codec === "lm") {
    if (group < 5 || group > 12 || columns % 2 ** group !== 0) return "group";
    if (bits < 2 || bits > 4) return "bits";
  } else if (codec === "chan") {
    if (bits < 1 || bits > 8) return "bits";
  } else if (bits !== 0) return "bits";
  if (!isPaged && codec !== "lm" && group !== 0) return "group";
  const hasVariant = codec === "sparse" || codec === "lowrank";
  if (variant === "q8" && !hasVariant) return "variant";
  if (variant === "bf16" && codec !== "narrow" && codec !== "half") return "variant";
  if (!isQuantised && header.scaleExponent !== 0) return "scale exponent";
  if (header.isExact && codec !== "q8" && codec !== "q4") return "flags";
  if (codec === "plane") {
    return count === Math.ceil(originalBytes(header) / CHUNK_BYTES) ? null : "count";
  }
  if (codec === "sparse") return count <= rows * columns ? null : "count";
  if (codec === "lowrank") return count >= 1 && count <= Math.min(rows, columns) ? null : "count";
  if (codec === "pca" && columns > PCA_COLUMNS_MAX) return "columns";
  if (codec === "pca") return count <= columns / TILE_CHANNELS ? null : "count";
  return count === 0 ? null : "count";
}

/** Bytes of the unit that begins with this header, or null if it is none. Checks nothing else. */
export function unitBytesOf(head: Uint8Array): number | null {
  const view = new DataView(head.buffer, head.byteOffset, HEADER_BYTES);
  const isUnit = view.getUint32(0, true) === MAGIC && view.getUint8(4) === VERSION;
  return isUnit ? HEADER_BYTES + view.getUint32(56, true) : null;
}

/** Errors, as the header of a unit says. Checks nothing. */
export function errorsOf(head: Uint8Array): { relativeError: number; maxError: number } {
  const view = new DataView(head.buffer, head.byteOffset, HEADER_BYTES);
  return { relativeError: view.getFloat32(48, true), maxError: view.getFloat32(52, true) };
}

/** Makes the header of a unit say other errors. */
export function writeErrors(head: Uint8Array, relativeError: number, maxError: number): void {
  const view = new DataView(head.buffer, head.byteOffset, HEADER_BYTES);
  view.setFloat32(48, relativeError, true);
  view.setFloat32(52, maxError, true);
}

/** Bytes of the original, as the header of a unit says. Checks nothing. */
export function originalBytesOf(head: Uint8Array): number {
  const view = new DataView(head.buffer, head.byteOffset, HEADER_BYTES);
  return Number(view.getBigUint64(24, true));
}

/**
 * Reads a header and checks that everything in it fits, and that the unit has its length.
 *
 * @param bytes The unit, and possibly more behind it.
 * @param originalBytesMax A larger original is refused.
 */
export function parseUnit(bytes: Uint8Array, originalBytesMax: number): ParsedUnit {
  if (bytes.byteLength < HEADER_BYTES) return malformed("shorter than a header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("magic");
  if (view.getUint8(4) !== VERSION) return malformed(`version ${view.getUint8(4)}`);
  const codec = CODEC_NAMES[view.getUint8(5)];
  const dtype = dtypeOfId(view.getUint8(6));
  const variant = VARIANTS[view.getUint8(19)];
  const flags = view.getUint8(7);
  if (codec === undefined) return malformed("codec");
  if (dtype === undefined) return malformed("element type");
  if (variant === undefined) return malformed("variant");
  if ((flags & ~(FLAG_BEFORE_ROTARY | FLAG_EXACT)) !== 0) return malformed("flags");
  if (view.getUint32(60, true) !== 0) return malformed("reserved");
  const header: UnitHeader = {
    codec,
    dtype,
    variant,
    rows: view.getUint32(8, true),
    columns: view.getUint32(12, true),
    group: view.getUint8(16),
    scaleExponent: view.getInt8(17),
    bits: view.getUint8(18),
    count: view.getUint32(20, true),
    isBeforeRotary: (flags & FLAG_BEFORE_ROTARY) !== 0,
    isExact: (flags & FLAG_EXACT) !== 0,
    relativeError: view.getFloat32(48, true),
    maxError: view.getFloat32(52, true),
  };
  if (header.rows === 0 || header.columns === 0) return malformed("empty");
  const claimedBytes = view.getBigUint64(24, true);
  if (claimedBytes > BigInt(originalBytesMax)) return malformed("larger than the reader's cap");
  if (claimedBytes !== BigInt(originalBytes(header))) return malformed("bytes of the original");
  const reason = contradiction(header);
  if (reason !== null) return malformed(reason);
  return checkSections(header, view);
}

function checkSections(header: UnitHeader, view: DataView): ParsedUnit {
  const claimed: Sections = {
    codes: view.getUint32(32, true),
    scales: view.getUint32(36, true),
    basis: view.getUint32(40, true),
    extra: view.getUint32(44, true),
    totalBytes: view.getUint32(56, true) + HEADER_BYTES,
  };
  if (claimed.totalBytes > view.byteLength) return malformed("shorter than it says");
  // Of these two the sections depend on tables inside them.
  let codesBytes = 0;
  let tileBits = 0;
  if (header.codec === "plane") {
    const endAt = claimed.extra + header.count * 4;
    if (endAt + 4 > claimed.totalBytes) return malformed("chunk table");
    codesBytes = view.getUint32(endAt, true);
    let before = 0;
    for (let chunk = 0; chunk <= header.count; chunk++) {
      const offset = view.getUint32(claimed.extra + chunk * 4, true);
      if (chunk === 0 ? offset !== 0 : offset <= before) return malformed("chunk table");
      if (offset % 8 !== 0) return malformed("chunk table");
      before = offset;
    }
  } else if (header.codec === "pca") {
    const tiles = header.columns / TILE_CHANNELS;
    if (claimed.extra + tiles > claimed.totalBytes) return malformed("bits of tiles");
    let used = 0;
    for (let tile = 0; tile < tiles; tile++) {
      const bits = view.getUint8(claimed.extra + tile);
      if (bits > 8) return malformed("bits of tiles");
      tileBits += bits;
      used += bits > 0 ? 1 : 0;
    }
    if (used !== header.count) return malformed("count");
  }
  const sections = sectionsOf(header, codesBytes, tileBits);
  const names = ["codes", "scales", "basis", "extra", "totalBytes"] as const;
  const wrong = names.find((name) => sections[name] !== claimed[name]);
  return wrong === undefined ? { verdict: "valid", header, sections } : malformed(wrong);
}
