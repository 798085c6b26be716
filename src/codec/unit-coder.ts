// Writes and reads the units of records: one part of a tensor at a time, in a workspace of fixed size.
import type { MemoryFactory } from "../core/linear-memory.js";
import type { WasmSource } from "../core/module-instance.js";
import { CorruptionError } from "../errors.js";
import { type Dtype, dtypeTraits } from "../types.js";
import { AdaptiveCompressor } from "./adaptive-compressor.js";
import type { EncodedPart, TensorPart, UnitCoder } from "./codec.js";
import { errorSum, limitLeft } from "./error-sum.js";
import {
  errorsOf,
  HEADER_BYTES,
  originalBytesOf,
  parseUnit,
  unitBytesOf,
  writeErrors,
} from "./format.js";
import { PAGE_ROWS } from "./unit-header.js";

/** Values of a part: with padding, they fit the workspace. */
const PART_VALUES_MAX = 24_576;
/** Rows shorter or longer than this are seen as rows of {@link FLAT_COLUMNS}. */
const COLUMNS_MIN = 16;
const COLUMNS_MAX = 512;
const FLAT_COLUMNS = 64;

export interface UnitCoderOptions {
  readonly workspaceBytes: number;
  /** Most bytes of the original in a unit. */
  readonly partBytesMax: number;
  readonly unitBytesMax: number;
  /** Names of codecs that are not chosen. Default: none. */
  readonly without?: readonly string[];
  readonly createMemory: MemoryFactory;
  readonly wasm: WasmSource | undefined;
}

/** @throws {OutOfMemoryError} The platform has no room for the workspace. */
export async function createUnitCoder(options: UnitCoderOptions): Promise<UnitCoder> {
  const { workspaceBytes, createMemory, wasm } = options;
  const memory = { workspaceBytes, createMemory, ...(wasm === undefined ? {} : { wasm }) };
  return new Coder(await AdaptiveCompressor.create(memory), options);
}

/** Columns of the matrix that rows of a tensor are seen as. */
function matrixColumns(columns: number): number {
  return columns < COLUMNS_MIN || columns > COLUMNS_MAX ? FLAT_COLUMNS : columns;
}

class Coder implements UnitCoder {
  readonly headBytes = HEADER_BYTES;
  readonly #compressor: AdaptiveCompressor;
  readonly #partBytesMax: number;
  readonly #unitBytesMax: number;
  readonly #without: readonly string[];

  constructor(compressor: AdaptiveCompressor, options: UnitCoderOptions) {
    this.#compressor = compressor;
    this.#partBytesMax = options.partBytesMax;
    this.#unitBytesMax = options.unitBytesMax;
    this.#without = options.without ?? [];
  }

  partBytes(dtype: Dtype, columns: number): number {
    const { elementBytes } = dtypeTraits(dtype);
    const rowBytes = matrixColumns(columns) * elementBytes;
    const mostBytes = Math.min(this.#partBytesMax, PART_VALUES_MAX * Math.min(elementBytes, 4));
    const rows = Math.floor(mostBytes / rowBytes);
    // Whole pages of rows, so that no page is padded in the middle of a tensor.
    return rowBytes * (rows > PAGE_ROWS ? rows - (rows % PAGE_ROWS) : rows);
  }

  encode({ bytes, dtype, columns, limit, mayFactor }: TensorPart): EncodedPart {
    const count = bytes.byteLength / dtypeTraits(dtype).elementBytes;
    const wanted = matrixColumns(columns);
    // The end of a flat tensor may be no whole number of rows.
    const width = count % wanted === 0 ? wanted : oddColumns(count);
    const matrix = { bytes, dtype, columns: width, rows: count / width };
    const budget = { ...(limit ?? EXACT), without: this.#without };
    const rotary = mayFactor ? "none" : "after";
    const unit = this.#compressor.compress(matrix, budget, { rotary });
    if (unit.bytes.byteLength <= this.#unitBytesMax) return unit;
    return this.#compressor.engine.encode(matrix, { codec: "raw" });
  }

  recode(unit: Uint8Array, part: Omit<TensorPart, "bytes">, room: Uint8Array): EncodedPart | null {
    const decoded = this.decode(unit, part.dtype, room);
    if (decoded === null) return null;
    const before = errorsOf(unit);
    const bytes = room.subarray(0, decoded.byteLength);
    const limit = part.limit && limitLeft(part.limit, before, bytes, part.dtype);
    const made = this.encode({ ...part, bytes, limit });
    if (made.bytes.byteLength >= unit.byteLength) {
      return { bytes: unit, codec: decoded.codec, ...before };
    }
    const sum = errorSum(before, made);
    writeErrors(made.bytes, sum.relativeError, sum.maxError);
    return { bytes: made.bytes, codec: made.codec, ...sum };
  }

  unitBytes(head: Uint8Array): number | null {
    const byteLength = unitBytesOf(head);
    return byteLength !== null && byteLength <= this.#unitBytesMax ? byteLength : null;
  }

  rawBytes(head: Uint8Array): number | null {
    const byteLength = originalBytesOf(head);
    return byteLength >= 1 && byteLength <= this.#partBytesMax ? byteLength : null;
  }

  decode(
    unit: Uint8Array,
    dtype: Dtype,
    target: Uint8Array,
  ): { readonly codec: string; readonly byteLength: number } | null {
    const parsed = parseUnit(unit, Math.min(this.#partBytesMax, target.byteLength));
    if (parsed.verdict === "malformed" || parsed.header.dtype !== dtype) return null;
    if (parsed.sections.totalBytes !== unit.byteLength) return null;
    const { rows, columns, codec } = parsed.header;
    if (!this.#compressor.engine.fits(rows, columns, dtype)) return null;
    try {
      const { bytes } = this.#compressor.engine.decodeInto(unit, target);
      return { codec, byteLength: bytes.byteLength };
    } catch (error) {
      if (error instanceof CorruptionError) return null;
      throw error;
    }
  }
}

const EXACT = { metric: "relative", epsilon: 0 } as const;

/** The widest rows, of at most {@link COLUMNS_MAX} elements, that `count` elements fill. */
function oddColumns(count: number): number {
  for (let columns = Math.min(count, COLUMNS_MAX); ; columns--) {
    if (count % columns === 0) return columns;
  }
}
