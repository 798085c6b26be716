// The header of a safetensors file: read, and judged whole before anything is allocated; and written.
//
//   byte  0              8                    8 + n
//         ┌──────────────┬────────────────────┬───────────────────── ─ ─
//         │ n, u64 LE    │ JSON, n bytes      │ tensors, back to back
//         └──────────────┴────────────────────┴───────────────────── ─ ─
//
// Source: huggingface/safetensors, README "Format" and safetensors/src/tensor.rs — the rules that a valid
// file keeps, the longest header, and the order in which tensors are written.
import { describe } from "../../types.js";
import { privateBytes } from "../../util/private-bytes.js";
import { bitsOf } from "./dtypes.js";
import { isJsonObject, parseStrictJson } from "./json-tokens.js";
import { SafetensorsError } from "./safetensors-error.js";
import { type ByteRangeReader, readFully } from "./source.js";

/** One tensor as a file describes it. */
export interface SafetensorsEntry {
  readonly name: string;
  /** The format's name of the element type, for example `"BF16"`. */
  readonly dtype: string;
  /** Lengths of at least 0, outermost first; empty for a single value. */
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** An entry with its place. */
export interface PlacedEntry extends SafetensorsEntry {
  /** Of its first byte, from the beginning of the file. */
  readonly fileOffset: number;
}

/** A header that keeps all rules. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their bytes, without a gap, up to the end of the file. */
  readonly entries: readonly PlacedEntry[];
}

/** The format's own limit. */
export const HEADER_BYTES_MAX = 100_000_000;
const LENGTH_BYTES = 8;
const METADATA_KEY = "__metadata__";

const utf8 = new TextEncoder();

/**
 * Bytes of a dense tensor.
 *
 * @throws {SafetensorsError} `bad-dtype`; `bad-shape`; `overflow`; `size-mismatch` — its bits do not
 *   fill whole bytes.
 */
export function denseBytes(name: string, dtype: unknown, shape: unknown): number {
  const bits = typeof dtype === "string" ? bitsOf(dtype) : undefined;
  if (bits === undefined) {
    throw new SafetensorsError("bad-dtype", `${describe(name)} has the dtype ${describe(dtype)}`);
  }
  const isShape =
    Array.isArray(shape) &&
    shape.every((length: unknown) => Number.isSafeInteger(length) && (length as number) >= 0);
  if (!isShape) {
    throw new SafetensorsError("bad-shape", `the shape of ${describe(name)} is not one of lengths`);
  }
  let total = bits;
  for (const length of shape as number[]) {
    total *= length;
    if (total > Number.MAX_SAFE_INTEGER) {
      throw new SafetensorsError("overflow", `the size of ${describe(name)} overflows`);
    }
  }
  if (total % 8 === 0) return total / 8;
  throw new SafetensorsError("size-mismatch", `${describe(name)} does not fill whole bytes`);
}

/** @throws {SafetensorsError} `bad-metadata`. */
export function checkMetadata(value: unknown): Readonly<Record<string, string>> {
  const isText =
    isJsonObject(value) && Object.values(value).every((text) => typeof text === "string");
  if (isText) return value as Record<string, string>;
  throw new SafetensorsError("bad-metadata", `${METADATA_KEY} does not map text to text`);
}

/** @throws {SafetensorsError} `bad-name` — not well-formed, or the one that the format keeps. */
export function checkName(name: unknown): string {
  if (typeof name === "string" && name.isWellFormed() && name !== METADATA_KEY) return name;
  throw new SafetensorsError("bad-name", `${describe(name)} cannot name a tensor`);
}

/** One entry, with its offsets from the first tensor. */
function checkEntry(name: string, value: unknown) {
  checkName(name);
  const { dtype, shape, data_offsets: offsets } = isJsonObject(value) ? value : {};
  if (typeof dtype !== "string" || !Array.isArray(shape) || !Array.isArray(offsets)) {
    const fields = "dtype, shape and data_offsets";
    throw new SafetensorsError("bad-entry", `${describe(name)} lacks one of ${fields}`);
  }
  const [start, end] = offsets as unknown[];
  if (offsets.length !== 2 || typeof start !== "number" || typeof end !== "number") {
    throw new SafetensorsError(
      "bad-entry",
      `data_offsets of ${describe(name)} are not two numbers`,
    );
  }
  const byteLength = denseBytes(name, dtype, shape);
  if (end < start) {
    throw new SafetensorsError("bad-offsets", `${describe(name)} ends before it begins`);
  }
  if (end - start !== byteLength) {
    const problem = `${describe(name)} has ${end - start} bytes`;
    throw new SafetensorsError("size-mismatch", `${problem} instead of ${byteLength}`);
  }
  return { name, dtype, shape: shape as number[], byteLength, start, end };
}

/**
 * Judges a header.
 *
 * @param text All of it.
 * @param dataStart Offset of the first tensor. @param fileBytes Length of the file.
 * @throws {SafetensorsError} Whatever is wrong first.
 */
export function parseHeader(text: string, dataStart: number, fileBytes: number): SafetensorsHeader {
  if (text[0] !== "{") throw new SafetensorsError("header-json", "the header is not an object");
  const parsed = parseStrictJson(text, { numbers: "whole" }) as Record<string, unknown>;
  const { [METADATA_KEY]: metadata, ...tensors } = parsed;
  const found = Object.entries(tensors).map(([name, value]) => checkEntry(name, value));
  found.sort((one, other) => one.start - other.start || one.end - other.end);
  const dataBytes = fileBytes - dataStart;
  let next = 0;
  const entries = found.map(({ start, end, ...entry }) => {
    const name = describe(entry.name);
    if (start !== next) {
      const problem = start < next ? "overlaps the tensor before it" : "leaves a hole before it";
      throw new SafetensorsError("bad-offsets", `${name} ${problem}`);
    }
    if (end > dataBytes) throw new SafetensorsError("bad-offsets", `${name} ends behind the file`);
    next = end;
    return { ...entry, fileOffset: dataStart + start };
  });
  if (next !== dataBytes) {
    throw new SafetensorsError("trailing-bytes", `${dataBytes - next} bytes belong to no tensor`);
  }
  return { metadata: metadata === undefined ? {} : checkMetadata(metadata), entries };
}

/**
 * Reads and judges the header of a file. Takes memory for the header only, once the file is long enough.
 *
 * @throws {SafetensorsError} Whatever is wrong first.
 */
export async function readHeader(
  reader: ByteRangeReader,
  headerBytesMax: number,
  signal: AbortSignal | undefined,
): Promise<SafetensorsHeader> {
  const { byteLength: fileBytes } = reader;
  if (fileBytes < LENGTH_BYTES) {
    throw new SafetensorsError("too-short", `a file of ${fileBytes} bytes has no header`);
  }
  const prefix = privateBytes(LENGTH_BYTES);
  await readFully(reader, prefix, 0, signal);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(Math.min(headerBytesMax, fileBytes - LENGTH_BYTES))) {
    const problem = `a header of ${length} bytes`;
    throw new SafetensorsError("header-length", `${problem} in a file of ${fileBytes}`);
  }
  const bytes = privateBytes(Number(length));
  await readFully(reader, bytes, LENGTH_BYTES, signal);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new SafetensorsError("header-text", "the header is not UTF-8", { cause: error });
  }
  return parseHeader(text, LENGTH_BYTES + bytes.byteLength, fileBytes);
}

/**
 * The bytes before the first tensor, padded so that tensors begin at a multiple of 8.
 *
 * @param entries In the order of their bytes.
 */
export function formatHeader(
  metadata: Readonly<Record<string, string>>,
  entries: readonly SafetensorsEntry[],
): Uint8Array<ArrayBuffer> {
  const keys = Object.keys(metadata).sort();
  const members: [string, unknown][] = [];
  if (keys.length > 0) {
    members.push([METADATA_KEY, Object.fromEntries(keys.map((key) => [key, metadata[key]]))]);
  }
  let offset = 0;
  for (const { name, dtype, shape, byteLength } of entries) {
    members.push([name, { dtype, shape, data_offsets: [offset, offset + byteLength] }]);
    offset += byteLength;
  }
  // Not from an object, which would put names that are numbers first.
  const text = members.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = utf8.encode(`{${text.join(",")}}`);
  const headerBytes = Math.ceil(json.byteLength / LENGTH_BYTES) * LENGTH_BYTES;
  const bytes = privateBytes(LENGTH_BYTES + headerBytes).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(json, LENGTH_BYTES);
  return bytes;
}
