// Encodes and decodes one tensor at a time, in a workspace of fixed size: the unit is written there,
// decoded again, and measured against the original, so the error in the header is what a reader gets.
import type { CodecWorkspace } from "../core/codec-workspace.js";
import { CorruptionError, MisuseError } from "../errors.js";
import { type Dtype, dtypeTraits } from "../types.js";
import { type ComponentPlan, encodeComponents, planComponents } from "./components.js";
import { encodeFactors } from "./factors.js";
import {
  CHUNK_BYTES,
  CODEC_IDS,
  type CodecName,
  HEADER_BYTES,
  originalBytes,
  parseUnit,
  type Sections,
  sectionsOf,
  type UnitHeader,
  writeHeader,
} from "./format.js";
import { paddedCount, type UnitPlace } from "./parts.js";
import { chunkLengths, decodeChunk, encodeChunk, planeBytesMax } from "./plane.js";
import { scaleExponent } from "./scale-exponent.js";
import { decodeSections, encodeSections } from "./sections.js";
import { type Choice, headerFor, type Matrix, plainHeader } from "./unit-header.js";

/** An encoded tensor and its measured error. */
export interface EncodedUnit {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly codec: CodecName;
  /** Root of the squared error's share of the squares; NaN if a value is not finite. */
  readonly relativeError: number;
  /** Largest absolute error. */
  readonly maxError: number;
}

/** Bytes of workspace per byte of f32 values that the greediest codec takes, and what is fixed. */
const WORKSPACE_SHARE = 8;
const WORKSPACE_FIXED_BYTES = 2 ** 17;

/** A tensor in the workspace. */
export interface Loaded {
  readonly matrix: Matrix;
  /** Address of the original's bytes. */
  readonly original: number;
  readonly isFloat: boolean;
  /** Address of f32 values, with room for padding. Only for floats; computed when first used. */
  readonly values: number;
  /** Address of room for as many values; only for floats. */
  readonly decoded: number;
}

export class CodecEngine {
  readonly #workspace: CodecWorkspace;

  constructor(workspace: CodecWorkspace) {
    this.#workspace = workspace;
  }

  /** Elements, padding included, of the largest tensor that fits the workspace. */
  get valuesMax(): number {
    const bytes = this.#workspace.byteLength - WORKSPACE_FIXED_BYTES;
    return Math.max(0, Math.floor(bytes / (4 * WORKSPACE_SHARE)));
  }

  /** Whether a tensor fits the workspace. */
  fits(rows: number, columns: number, dtype: Dtype): boolean {
    const { elementBytes } = dtypeTraits(dtype);
    return paddedCount(rows, columns) * Math.max(1, elementBytes / 4) <= this.valuesMax;
  }

  /** @throws {MisuseError} `bad-size`. */
  #requireFit(rows: number, columns: number, dtype: Dtype): void {
    if (this.fits(rows, columns, dtype)) return;
    throw new MisuseError("bad-size", `at most ${this.valuesMax} values fit the workspace`);
  }

  /**
   * Encodes a tensor.
   *
   * @throws {MisuseError} `bad-option`, `bad-size` — the choice does not fit the tensor, or the tensor
   *   does not fit the workspace.
   */
  encode(matrix: Matrix, choice: Choice): EncodedUnit {
    return this.load(matrix, (loaded) => this.encodeLoaded(loaded, choice));
  }

  /** Runs `work` on a tensor in the workspace. @throws {MisuseError} `bad-size`, `bad-shape`. */
  load<T>(matrix: Matrix, work: (loaded: Loaded, workspace: CodecWorkspace) => T): T {
    const workspace = this.#workspace;
    const { rows, columns, dtype, bytes } = matrix;
    const count = rows * columns;
    const { elementBytes } = dtypeTraits(dtype);
    if (!Number.isInteger(rows) || !Number.isInteger(columns) || rows < 1 || columns < 1) {
      throw new MisuseError("bad-shape", "a matrix has at least one row and one column");
    }
    if (bytes.byteLength !== count * elementBytes) {
      throw new MisuseError("bad-size", "the bytes are not those of the shape");
    }
    this.#requireFit(rows, columns, dtype);
    return workspace.within(() => {
      const room = paddedCount(rows, columns);
      const original = workspace.take(Math.max(bytes.byteLength, dtype === "f32" ? room * 4 : 0));
      workspace.bytes(original, bytes.byteLength).set(bytes);
      const isFloat = dtype === "f32" || dtype === "f16" || dtype === "bf16";
      const wide = isFloat && dtype !== "f32" ? workspace.take(room * 4) : original;
      const decoded = isFloat ? workspace.take(room * 4) : 0;
      let isWide = dtype === "f32";
      const loaded: Loaded = {
        ...{ matrix, original, isFloat, decoded },
        get values() {
          if (!isWide) widen(workspace, original, wide, count, dtype);
          isWide = true;
          return wide;
        },
      };
      return work(loaded, workspace);
    });
  }

  /** As {@link encode}, of a tensor that is loaded. */
  encodeLoaded(loaded: Loaded, choice: Choice): EncodedUnit {
    return this.#workspace.within(() => {
      const unit = isQuantising(choice.codec)
        ? this.#encodeQuantised(loaded, choice)
        : this.#encodeBytes(loaded, choice);
      const { place, relativeError, maxError } = unit;
      const header = { ...place.header, relativeError, maxError };
      const bytes = this.#workspace.bytes(place.address, place.sections.totalBytes);
      writeHeader(bytes, header, place.sections);
      return { bytes: bytes.slice(), codec: choice.codec, relativeError, maxError };
    });
  }

  /**
   * Decodes a unit.
   *
   * @param originalBytesMax A larger original is refused before anything is allocated.
   * @throws {CorruptionError} The unit is malformed.
   * @throws {MisuseError} `bad-size` — the tensor does not fit the workspace.
   */
  decode(unit: Uint8Array, originalBytesMax = Number.MAX_SAFE_INTEGER): Matrix {
    return this.#decode(unit, originalBytesMax, (bytes) => bytes.slice());
  }

  /**
   * As {@link decode}, into bytes that are there already.
   *
   * @param target As long as the original, or longer. Written only if the unit is intact.
   * @returns The decoded tensor; its bytes are the first of `target`.
   * @throws {CorruptionError} The unit is malformed, or its original longer than `target`.
   */
  decodeInto(unit: Uint8Array, target: Uint8Array): Matrix {
    return this.#decode(unit, target.byteLength, (bytes) => {
      target.set(bytes);
      return target.subarray(0, bytes.byteLength);
    });
  }

  #decode(
    unit: Uint8Array,
    originalBytesMax: number,
    give: (bytes: Uint8Array) => Uint8Array,
  ): Matrix {
    const parsed = parseUnit(unit, originalBytesMax);
    if (parsed.verdict === "malformed") throw damaged(parsed.reason);
    const { header, sections } = parsed;
    const { rows, columns, dtype } = header;
    this.#requireFit(rows, columns, dtype);
    const workspace = this.#workspace;
    return workspace.within(() => {
      const address = workspace.take(sections.totalBytes + HEADER_BYTES);
      workspace.bytes(address, sections.totalBytes).set(unit.subarray(0, sections.totalBytes));
      const place = { header, sections, address };
      const room = Math.max(paddedCount(rows, columns) * 4, originalBytes(header));
      const target = workspace.take(room);
      const reason = this.#decodePlace(place, target);
      if (reason !== null) throw damaged(reason);
      const bytes = give(workspace.bytes(target, originalBytes(header)));
      return { bytes, dtype, rows, columns };
    });
  }

  /** Decodes to the original's element type, at `target`. @returns What is wrong, or null. */
  #decodePlace(place: UnitPlace, target: number): string | null {
    const workspace = this.#workspace;
    const { header } = place;
    if (!isQuantising(header.codec)) return this.#decodeBytes(place, target);
    const reason = this.#decodeValues(place, target);
    if (reason !== null) return reason;
    const count = header.rows * header.columns;
    // In place: each value is read before its half as many bytes are written.
    if (header.dtype !== "f32") narrow(workspace, target, target, count, header.dtype);
    return null;
  }

  /** Decodes a quantised unit to f32. */
  #decodeValues(place: UnitPlace, target: number): string | null {
    const workspace = this.#workspace;
    const { header } = place;
    return workspace.within(() => {
      const reason = decodeSections(workspace, place, target);
      const { scaleExponent } = header;
      if (reason === null && scaleExponent !== 0) {
        const count = header.rows * header.columns;
        workspace.kernels.scaleValues(target, target, count, 2 ** -scaleExponent);
      }
      return reason;
    });
  }

  #encodeQuantised(loaded: Loaded, choice: Choice): Measured {
    const workspace = this.#workspace;
    const { kernels } = workspace;
    const { matrix, decoded } = loaded;
    const count = matrix.rows * matrix.columns;
    if (!loaded.isFloat) {
      throw new MisuseError("bad-option", `${choice.codec} does not take ${matrix.dtype}`);
    }
    const scaleExponent = choice.isExact === true ? 0 : exponentFor(workspace, loaded);
    let values = loaded.values;
    if (scaleExponent !== 0) {
      values = workspace.take(paddedCount(matrix.rows, matrix.columns) * 4);
      kernels.scaleValues(loaded.values, values, count, 2 ** scaleExponent);
    }
    const { header, thresholdBits } = headerFor(workspace, matrix, choice, values, scaleExponent);
    let plan: ComponentPlan | null = null;
    let unitHeader = header;
    let tileBits = 0;
    if (choice.codec === "pca") {
      plan = planComponents(workspace, values, header, choice.bitsPerValue ?? 3);
      unitHeader = { ...header, count: plan.tileBits.filter((bits) => bits > 0).length };
      tileBits = plan.tileBits.reduce((sum, bits) => sum + bits, 0);
    }
    const sections = sectionsOf(unitHeader, 0, tileBits);
    const place = this.#place(unitHeader, sections);
    workspace.within(() => {
      if (plan !== null) encodeComponents(workspace, place, plan);
      else if (choice.codec === "lowrank") encodeFactors(workspace, place, values);
      else encodeSections(workspace, place, values, thresholdBits);
    });
    if (this.#decodeValues(place, decoded) !== null) throw new RangeError("a unit that we wrote");
    if (matrix.dtype !== "f32") {
      narrow(workspace, decoded, decoded, count, matrix.dtype);
      const halves = workspace.take(count * 2);
      workspace.bytes(halves, count * 2).set(workspace.bytes(decoded, count * 2));
      widen(workspace, halves, decoded, count, matrix.dtype);
    }
    return { place, ...measure(workspace, loaded.values, decoded, count) };
  }

  /** Takes a unit's bytes, all zero. */
  #place(header: UnitHeader, sections: Sections): UnitPlace {
    const address = this.#workspace.take(sections.totalBytes + HEADER_BYTES);
    this.#workspace.bytes(address, sections.totalBytes).fill(0);
    return { header, sections, address };
  }

  #encodeBytes(loaded: Loaded, choice: Choice): Measured {
    const workspace = this.#workspace;
    const { matrix, original, decoded } = loaded;
    const { rows, columns, dtype, bytes } = matrix;
    const { kernels } = workspace;
    const count = rows * columns;
    const { codec } = choice;
    if (codec === "plane") return this.#encodePlanes(loaded);
    const header = plainHeader(matrix, choice);
    const place = this.#place(header, sectionsOf(header));
    const codes = place.address + place.sections.codes;
    if (codec === "raw") workspace.bytes(codes, bytes.byteLength).set(bytes);
    else if (codec === "const") {
      const { elementBytes } = dtypeTraits(dtype);
      workspace.bytes(codes, elementBytes).set(bytes.subarray(0, elementBytes));
    } else {
      if (dtype !== "f32") throw new MisuseError("bad-option", `${codec} does not take ${dtype}`);
      const { variant } = header;
      const convert = variant === "bf16" ? kernels.bf16Encode : kernels.f16Encode;
      convert(original, codes, count);
      widen(workspace, codes, decoded, count, variant === "bf16" ? "bf16" : "f16");
      if (codec === "half") {
        return { place, ...measure(workspace, original, decoded, count) };
      }
      requireSame(workspace.bytes(decoded, count * 4), bytes, codec);
    }
    if (codec === "const") {
      const { elementBytes } = dtypeTraits(dtype);
      if (!isConstant(bytes, elementBytes)) throw new MisuseError("bad-option", "not constant");
    }
    return { place, relativeError: 0, maxError: 0 };
  }

  #encodePlanes({ matrix, original }: Loaded): Measured {
    const workspace = this.#workspace;
    const { dtype, bytes } = matrix;
    const { elementBytes } = dtypeTraits(dtype);
    const lengths = chunkLengths(bytes.byteLength);
    const header = { ...plainHeader(matrix, { codec: "plane" }), count: lengths.length };
    const room = lengths.reduce((sum, length) => sum + planeBytesMax(length), 0);
    // Behind the last chunk, wide stores need as much room as it has.
    const spare = Math.min(CHUNK_BYTES, bytes.byteLength);
    const address = workspace.take(HEADER_BYTES + room + spare + lengths.length * 4 + 256);
    const offsets = [0];
    let offset = 0;
    lengths.forEach((length, chunk) => {
      const source = original + chunk * CHUNK_BYTES;
      const target = address + HEADER_BYTES + offset;
      offset += encodeChunk(workspace, source, length, dtype, elementBytes, target);
      offsets.push(offset);
    });
    const sections = sectionsOf(header, offset);
    const codesEnd = address + HEADER_BYTES + offset;
    workspace.bytes(codesEnd, address + sections.extra - codesEnd).fill(0);
    workspace.u32(address + sections.extra, offsets.length).set(offsets);
    return { place: { header, sections, address }, relativeError: 0, maxError: 0 };
  }

  #decodeBytes({ header, sections, address }: UnitPlace, target: number): string | null {
    const workspace = this.#workspace;
    const { codec, dtype, rows, columns, variant } = header;
    const codes = address + sections.codes;
    const totalBytes = originalBytes(header);
    const output = workspace.bytes(target, totalBytes);
    const { elementBytes } = dtypeTraits(dtype);
    if (codec === "raw") output.set(workspace.bytes(codes, totalBytes));
    else if (codec === "const") {
      output.set(workspace.bytes(codes, elementBytes));
      for (let filled = elementBytes; filled < totalBytes; filled *= 2) {
        output.copyWithin(filled, 0, Math.min(filled, totalBytes - filled));
      }
    } else if (codec === "plane") {
      const table = workspace.u32(address + sections.extra, header.count + 1);
      const isIntact = chunkLengths(totalBytes).every((length, chunk) => {
        const [from = 0, to = 0] = table.subarray(chunk, chunk + 2);
        const at = target + chunk * CHUNK_BYTES;
        return decodeChunk(workspace, codes + from, to - from, length, dtype, elementBytes, at);
      });
      if (!isIntact) return "chunk";
    } else {
      widen(workspace, codes, target, rows * columns, variant === "bf16" ? "bf16" : "f16");
    }
    return null;
  }
}

interface Measured {
  readonly place: UnitPlace;
  readonly relativeError: number;
  readonly maxError: number;
}

function damaged(reason: string): CorruptionError {
  return new CorruptionError("codec", `a malformed unit: ${reason}`);
}

function isQuantising(codec: CodecName): boolean {
  return CODEC_IDS[codec] >= CODEC_IDS.q8;
}

function widen(
  { kernels }: CodecWorkspace,
  source: number,
  target: number,
  count: number,
  dtype: Dtype,
): void {
  if (dtype === "bf16") kernels.bf16Decode(source, target, count);
  else kernels.f16Decode(source, target, count);
}

function narrow(
  { kernels }: CodecWorkspace,
  source: number,
  target: number,
  count: number,
  dtype: Dtype,
): void {
  if (dtype === "bf16") kernels.bf16Encode(source, target, count);
  else kernels.f16Encode(source, target, count);
}

/** Relative and largest error of decoded values. */
function measure(
  workspace: CodecWorkspace,
  values: number,
  decoded: number,
  count: number,
): { relativeError: number; maxError: number } {
  const target = workspace.take(24);
  workspace.f64(target, 3).fill(0);
  workspace.kernels.measureError(values, decoded, count, target);
  const [errors = 0, squares = 0, maxError = 0] = workspace.f64(target, 3);
  return { relativeError: errors === 0 ? 0 : Math.sqrt(errors / squares), maxError };
}

function exponentFor(workspace: CodecWorkspace, { matrix, values }: Loaded): number {
  const bits = workspace.kernels.measureMagnitude(values, matrix.rows * matrix.columns);
  return scaleExponent(bits) ?? 0;
}

function isConstant(bytes: Uint8Array, elementBytes: number): boolean {
  for (let index = elementBytes; index < bytes.byteLength; index++) {
    if (bytes[index] !== bytes[index - elementBytes]) return false;
  }
  return true;
}

function requireSame(left: Uint8Array, right: Uint8Array, codec: CodecName): void {
  for (let index = 0; index < left.byteLength; index++) {
    if (left[index] !== right[index]) {
      throw new MisuseError("bad-option", `${codec} would change the values`);
    }
  }
}
