// Learns what is in a segment of an earlier process: from its table, or frame by frame.
import {
  type PrivateBytes,
  privateBytes,
  privateLength,
  privatePart,
  privateParts,
} from "../util/private-bytes.js";
import type { FileReader } from "./file-system.js";
import {
  decodeFrame,
  decodeTable,
  decodeTrailer,
  FRAME_UNIT_BYTES,
  type Frame,
  type FrameHeader,
  frameBytesOf,
  isPayloadWhole,
  SEGMENT_BYTES_LIMIT,
  TRAILER_BYTES,
} from "./segment-format.js";

/** Fills the targets, one behind the other, unless the file ends before. @returns Bytes read. */
export async function readFully(
  file: FileReader,
  offset: number,
  targets: readonly PrivateBytes[],
): Promise<number> {
  const byteLength = privateLength(targets);
  let rest = targets;
  for (let done = 0; done < byteLength; ) {
    const count = await file.read(rest, offset + done);
    if (count === 0) return done;
    done += count;
    rest = privateParts(rest, count, byteLength);
  }
  return byteLength;
}

async function readPart(file: FileReader, offset: number, byteLength: number) {
  const bytes = privateBytes(byteLength);
  return privatePart(bytes, 0, await readFully(file, offset, [bytes]));
}

export interface Scanned {
  /** Every frame that may count, in order. */
  readonly frames: readonly Frame[];
  /** Bytes of the table and what is behind it; 0 without one. */
  readonly tableBytes: number;
}

async function readTable(file: FileReader, id: Uint8Array): Promise<Scanned | null> {
  const { byteLength } = file;
  if (byteLength < TRAILER_BYTES) return null;
  const trailer = await readPart(file, byteLength - TRAILER_BYTES, TRAILER_BYTES);
  const offset = decodeTrailer(trailer, id);
  if (offset === null || offset > byteLength - TRAILER_BYTES) return null;
  const tableBytes = byteLength - offset;
  const frames = decodeTable(await readPart(file, offset, tableBytes), offset, id);
  return frames === null ? null : { frames, tableBytes };
}

/**
 * Walks all frames. Where none begins the next place is tried, because what a power cut took may lie
 * before what it left.
 */
function walk(bytes: Uint8Array, id: Uint8Array): Frame[] {
  const found: FrameHeader[] = [];
  for (let offset = 0; offset < bytes.byteLength; ) {
    const frame = decodeFrame(bytes, 0, offset, id);
    const endOffset = frame === null ? 0 : offset + frameBytesOf(frame.payloadBytes);
    if (frame === null || endOffset > bytes.byteLength) {
      offset += FRAME_UNIT_BYTES;
      continue;
    }
    found.push(frame);
    offset = endOffset;
  }
  let syncedOffset = 0;
  for (const frame of found) syncedOffset = Math.max(syncedOffset, frame.syncedOffset);
  return found.filter(
    (frame) =>
      frame.kind !== "table" &&
      (frame.kind === "tombstone" ||
        !frame.isDurable ||
        frame.offset < syncedOffset ||
        isPayloadWhole(bytes, 0, frame)),
  );
}

/**
 * Reads what a segment holds.
 *
 * @param id 16 bytes, from the segment's name.
 * @returns null for a file that is no segment of ours.
 */
export async function scanSegment(file: FileReader, id: Uint8Array): Promise<Scanned | null> {
  if (file.byteLength > SEGMENT_BYTES_LIMIT) return null;
  const listed = await readTable(file, id);
  if (listed !== null) return listed;
  return { frames: walk(await readPart(file, 0, file.byteLength), id), tableBytes: 0 };
}
