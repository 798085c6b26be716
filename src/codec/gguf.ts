// Blocks of GGUF files, `q8_0` and `q4_0`, to and from units. The codes are those of `q8` and `q4`; only
// the places of codes and scales differ.
//
// Source: ggml-org/llama.cpp, ggml/src/ggml-common.h — the layout of block_q8_0 and block_q4_0.
import { MisuseError } from "../errors.js";
import {
  BLOCK_VALUES,
  HEADER_BYTES,
  parseUnit,
  sectionsOf,
  type UnitHeader,
  writeHeader,
} from "./format.js";

/** Types of GGUF tensors that can be exchanged. */
export type GgufType = "q8_0" | "q4_0";

const SCALE_BYTES = 2;

function codeBytesOf(codec: "q8" | "q4"): number {
  return codec === "q8" ? BLOCK_VALUES : BLOCK_VALUES / 2;
}

/**
 * The blocks of a `q8` or `q4` unit, scale before codes: 34 or 18 bytes each.
 *
 * @throws {MisuseError} `bad-option` — the unit is of another codec, its values were scaled, or its rows are
 *   not whole blocks.
 */
export function exportGguf(unit: Uint8Array): Uint8Array<ArrayBuffer> {
  const parsed = parseUnit(unit, Number.MAX_SAFE_INTEGER);
  if (parsed.verdict === "malformed") throw new MisuseError("bad-option", parsed.reason);
  const { header, sections } = parsed;
  const { codec, scaleExponent, columns, rows } = header;
  if (codec !== "q8" && codec !== "q4") throw new MisuseError("bad-option", `GGUF has no ${codec}`);
  if (scaleExponent !== 0 || columns % BLOCK_VALUES !== 0) {
    throw new MisuseError("bad-option", "GGUF rows are whole blocks of unscaled values");
  }
  const codeBytes = codeBytesOf(codec);
  const blocks = (rows * columns) / BLOCK_VALUES;
  const target = new Uint8Array(blocks * (SCALE_BYTES + codeBytes));
  for (let block = 0; block < blocks; block++) {
    const to = block * (SCALE_BYTES + codeBytes);
    const scale = sections.scales + block * SCALE_BYTES;
    const codes = sections.codes + block * codeBytes;
    target.set(unit.subarray(scale, scale + SCALE_BYTES), to);
    target.set(unit.subarray(codes, codes + codeBytes), to + SCALE_BYTES);
  }
  return target;
}

/**
 * A unit with the blocks of a GGUF tensor of f32 values.
 *
 * @param rows Of `columns` values each, whole blocks.
 * @throws {MisuseError} `bad-shape`, `bad-size` — the blocks are not those of the shape.
 */
export function importGguf(
  type: GgufType,
  blocksOf: Uint8Array,
  rows: number,
  columns: number,
): Uint8Array<ArrayBuffer> {
  const codec = type === "q8_0" ? "q8" : "q4";
  const codeBytes = codeBytesOf(codec);
  if (!(rows >= 1) || !(columns >= 1) || columns % BLOCK_VALUES !== 0) {
    throw new MisuseError("bad-shape", "GGUF rows are whole blocks");
  }
  const blocks = (rows * columns) / BLOCK_VALUES;
  if (blocksOf.byteLength !== blocks * (SCALE_BYTES + codeBytes)) {
    throw new MisuseError("bad-size", "the blocks are not those of the shape");
  }
  const header: UnitHeader = {
    ...{ codec, dtype: "f32", rows, columns, variant: "f16", isExact: true },
    ...{ group: 0, scaleExponent: 0, bits: 0, count: 0, isBeforeRotary: false },
    ...{ relativeError: Number.NaN, maxError: Number.NaN },
  };
  const sections = sectionsOf(header);
  const unit = new Uint8Array(Math.max(HEADER_BYTES, sections.totalBytes));
  writeHeader(unit, header, sections);
  for (let block = 0; block < blocks; block++) {
    const from = block * (SCALE_BYTES + codeBytes);
    unit.set(blocksOf.subarray(from, from + SCALE_BYTES), sections.scales + block * SCALE_BYTES);
    unit.set(
      blocksOf.subarray(from + SCALE_BYTES, from + SCALE_BYTES + codeBytes),
      sections.codes + block * codeBytes,
    );
  }
  return unit;
}
