// What the remote tier keeps in a Redis server: for each object a commit record under one key, and
// chunks under keys of their own. Both say whose they are, so that a reply to another question is never
// taken for an answer. All numbers are little-endian.
//
//   commit record, 84 bytes                         chunk
//     0  u32  magic, the bytes TRHR                   0  16  generation of the object
//     4  u32  version, 1                             16  u32 index
//     8   16  generation, drawn at random            20  u32 payload bytes
//    24   32  key                                    24      payload, zeros up to a multiple of 4
//    56  u64  bytes of the object                    -4  u32 check over everything before
//    64  u32  payload bytes of all chunks but the last
//    68  u32  0
//    72  u64  when it expires, milliseconds since 1970; 0: never
//    80  u32  check over everything before
//
// A tombstone is a commit record of version 0: nothing is there, and nothing that was sent before counts.
//
// The check is that of the store's frames. It tells what came over the wire as it was sent; whether the
// bytes of an object are right is for the record's digest.
import { bytesOfHex, checkOf } from "./segment-format.js";
import type { TierKey } from "./tier.js";

const MAGIC = 0x52485254; // "TRHR", little-endian
const VERSION = 1;
const TOMBSTONE_VERSION = 0;
const COMMIT_BYTES = 84;
export const GENERATION_BYTES = 16;
const CHUNK_HEADER_BYTES = 24;
const CHECK_BYTES = 4;
const CHUNK_BYTES_MAX = 2 ** 26;

/** How an object lies in the server. */
export interface CommitRecord {
  /** 32 hexadecimal digits: the same key written again has another one. */
  readonly generation: string;
  readonly byteLength: number;
  readonly chunkBytes: number;
  readonly expiresMs: number;
}

export type CommitVerdict =
  | { readonly verdict: "valid"; readonly record: CommitRecord }
  /** A tombstone. */
  | { readonly verdict: "deleted" }
  /** Not what this key's writer wrote. */
  | { readonly verdict: "foreign" }
  /** Written by another version of this format. */
  | { readonly verdict: "incompatible" };

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function chunkCountOf({ byteLength, chunkBytes }: CommitRecord): number {
  return Math.ceil(byteLength / chunkBytes);
}

/** @param generation Drawn at random, so that no two are equal. */
export function encodeTombstone(key: TierKey, generation: string): Uint8Array {
  const record = { generation, byteLength: 0, chunkBytes: 1, expiresMs: 0 };
  return encodeCommit(key, record, TOMBSTONE_VERSION);
}

export function encodeCommit(key: TierKey, record: CommitRecord, version = VERSION): Uint8Array {
  const bytes = new Uint8Array(COMMIT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, version, true);
  bytes.set(bytesOfHex(record.generation), 8);
  bytes.set(bytesOfHex(key), 24);
  view.setBigUint64(56, BigInt(record.byteLength), true);
  view.setUint32(64, record.chunkBytes, true);
  view.setBigUint64(72, BigInt(record.expiresMs), true);
  view.setInt32(80, checkOf(view, 0, 80), true);
  return bytes;
}

export function decodeCommit(key: TierKey, bytes: Uint8Array): CommitVerdict {
  if (bytes.byteLength < 8) return { verdict: "foreign" };
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== MAGIC) return { verdict: "foreign" };
  const version = view.getUint32(4, true);
  if (version > VERSION) return { verdict: "incompatible" };
  if (bytes.byteLength !== COMMIT_BYTES) return { verdict: "foreign" };
  if (view.getInt32(80, true) !== checkOf(view, 0, 80)) return { verdict: "foreign" };
  if (hexOf(bytes.subarray(24, 56)) !== key) return { verdict: "foreign" };
  if (version === TOMBSTONE_VERSION) return { verdict: "deleted" };
  const byteLength = Number(view.getBigUint64(56, true));
  const chunkBytes = view.getUint32(64, true);
  const expiresMs = Number(view.getBigUint64(72, true));
  if (chunkBytes === 0 || chunkBytes > CHUNK_BYTES_MAX) return { verdict: "foreign" };
  if (!Number.isSafeInteger(byteLength) || !Number.isSafeInteger(expiresMs)) {
    return { verdict: "foreign" };
  }
  const generation = hexOf(bytes.subarray(8, 24));
  return { verdict: "valid", record: { generation, byteLength, chunkBytes, expiresMs } };
}

/** A chunk that is filled in place: its payload is written into it, and then it is sealed. */
export class ChunkFrame {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #filled = 0;

  constructor(chunkBytes: number) {
    const padded = Math.ceil(chunkBytes / 4) * 4;
    this.#bytes = new Uint8Array(CHUNK_HEADER_BYTES + padded + CHECK_BYTES);
  }

  get filled(): number {
    return this.#filled;
  }

  append(source: Uint8Array): void {
    this.#bytes.set(source, CHUNK_HEADER_BYTES + this.#filled);
    this.#filled += source.byteLength;
  }

  /** The bytes to send; the frame is then empty, and they stay as they are until it is filled again. */
  seal(generation: string, index: number): Uint8Array<ArrayBuffer> {
    const bytes = this.#bytes;
    const view = viewOf(bytes);
    bytes.set(bytesOfHex(generation), 0);
    view.setUint32(16, index, true);
    view.setUint32(20, this.#filled, true);
    const endOffset = CHUNK_HEADER_BYTES + Math.ceil(this.#filled / 4) * 4;
    bytes.fill(0, CHUNK_HEADER_BYTES + this.#filled, endOffset);
    view.setInt32(endOffset, checkOf(view, 0, endOffset), true);
    this.#filled = 0;
    return bytes.subarray(0, endOffset + CHECK_BYTES);
  }
}

/** The payload of a chunk, or null when the bytes are not that chunk as it was sent. */
export function decodeChunk(
  bytes: Uint8Array,
  record: CommitRecord,
  index: number,
): Uint8Array | null {
  const { byteLength, chunkBytes, generation } = record;
  const payloadBytes = Math.min(chunkBytes, byteLength - index * chunkBytes);
  const endOffset = CHUNK_HEADER_BYTES + Math.ceil(payloadBytes / 4) * 4;
  if (bytes.byteLength !== endOffset + CHECK_BYTES) return null;
  const view = viewOf(bytes);
  if (view.getInt32(endOffset, true) !== checkOf(view, 0, endOffset)) return null;
  if (view.getUint32(16, true) !== index || view.getUint32(20, true) !== payloadBytes) return null;
  if (hexOf(bytes.subarray(0, GENERATION_BYTES)) !== generation) return null;
  return bytes.subarray(CHUNK_HEADER_BYTES, CHUNK_HEADER_BYTES + payloadBytes);
}
