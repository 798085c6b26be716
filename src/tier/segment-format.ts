// The bytes of a segment file: frames, the table of a full segment, and the trailer that finds it.
// Layout and meaning are written down in docs/record-format.md; this file is that document in code.
// Pure: knows no files.
//
//   byte  0       4      5       6    8          16       24        32    64   80       88      92    124
//         ┌───────┬──────┬───────┬────┬──────────┬────────┬─────────┬─────┬────┬────────┬───────┬─────┬───────┐
//         │ magic │ kind │ flags │ 0  │ sequence │ offset │ payload │ key │ id │ synced │ check │ 0   │ check │
//         └───────┴──────┴───────┴────┴──────────┴────────┴─────────┴─────┴────┴────────┴───────┴─────┴───────┘
//
// Source: Austin Appleby, MurmurHash3_x86_32 (public domain) — the checks.
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";
import type { TierKey } from "./tier.js";

export const FRAME_HEADER_BYTES = 128;
/** Frames begin at multiples of this. */
export const FRAME_UNIT_BYTES = 64;
export const TABLE_ENTRY_BYTES = 64;
export const TRAILER_BYTES = 64;
/** What a table costs besides its entries. */
export const TABLE_OVERHEAD_BYTES = FRAME_HEADER_BYTES + TRAILER_BYTES;
/** No sequence and no segment's number is larger, so that there is always a next one. */
export const SEQUENCE_MAX = 2 ** 52;
/** No segment is longer; a longer file is not one. */
export const SEGMENT_BYTES_LIMIT = 64 * 2 ** 20;

const FRAME_MAGIC = 0x46485254; // "TRHF", little-endian
const TRAILER_MAGIC = 0x54485254; // "TRHT"
const KEY_OFFSET = 32;
const KEY_BYTES = 32;
const ID_OFFSET = 64;
const HEADER_CHECK_OFFSET = FRAME_HEADER_BYTES - 4;
const TRAILER_CHECK_OFFSET = TRAILER_BYTES - 4;
const FLAG_DURABLE = 1;
const KINDS = ["object", "tombstone", "table"] as const;
const WORD = 2 ** 32;

export type FrameKind = (typeof KINDS)[number];

/** A frame's place and meaning. */
export interface Frame {
  readonly kind: FrameKind;
  /** 64 zeros for a table. */
  readonly key: TierKey;
  readonly sequence: number;
  /** Of the frame, from the file's start; a multiple of {@link FRAME_UNIT_BYTES}. */
  readonly offset: number;
  readonly payloadBytes: number;
  /** It was written to survive power loss. */
  readonly isDurable: boolean;
}

export interface FrameHeader extends Frame {
  /** How far the file was synced when the frame was built. */
  readonly syncedOffset: number;
  readonly payloadCheck: number;
}

export const NO_KEY: TierKey = "0".repeat(2 * KEY_BYTES);

/** Bytes of a whole frame. */
export function frameBytesOf(payloadBytes: number): number {
  return FRAME_HEADER_BYTES + Math.ceil(payloadBytes / FRAME_UNIT_BYTES) * FRAME_UNIT_BYTES;
}

/** What a packed object takes at most: its frame, its line in a table, and a table of its own. */
export function packedBytesOf(payloadBytes: number): number {
  return frameBytesOf(payloadBytes) + TABLE_ENTRY_BYTES + TABLE_OVERHEAD_BYTES;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * The check over whole words.
 *
 * @param end A multiple of 4 behind `start`.
 */
export function checkOf(view: DataView, start: number, end: number): number {
  let hash = 0;
  for (let offset = start; offset < end; offset += 4) {
    let word = Math.imul(view.getInt32(offset, true), 0xcc9e2d51);
    word = (word << 15) | (word >>> 17);
    hash ^= Math.imul(word, 0x1b873593);
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  hash ^= end - start;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

function setWide(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % WORD, true);
  view.setUint32(offset + 4, Math.floor(value / WORD), true);
}

/** @returns More than the largest safe integer for what no writer writes. */
function getWide(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * WORD + view.getUint32(offset, true);
}

/** Bytes of lower-case hexadecimal digits. */
export function bytesOfHex(digits: string): Uint8Array {
  const bytes = new Uint8Array(digits.length / 2);
  for (let index = 0; index < bytes.length; index++) {
    const high = digitOf(digits.charCodeAt(2 * index));
    bytes[index] = 16 * high + digitOf(digits.charCodeAt(2 * index + 1));
  }
  return bytes;
}

/** @param code Of 0 to 9 or a to f. */
function digitOf(code: number): number {
  return code < 58 ? code - 48 : code - 87;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

function hexOf(bytes: Uint8Array, offset: number, byteLength: number): string {
  let digits = "";
  for (let index = offset; index < offset + byteLength; index++) digits += HEX[bytes[index] ?? 0];
  return digits;
}

/**
 * Writes a frame's header over the first bytes of `target`; payload and zeros are there already.
 *
 * @param target The whole frame; or at least its header, when the frame has no payload check.
 * @param id 16 bytes, the segment's.
 */
export function encodeFrame(
  target: Uint8Array,
  frame: Frame & { readonly syncedOffset: number },
  id: Uint8Array,
): void {
  const view = viewOf(target);
  const hasCheck = frame.kind === "table" || (frame.kind === "object" && frame.isDurable);
  target.fill(0, 0, FRAME_HEADER_BYTES);
  view.setUint32(0, FRAME_MAGIC, true);
  view.setUint8(4, KINDS.indexOf(frame.kind) + 1);
  view.setUint8(5, frame.isDurable ? FLAG_DURABLE : 0);
  setWide(view, 8, frame.sequence);
  setWide(view, 16, frame.offset);
  setWide(view, 24, frame.payloadBytes);
  target.set(bytesOfHex(frame.key), KEY_OFFSET);
  target.set(id, ID_OFFSET);
  setWide(view, 80, frame.syncedOffset);
  const endOffset = frameBytesOf(frame.payloadBytes);
  view.setInt32(88, hasCheck ? checkOf(view, FRAME_HEADER_BYTES, endOffset) : 0, true);
  view.setInt32(HEADER_CHECK_OFFSET, checkOf(view, 0, HEADER_CHECK_OFFSET), true);
}

function hasId(bytes: Uint8Array, offset: number, id: Uint8Array): boolean {
  return id.every((byte, index) => bytes[offset + index] === byte);
}

/** Whether the check of a frame's header fits as it is, without a repair. */
export function isHeaderWhole(header: Uint8Array): boolean {
  const view = viewOf(header);
  return checkOf(view, 0, HEADER_CHECK_OFFSET) === view.getInt32(HEADER_CHECK_OFFSET, true);
}

/** Flips the one bit, if there is one, that makes the header check fit. */
function repair(bytes: Uint8Array): boolean {
  const view = viewOf(bytes);
  for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
    const index = bit >> 3;
    const mask = 1 << (bit & 7);
    bytes[index] = (bytes[index] ?? 0) ^ mask;
    const check = view.getInt32(HEADER_CHECK_OFFSET, true);
    if (checkOf(view, 0, HEADER_CHECK_OFFSET) === check) return true;
    bytes[index] = (bytes[index] ?? 0) ^ mask;
  }
  return false;
}

/**
 * Reads the header of a frame, with one flipped bit if need be.
 *
 * @param bytes Of the file, from `baseOffset` on.
 * @param offset Of the frame in the file.
 * @returns null when no frame of this segment begins there.
 */
export function decodeFrame(
  bytes: Uint8Array,
  baseOffset: number,
  offset: number,
  id: Uint8Array,
): FrameHeader | null {
  const start = offset - baseOffset;
  if (start + FRAME_HEADER_BYTES > bytes.byteLength) return null;
  const hasMagic = viewOf(bytes).getUint32(start, true) === FRAME_MAGIC;
  if (!hasMagic && !hasId(bytes, start + ID_OFFSET, id)) return null;
  const header = bytes.slice(start, start + FRAME_HEADER_BYTES);
  const view = viewOf(header);
  if (!isHeaderWhole(header) && !repair(header)) return null;
  const kind = KINDS[view.getUint8(4) - 1];
  const isOurs = view.getUint32(0, true) === FRAME_MAGIC && hasId(header, ID_OFFSET, id);
  const sequence = getWide(view, 8);
  if (!isOurs || kind === undefined || getWide(view, 16) !== offset) return null;
  if (sequence > SEQUENCE_MAX) return null;
  return {
    kind,
    isDurable: (view.getUint8(5) & FLAG_DURABLE) !== 0,
    sequence,
    offset,
    payloadBytes: getWide(view, 24),
    key: hexOf(header, KEY_OFFSET, KEY_BYTES),
    syncedOffset: getWide(view, 80),
    payloadCheck: view.getInt32(88, true),
  };
}

/** Whether the payload of a frame that has a check is what was written. */
export function isPayloadWhole(bytes: Uint8Array, baseOffset: number, frame: FrameHeader): boolean {
  const start = frame.offset - baseOffset;
  const end = start + frameBytesOf(frame.payloadBytes);
  if (end > bytes.byteLength) return false;
  return checkOf(viewOf(bytes), start + FRAME_HEADER_BYTES, end) === frame.payloadCheck;
}

/** The table of a segment and the trailer behind it, ready to be written at `offset`. */
export function encodeTable(
  frames: readonly Frame[],
  offset: number,
  id: Uint8Array,
): PrivateBytes {
  const payloadBytes = frames.length * TABLE_ENTRY_BYTES;
  const bytes = privateBytes(frameBytesOf(payloadBytes) + TRAILER_BYTES);
  const view = viewOf(bytes);
  for (const [index, frame] of frames.entries()) {
    const start = FRAME_HEADER_BYTES + index * TABLE_ENTRY_BYTES;
    bytes.set(bytesOfHex(frame.key), start);
    setWide(view, start + 32, frame.sequence);
    setWide(view, start + 40, frame.offset);
    setWide(view, start + 48, frame.payloadBytes);
    view.setUint8(start + 56, KINDS.indexOf(frame.kind) + 1);
    view.setUint8(start + 57, frame.isDurable ? FLAG_DURABLE : 0);
  }
  const kind = "table";
  const table = { kind, key: NO_KEY, sequence: 0, offset, payloadBytes } as const;
  const frameBytes = bytes.subarray(0, frameBytesOf(payloadBytes));
  encodeFrame(frameBytes, { ...table, isDurable: false, syncedOffset: 0 }, id);
  const trailer = bytes.subarray(frameBytesOf(payloadBytes));
  const trailerView = viewOf(trailer);
  trailerView.setUint32(0, TRAILER_MAGIC, true);
  setWide(trailerView, 8, offset);
  trailer.set(id, 16);
  trailerView.setInt32(TRAILER_CHECK_OFFSET, checkOf(trailerView, 0, TRAILER_CHECK_OFFSET), true);
  return bytes;
}

/** @returns Where the table begins, or null if these are not the last bytes of a full segment. */
export function decodeTrailer(bytes: Uint8Array, id: Uint8Array): number | null {
  const view = viewOf(bytes);
  if (bytes.byteLength !== TRAILER_BYTES || view.getUint32(0, true) !== TRAILER_MAGIC) return null;
  const check = view.getInt32(TRAILER_CHECK_OFFSET, true);
  if (check !== checkOf(view, 0, TRAILER_CHECK_OFFSET) || !hasId(bytes, 16, id)) return null;
  return getWide(view, 8);
}

/**
 * What a table lists.
 *
 * @param bytes Of the file, from the table's offset on.
 * @returns null when anything does not fit: frames out of order, over each other, or past the table.
 */
export function decodeTable(bytes: Uint8Array, offset: number, id: Uint8Array): Frame[] | null {
  const table = decodeFrame(bytes, offset, offset, id);
  if (table?.kind !== "table" || !isPayloadWhole(bytes, offset, table)) return null;
  if (table.payloadBytes % TABLE_ENTRY_BYTES !== 0) return null;
  const view = viewOf(bytes);
  const frames: Frame[] = [];
  let endOffset = 0;
  for (let at = 0; at < table.payloadBytes; at += TABLE_ENTRY_BYTES) {
    const start = FRAME_HEADER_BYTES + at;
    const frame: Frame = {
      key: hexOf(bytes, start, KEY_BYTES),
      sequence: getWide(view, start + 32),
      offset: getWide(view, start + 40),
      payloadBytes: getWide(view, start + 48),
      kind: view.getUint8(start + 56) === 2 ? "tombstone" : "object",
      isDurable: (view.getUint8(start + 57) & FLAG_DURABLE) !== 0,
    };
    if (frame.offset < endOffset || frame.offset % FRAME_UNIT_BYTES !== 0) return null;
    endOffset = frame.offset + frameBytesOf(frame.payloadBytes);
    if (endOffset > offset || frame.sequence > SEQUENCE_MAX) return null;
    frames.push(frame);
  }
  return frames;
}
