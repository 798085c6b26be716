// The header of a record: that which a copy of a tensor has, and that of a record that is read.
import {
  decodeHeader,
  HEADER_BYTES_MAX,
  HEADER_BYTES_MIN,
  type HeaderVerdict,
  type RecordHeader,
  type RecordName,
  recordBytesOf,
} from "../record/record.js";
import type { TierReader } from "../tier/tier.js";
import { privateBytes } from "../util/private-bytes.js";
import { type ColdCopy, nameOf, type TensorRecord } from "./tensor-record.js";

export function headerOf(
  namespace: Omit<RecordName, "id">,
  record: TensorRecord,
  copy: Omit<ColdCopy, "version" | "isInexact">,
): RecordHeader {
  return {
    ...namespace,
    id: nameOf(record),
    kind: record.kind,
    dtype: record.dtype,
    shape: record.shape,
    layout: record.layout,
    codecId: copy.codecId,
    isDurable: copy.isDurable,
    isSaved: copy.isSaved,
    generation: copy.generation,
    expiresMs: copy.expiresMs,
    rawBytes: record.byteLength,
    storedBytes: copy.storedBytes,
  };
}

/** Reads the header of whatever a reader reads. @throws {TierError} `io`, `closed`. */
export async function readHeader(reader: TierReader): Promise<HeaderVerdict> {
  // Most headers are the shortest; a longer one says so in its first bytes.
  let bytes = privateBytes(Math.min(HEADER_BYTES_MIN, reader.byteLength));
  await reader.read(0, bytes);
  if (bytes.byteLength === HEADER_BYTES_MIN) {
    const claimedBytes = new DataView(bytes.buffer).getUint32(8, true);
    const wantedBytes = Math.min(claimedBytes, HEADER_BYTES_MAX, reader.byteLength);
    if (wantedBytes > HEADER_BYTES_MIN) {
      bytes = privateBytes(wantedBytes);
      await reader.read(0, bytes);
    }
  }
  return decodeHeader(bytes);
}

/**
 * The header that an intact record has: it may have been coded anew on its way down, in fewer bytes.
 *
 * @param header As it was written.
 * @param codecId Of what is coded anew.
 * @throws {TierError} `io`, `closed`.
 */
export async function headerAsFound(
  reader: TierReader,
  header: RecordHeader,
  codecId: number,
): Promise<RecordHeader> {
  if (reader.byteLength >= recordBytesOf(header)) return header;
  const found = await readHeader(reader);
  if (found.verdict !== "valid" || found.header.codecId !== codecId) return header;
  return { ...header, codecId, storedBytes: found.header.storedBytes };
}
