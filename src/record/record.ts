// The record: the self-describing form of one tensor in a colder tier. Layout, limits and reading
// order are written down in docs/record-format.md; this file is that document in code.
//
//   header (a multiple of 256 bytes) | stored bytes | digest of all before (16 bytes)
//
// Fixed binary, canonical: a header that does not encode back to itself is refused.
import {
  type Dtype,
  dtypeOfId,
  dtypeTraits,
  LAYOUTS,
  type Layout,
  RANK_MAX,
  TENSOR_KINDS,
  type TensorKind,
} from "../types.js";
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";
import { sha256Hex } from "../util/sha256.js";

const RECORD_MAGIC = 0x31485254; // "TRH1", little-endian
const RECORD_VERSION = 1;
export const HEADER_BYTES_MIN = 256;
export const HEADER_BYTES_MAX = 65536;
/** A multiple of this; the hash wants more than 240 bytes before it. */
const HEADER_UNIT_BYTES = 256;
const EXPIRES_OFFSET = 120;
const FIXED_BYTES = 128;
export const TRAILER_BYTES = 16;
/** Codec of a record whose stored bytes are the tensor's. Others are of `codec/codec.ts`. */
export const CODEC_RAW = 0;
const HASH_XXH3_128 = 1;
const FLAG_DURABLE = 1;
const FLAG_SAVED = 2;
const FLAG_EXPIRES = 4;
const FLAGS_KNOWN = FLAG_DURABLE | FLAG_SAVED | FLAG_EXPIRES;

/** Whose record it is, and of which tensor: the parts of its key. */
export interface RecordName {
  readonly tenant: string;
  /** Model and revision that the bytes belong to. */
  readonly fingerprint: string;
  readonly id: string;
}

export interface RecordHeader extends RecordName {
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly codecId: number;
  /** It was written to survive power loss, so nothing less may replace it. */
  readonly isDurable: boolean;
  /** Written by `save`; otherwise it is a swapped-out copy, and belongs to its tensor. */
  readonly isSaved: boolean;
  /** Grows with every record written under one key. */
  readonly generation: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** From then on nobody finds it; in milliseconds since 1970. 0: never. */
  readonly expiresMs: number;
}

export type HeaderVerdict =
  | { readonly verdict: "valid"; readonly header: RecordHeader; readonly headerBytes: number }
  /** Not a record, or a damaged one. */
  | { readonly verdict: "damaged"; readonly reason: string }
  /** A record of another version: left alone. */
  | { readonly verdict: "incompatible"; readonly reason: string };

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes of a text in UTF-8. Does not make them. */
function utf8BytesOf(text: string): number {
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) > 127) return encoder.encode(text).byteLength;
  }
  return text.length;
}

/** Bytes of the header of a record with this name. */
function headerBytesOf(name: RecordName): number {
  const textBytes = utf8BytesOf(name.tenant) + utf8BytesOf(name.fingerprint) + utf8BytesOf(name.id);
  return Math.ceil((FIXED_BYTES + textBytes) / HEADER_UNIT_BYTES) * HEADER_UNIT_BYTES;
}

/** Bytes of the whole record. */
export function recordBytesOf(header: RecordHeader): number {
  return headerBytesOf(header) + header.storedBytes + TRAILER_BYTES;
}

export function encodeHeader(header: RecordHeader): PrivateBytes {
  const bytes = privateBytes(headerBytesOf(header));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, RECORD_MAGIC, true);
  view.setUint16(4, RECORD_VERSION, true);
  const flags =
    (header.isDurable ? FLAG_DURABLE : 0) |
    (header.isSaved ? FLAG_SAVED : 0) |
    (header.expiresMs > 0 ? FLAG_EXPIRES : 0);
  view.setUint16(6, flags, true);
  view.setUint32(8, bytes.byteLength, true);
  view.setUint8(12, header.codecId);
  view.setUint8(13, dtypeTraits(header.dtype).id);
  view.setUint8(14, header.shape.length);
  view.setUint8(15, TENSOR_KINDS.indexOf(header.kind) + 1);
  view.setUint8(16, LAYOUTS.indexOf(header.layout));
  view.setUint8(17, HASH_XXH3_128);
  view.setBigUint64(32, BigInt(header.generation), true);
  view.setBigUint64(40, BigInt(header.rawBytes), true);
  view.setBigUint64(48, BigInt(header.storedBytes), true);
  for (const [index, length] of header.shape.entries()) {
    view.setBigUint64(56 + index * 8, BigInt(length), true);
  }
  view.setBigUint64(EXPIRES_OFFSET, BigInt(header.expiresMs), true);
  let offset = FIXED_BYTES;
  for (const [index, text] of [header.tenant, header.fingerprint, header.id].entries()) {
    const { written } = encoder.encodeInto(text, bytes.subarray(offset));
    view.setUint32(20 + index * 4, written, true);
    offset += written;
  }
  return bytes;
}

/**
 * Reads a header from the first bytes of an object. Allocates nothing that the input sizes beyond
 * {@link HEADER_BYTES_MAX}.
 *
 * @param bytes At least the header; more is ignored.
 */
export function decodeHeader(bytes: Uint8Array): HeaderVerdict {
  const damaged = (reason: string): HeaderVerdict => ({ verdict: "damaged", reason });
  if (bytes.byteLength < HEADER_BYTES_MIN) return damaged("shorter than a header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== RECORD_MAGIC) return damaged("no record magic");
  const version = view.getUint16(4, true);
  const flags = view.getUint16(6, true);
  if (version !== RECORD_VERSION || (flags & ~FLAGS_KNOWN) !== 0) {
    return { verdict: "incompatible", reason: `record version ${version}, flags ${flags}` };
  }
  const headerBytes = view.getUint32(8, true);
  if (headerBytes > HEADER_BYTES_MAX || headerBytes > bytes.byteLength) {
    return damaged("header length");
  }
  if (view.getUint8(17) !== HASH_XXH3_128) {
    return { verdict: "incompatible", reason: `hash ${view.getUint8(17)}` };
  }
  const dtype = dtypeOfId(view.getUint8(13));
  const rank = view.getUint8(14);
  const kind = TENSOR_KINDS[view.getUint8(15) - 1];
  const layout = LAYOUTS[view.getUint8(16)];
  if (dtype === undefined || kind === undefined || layout === undefined) return damaged("types");
  if (rank < 1 || rank > RANK_MAX) return damaged("rank");
  const wide = [];
  for (let offset = 32; offset < 56 + rank * 8; offset += 8) {
    const value = view.getBigUint64(offset, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) return damaged("a size overflows");
    wide.push(Number(value));
  }
  const [generation, rawBytes, storedBytes, ...shape] = wide as [
    number,
    number,
    number,
    ...number[],
  ];
  const expires = view.getBigUint64(EXPIRES_OFFSET, true);
  if (expires > BigInt(Number.MAX_SAFE_INTEGER)) return damaged("a date overflows");
  let shapeBytes = dtypeTraits(dtype).elementBytes;
  for (const length of shape) shapeBytes *= length;
  if (shapeBytes !== rawBytes || rawBytes === 0) return damaged("shape and length disagree");
  const textBytes = [20, 24, 28].map((offset) => view.getUint32(offset, true));
  let offset = FIXED_BYTES;
  const texts: string[] = [];
  for (const byteLength of textBytes) {
    if (offset + byteLength > headerBytes) return damaged("a name overflows");
    try {
      texts.push(decoder.decode(bytes.slice(offset, offset + byteLength)));
    } catch {
      return damaged("a name is not UTF-8");
    }
    offset += byteLength;
  }
  const [tenant, fingerprint, id] = texts as [string, string, string];
  const codecId = view.getUint8(12);
  const header: RecordHeader = {
    tenant,
    fingerprint,
    id,
    kind,
    dtype,
    shape,
    layout,
    codecId,
    isDurable: (flags & FLAG_DURABLE) !== 0,
    isSaved: (flags & FLAG_SAVED) !== 0,
    generation,
    rawBytes,
    storedBytes,
    expiresMs: Number(expires),
  };
  const canonical = encodeHeader(header);
  if (canonical.byteLength !== headerBytes) return damaged("header length is not canonical");
  for (let index = 0; index < headerBytes; index++) {
    if (canonical[index] !== bytes[index]) return damaged("header is not canonical");
  }
  return { verdict: "valid", header, headerBytes };
}

/**
 * The key of a record: SHA-256 over its name, each part with its length before it, so that no two
 * names give the same input. A saved record and a swapped-out copy of one tensor have two keys, so
 * that pressure never overwrites what was saved.
 *
 * @returns 64 hexadecimal digits.
 */
export function recordKey(name: RecordName, isSaved: boolean): string {
  const label = isSaved ? "tierheap saved record 1" : "tierheap swapped record 1";
  const parts = [label, name.tenant, name.fingerprint, name.id].map((part) => encoder.encode(part));
  const input = privateBytes(parts.reduce((sum, part) => sum + 4 + part.byteLength, 0));
  const view = new DataView(input.buffer);
  let offset = 0;
  for (const part of parts) {
    view.setUint32(offset, part.byteLength, true);
    input.set(part, offset + 4);
    offset += 4 + part.byteLength;
  }
  return sha256Hex(input);
}
