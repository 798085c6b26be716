// Reads one record and says whether it is the one that is expected. Its bytes pass through a staging
// buffer, of which one half is looked at while the tier fills the other; where the tier may, it fills the
// place where they belong.
import type { HashStream } from "../core/hash-stream.js";
import { encodeHeader, type RecordHeader, recordBytesOf, TRAILER_BYTES } from "../record/record.js";
import type { TierReader } from "../tier/tier.js";
import { lentBytes, type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { Sink } from "./decoding.js";
import type { BytesAt, StagingBuffer } from "./staging.js";

export interface RecordReadingOptions {
  /** It stays open. */
  readonly reader: TierReader;
  readonly buffer: StagingBuffer;
  /** Opens a fresh one, which is ended or discarded: not before there are bytes to hash. */
  openHash(): HashStream;
  readonly header: RecordHeader;
  /** null: the record is only verified, or read in place. */
  readonly sink: Sink | null;
  /** Where the tier may put the stored bytes, in place of the sink; null: nowhere. */
  readonly place: BytesAt | null;
}

/** Part of a record that is read at once. */
interface Chunk {
  readonly offset: number;
  readonly byteLength: number;
  readonly targets: readonly PrivateBytes[];
}

/**
 * A record whose stored bytes are no more than this is read at once where it is read in place: no buffer is needed but
 * for its ends, and the hash takes no turn of the event loop.
 */
export const SHORT_BYTES_MAX = 2 ** 18;

/** Chunks in place begin and end where pages of memory do, as far as lengths allow. */
const PAGE_BYTES = 4096;

/**
 * Reads a record to its end.
 *
 * @returns `"damaged"`: it is not the record that the header says, or its bytes are not those written.
 * @throws {TierError} As the reader. Nothing is read any more when the promise settles.
 */
export async function readRecord(options: RecordReadingOptions): Promise<"intact" | "damaged"> {
  const { reader, header, sink } = options;
  let hash = null as HashStream | null;
  const totalBytes = recordBytesOf(header);
  const expected = encodeHeader(header);
  const headerBytes = expected.byteLength;
  const endOffset = totalBytes - TRAILER_BYTES;
  const trailer = new Uint8Array(TRAILER_BYTES);
  const chunks = chunksOf(options, totalBytes, headerBytes);
  const startRead = () => {
    const { value } = chunks.next();
    if (value === undefined) return null;
    const reading = reader.read(value.offset, ...value.targets);
    // It is looked at in the next turn of the loop, or at the end.
    reading.catch(() => {});
    return { ...value, reading };
  };
  /** In this order and each possibly empty: header, stored bytes, trailer. @returns false for damage. */
  const take = (offset: number, bytes: PrivateBytes): boolean | Promise<boolean> => {
    const headerEnd = offset === 0 ? headerBytes : 0;
    const storedEnd = Math.max(0, Math.min(bytes.byteLength, endOffset - offset));
    for (let index = 0; index < headerEnd; index++) {
      if (bytes[index] !== expected[index]) return false;
    }
    hash ??= options.openHash();
    hash.update(bytes.subarray(0, storedEnd));
    if (storedEnd < bytes.byteLength) {
      trailer.set(bytes.subarray(storedEnd), offset + storedEnd - endOffset);
    }
    const stored = bytes.subarray(headerEnd, storedEnd);
    return stored.byteLength === 0 || (sink?.push(stored) ?? true);
  };
  let next: ReturnType<typeof startRead> = null;
  try {
    if (reader.byteLength !== totalBytes) return "damaged";
    next = startRead();
    while (next !== null) {
      let { offset } = next;
      const { byteLength, targets, reading } = next;
      if ((await reading) !== byteLength) return "damaged";
      next = startRead();
      for (const target of targets) {
        const taken = take(offset, target);
        // What needs no other thread is done by now.
        if (!(typeof taken === "boolean" ? taken : await taken)) return "damaged";
        offset += target.byteLength;
      }
    }
    if (sink !== null && !(await sink.end())) return "damaged";
    const digest = (hash ?? options.openHash()).end();
    return digest.every((byte, index) => byte === trailer[index]) ? "intact" : "damaged";
  } finally {
    hash?.discard();
    // Buffer and place are the tier's until then, and the block a worker's.
    await next?.reading.catch(() => {});
    await sink?.leave();
  }
}

/** The chunks of a record, in order. Two that follow each other have no bytes in common. */
function* chunksOf(
  { buffer, place }: RecordReadingOptions,
  totalBytes: number,
  headerBytes: number,
): Generator<Chunk, undefined> {
  let [half, otherHalf] = buffer.halves;
  const halfBytes = half.byteLength;
  if (place === null) {
    for (let offset = 0; offset < totalBytes; offset += halfBytes) {
      const byteLength = Math.min(halfBytes, totalBytes - offset);
      const targets = [privatePart(half, 0, byteLength)];
      [half, otherHalf] = [otherHalf, half];
      yield { offset, byteLength, targets };
    }
    return;
  }
  const storedBytes = totalBytes - headerBytes - TRAILER_BYTES;
  const isShort = storedBytes <= SHORT_BYTES_MAX;
  const count = isShort ? 1 : Math.max(1, Math.round(totalBytes / (2 * halfBytes)));
  const chunkBytes = Math.ceil(storedBytes / count / PAGE_BYTES) * PAGE_BYTES;
  for (let start = 0; start === 0 || start < storedBytes; start += chunkBytes) {
    const end = Math.min(storedBytes, start + chunkBytes);
    const targets = [lentBytes(place(start, end - start))];
    if (start === 0) targets.unshift(privatePart(half, 0, headerBytes));
    if (end === storedBytes) targets.push(privatePart(otherHalf, 0, TRAILER_BYTES));
    const byteLength = targets.reduce((sum, target) => sum + target.byteLength, 0);
    yield { offset: start === 0 ? 0 : headerBytes + start, byteLength, targets };
  }
}
