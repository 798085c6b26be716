// A store's directory as a command looks at it: read, never changed, and without its lock. Nobody is
// kept from opening it meanwhile; whether somebody did is asked at the end, and what was seen then does
// not count.
import { stat } from "node:fs/promises";
import type { Hasher } from "../core/hash-stream.js";
import { decodeDeletionPage } from "../record/deletion-page.js";
import {
  decodeHeader,
  HEADER_BYTES_MAX,
  HEADER_BYTES_MIN,
  type HeaderVerdict,
  recordBytesOf,
  recordKey,
  TRAILER_BYTES,
} from "../record/record.js";
import { lockState, nodeFileSystem } from "../tier/file-system-node.js";
import {
  decodeFrame,
  FRAME_HEADER_BYTES,
  frameBytesOf,
  isHeaderWhole,
} from "../tier/segment-format.js";
import { SegmentReaders } from "../tier/segment-readers.js";
import type { Stored } from "../tier/store-index.js";
import { type FoundStore, readStore } from "../tier/store-opening.js";
import { openStored, type StoredObject } from "../tier/stored-object.js";
import type { TierKey } from "../tier/tier.js";
import { privateBytes, privatePart } from "../util/private-bytes.js";
import { CommandError, EXIT_REFUSED } from "./command.js";
import { printable } from "./output.js";

const TIER = "ssd";
const LOCK = "lock";
/** Objects that are read at once. */
export const READ_COUNT = 8;
/** Bytes of an object that are read at once. */
const CHUNK_BYTES = 2 ** 18;

export interface StoreView extends FoundStore {
  /** The object that counts under a key; null when it cannot be had. */
  open(key: TierKey): Promise<StoredObject | null>;
  /** Whether the header of a packed object's frame is as it was written. True for a file. */
  isFrameWhole(entry: Stored): Promise<boolean>;
}

/** @throws {CommandError} It is no directory. */
export async function checkDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory() === true) return;
  throw new CommandError(EXIT_REFUSED, `${printable(directory)} is no directory`);
}

function busy(directory: string, what: string): CommandError {
  return new CommandError(EXIT_REFUSED, `${printable(directory)} ${what}; try again later`);
}

/**
 * Looks at a store.
 *
 * @throws {CommandError} It is no directory; a living process holds it, or has opened it meanwhile.
 * @throws {TierError} `incompatible` — of another version.
 */
export async function viewStore<T>(
  directory: string,
  look: (view: StoreView) => Promise<T>,
): Promise<T> {
  await checkDirectory(directory);
  const files = nodeFileSystem;
  const lock = files.join(directory, LOCK);
  const before = await lockState(lock);
  if (before.isHeld) throw busy(directory, "is in use by another process");
  const found = await readStore({ files, directory, tier: TIER });
  const readers = new SegmentReaders(files, directory);
  const view: StoreView = {
    ...found,
    open: (key) => openStored(key, { files, directory, index: found.index, readers }),
    isFrameWhole: (entry) => isFrameWhole(readers, entry),
  };
  // A failure gives way to what may be its cause: another process's changes.
  const [outcome] = await Promise.allSettled([look(view)]);
  await readers.close();
  const after = await lockState(lock);
  if (after.mark !== before.mark) throw busy(directory, "was opened by another process meanwhile");
  if (outcome.status === "rejected") throw outcome.reason;
  return outcome.value;
}

async function isFrameWhole(readers: SegmentReaders, entry: Stored): Promise<boolean> {
  if (entry.segment === null) return true;
  const found = await readers.acquire(entry.segment);
  if (found === null) return false;
  try {
    const bytes = privateBytes(FRAME_HEADER_BYTES);
    if ((await found.file.read(bytes, entry.offset)) < bytes.byteLength) return false;
    const frame = decodeFrame(bytes, entry.offset, entry.offset, entry.segment.id);
    const { key, sequence, payloadBytes } = entry;
    const isSame = frame?.key === key && frame.sequence === sequence;
    return isSame && frame.payloadBytes === payloadBytes && isHeaderWhole(bytes);
  } finally {
    await found.release();
  }
}

/** Reads the header of a record, and at most {@link HEADER_BYTES_MAX} bytes. */
export async function readHeader(object: StoredObject): Promise<HeaderVerdict> {
  let bytes = privateBytes(Math.min(HEADER_BYTES_MIN, object.byteLength));
  await object.read(0, bytes);
  if (bytes.byteLength === HEADER_BYTES_MIN) {
    const claimedBytes = new DataView(bytes.buffer).getUint32(8, true);
    const wantedBytes = Math.min(claimedBytes, HEADER_BYTES_MAX, object.byteLength);
    if (wantedBytes > HEADER_BYTES_MIN) {
      bytes = privateBytes(wantedBytes);
      await object.read(0, bytes);
    }
  }
  const decoded = decodeHeader(bytes);
  if (decoded.verdict !== "valid") return decoded;
  if (object.byteLength === recordBytesOf(decoded.header)) return decoded;
  return { verdict: "damaged", reason: "the length is not that of the header" };
}

/** Reads a whole record: header, name and digest. Memory: one chunk. */
export async function verifyRecord(
  key: TierKey,
  object: StoredObject,
  hasher: Hasher,
): Promise<HeaderVerdict> {
  const decoded = await readHeader(object);
  if (decoded.verdict !== "valid") return decoded;
  const { header } = decoded;
  if ((await recordKey(header, header.isSaved)) !== key) {
    return { verdict: "damaged", reason: "the record is of another tensor" };
  }
  const hash = hasher.open();
  try {
    const buffer = privateBytes(CHUNK_BYTES);
    const endOffset = object.byteLength - TRAILER_BYTES;
    for (let offset = 0; offset < endOffset; ) {
      const chunk = privatePart(buffer, 0, Math.min(CHUNK_BYTES, endOffset - offset));
      if ((await object.read(offset, chunk)) < chunk.byteLength) {
        return { verdict: "damaged", reason: "the file is shorter than it was" };
      }
      hash.update(chunk);
      offset += chunk.byteLength;
    }
    const trailer = privatePart(buffer, 0, TRAILER_BYTES);
    const count = await object.read(endOffset, trailer);
    const digest = hash.end();
    const isEqual = count === TRAILER_BYTES && digest.every((byte, at) => byte === trailer[at]);
    return isEqual ? decoded : { verdict: "damaged", reason: "the digest does not fit" };
  } finally {
    hash.discard();
  }
}

/** Reads a page of deletions that another tier could not be told of. */
export async function verifyPage(object: StoredObject) {
  if (object.byteLength > CHUNK_BYTES) return { verdict: "damaged", reason: "its length" } as const;
  const bytes = privateBytes(object.byteLength);
  await object.read(0, bytes);
  const { verdict } = await decodeDeletionPage(bytes);
  return verdict === "damaged"
    ? ({ verdict, reason: "the digest does not fit" } as const)
    : ({ verdict } as const);
}

/** Calls `work` for each key, so many at once. */
export async function forEachKey(
  keys: Iterable<TierKey>,
  countAtOnce: number,
  work: (key: TierKey) => Promise<void>,
): Promise<void> {
  const iterator = keys[Symbol.iterator]();
  const worker = async () => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      await work(next.value);
    }
  };
  await Promise.all(Array.from({ length: countAtOnce }, worker));
}

/** Bytes of a segment in which no frame lies. */
export interface FrameGaps {
  /** Before a frame: damage, or what a power cut took. */
  readonly innerBytes: number;
  /** Behind the last frame: what a killed process was writing. */
  readonly lastBytes: number;
}

/** Bytes in no frame, of all segments. */
export function frameGaps({ index }: FoundStore): FrameGaps {
  let innerBytes = 0;
  let lastBytes = 0;
  for (const { frames, byteLength, tableBytes } of index.segments) {
    let endOffset = 0;
    for (const { offset, payloadBytes } of frames) {
      innerBytes += offset - endOffset;
      endOffset = offset + frameBytesOf(payloadBytes);
    }
    lastBytes += byteLength - tableBytes - endOffset;
  }
  return { innerBytes, lastBytes };
}
