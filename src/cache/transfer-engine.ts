// Moves the bytes of one tensor between an arena and a tier, as a record. The only code that writes
// or reads records; it decides nothing about who moves when.
//
// Writes: header, encoded bytes, digest, through one staging buffer, of which one half is filled and
// hashed while the tier has the other. Reads: see record-reading.ts; the caller publishes nothing until
// `read` has said "intact".
import type { Clock } from "../clock.js";
import type { CodecWorkersStats } from "../codec/codec.js";
import type { Hasher } from "../core/hash-stream.js";
import { TierError } from "../errors.js";
import {
  CODEC_RAW,
  encodeHeader,
  HEADER_BYTES_MAX,
  type RecordHeader,
  type RecordName,
  recordBytesOf,
  recordKey,
  TRAILER_BYTES,
} from "../record/record.js";
import type { Tier, TierKey, TierReader, TierWriter } from "../tier/tier.js";
import { privatePart } from "../util/private-bytes.js";
import { CodecGate } from "./codec-gate.js";
import type { CodecStats } from "./codec-meter.js";
import type { Coding } from "./coding.js";
import { plainSink, type Sink } from "./decoding.js";
import type { EncodedRecord, RecordCoder } from "./record-coder.js";
import { headerAsFound, readHeader } from "./record-headers.js";
import { readRecord } from "./record-reading.js";
import { ShortReads } from "./short-reads.js";
import type { BytesAt, Staging, StagingBuffer } from "./staging.js";

export interface TransferEngineOptions {
  /** Open. */
  readonly tier: Tier;
  /** Null: records are written as they are, and coded ones are left alone. */
  readonly coder: RecordCoder | null;
  readonly hasher: Hasher;
  readonly staging: Staging;
  readonly clock: Clock;
  readonly namespace: Omit<RecordName, "id">;
}

/** One of the two records that a tensor may have: the saved one, or the swapped-out copy. */
export interface CopyName {
  readonly id: string;
  readonly isSaved: boolean;
}

export type WriteOutcome =
  /** The header of the record as it was written. */
  | RecordHeader
  | "no-space"
  /** The source changed while it was copied; nothing was published. */
  | "vetoed";

export type ReadOutcome =
  | "intact"
  | "missing"
  /** The object is not the record that was expected, or its bytes are not those written. */
  | "damaged";

export type PeekOutcome =
  | { readonly verdict: "found"; readonly header: RecordHeader }
  | { readonly verdict: "missing" }
  | { readonly verdict: "damaged"; readonly reason: string }
  | { readonly verdict: "incompatible"; readonly reason: string };

/** Bytes of a block that are looked at together. */
const PIECE_BYTES = 2 ** 18;
/**
 * Bytes that a tier is given at once unless it prefers others: few enough that it has something to do early. The
 * first ones are a page fewer, so that a file system takes each chunk in as few writes as it can.
 */
const WRITE_CHUNK_BYTES = 2 ** 18;
const PAGE_BYTES = 4096;
/** The last ones may be so many more, so that header and digest make no chunk of their own. */
const CHUNK_EXTRA_BYTES = 2 ** 13;
/** A tier that is fuller than this share takes coded records, whatever they cost. */
const FULLNESS_MAX = 0.9;
const KEY_COUNT_MAX = 1024;
const KEY_NAME_LENGTH_MAX = 256;

export class TransferEngine {
  readonly tier: Tier;
  readonly namespace: Omit<RecordName, "id">;
  /** The tier held something when it was opened: a killed process may have left swapped-out copies. */
  readonly mayHaveOrphans: boolean;
  readonly #hasher: Hasher;
  readonly #staging: Staging;
  readonly #coder: RecordCoder | null;
  readonly #clock: Clock;
  readonly #gate = new CodecGate();
  readonly #shortReads: ShortReads;
  /** Writes under way. */
  #writeCount = 0;
  /** The last operation on each key that has one under way: a tier wants them one at a time. */
  readonly #tails = new Map<TierKey, Promise<unknown>>();
  /** Keys computed lately: a transfer needs its key several times. */
  readonly #keys = new Map<string, TierKey>();

  constructor(options: TransferEngineOptions) {
    this.tier = options.tier;
    this.#coder = options.coder;
    this.#clock = options.clock;
    this.namespace = options.namespace;
    this.mayHaveOrphans = options.tier.stats().objectCount > 0;
    this.#hasher = options.hasher;
    this.#staging = options.staging;
    this.#shortReads = new ShortReads({
      ...options,
      onRead: ({ kind, rawBytes }, durationMs) =>
        this.#gate.noteRead(kind, rawBytes, false, durationMs),
    });
  }

  /** Of the gate: how often coding gave way, and what a byte costs as it is. */
  get codingGate(): Pick<CodecGate, "switchedOffCount" | "plainMsPerByte"> {
    return this.#gate;
  }

  codecStats(): CodecStats[] {
    return this.#coder?.stats() ?? [];
  }

  /** null: the thread of the caller codes alone. */
  codecWorkersStats(): CodecWorkersStats | null {
    return this.#coder?.workersStats() ?? null;
  }

  /** Closes the tier; no transfer is under way. @throws {TierError} `io`. */
  async close(): Promise<void> {
    await this.#coder?.close();
    await this.tier.close();
  }

  /**
   * Writes a record, replacing the one of that name.
   *
   * @param header As of a raw record. Durable if its flag says so, or if the saved record that it replaces was: nothing
   *   less may take its place, or a power cut could take both.
   * @param source The tensor's bytes; they must stay where they are until the promise settles.
   * @param isStale Asked once all bytes are copied; true vetoes the commit.
   * @param coding Null: the bytes are stored as they are.
   * @throws {TierError} `io`, `busy`, `closed`; the old record is then what a reader finds.
   */
  async write(
    header: RecordHeader,
    source: BytesAt,
    isStale: () => boolean,
    coding: Coding | null,
  ): Promise<WriteOutcome> {
    const key = this.keyOf(header);
    return this.#serially(key, async () => {
      const isDurable = header.isDurable || (header.isSaved && (await this.#isDurable(key)));
      const wanted = { ...header, isDurable };
      const isCoded = coding !== null && this.#mayCode(header, coding);
      const recoding = coding?.recoding ?? null;
      const outcome = await this.#writeRecord(
        key,
        wanted,
        source,
        isStale,
        isCoded ? coding : null,
        recoding,
      );
      // What does not fit as it is may fit in fewer bytes.
      if (outcome !== "no-space" || coding === null || isCoded || this.#coder === null) {
        return outcome;
      }
      return this.#writeRecord(key, wanted, source, isStale, coding, recoding);
    });
  }

  /**
   * Reads a record and verifies it against its digest and the header that is expected.
   *
   * @param target Where the decoded bytes go; null only verifies. They are unverified until "intact"
   *   is returned.
   * @throws {TierError} `io`, `busy`, `closed`.
   */
  async read(header: RecordHeader, target: BytesAt | null): Promise<ReadOutcome> {
    const key = this.keyOf(header);
    return this.#serially(key, async () => {
      if (target !== null && this.#shortReads.takes(header)) {
        const outcome = await this.#shortReads.read(key, header, target);
        if (outcome !== "unexpected") return outcome;
      }
      return this.#staging.use(async (buffer) => {
        const startMs = this.#clock.monotonicMs();
        const reader = await this.tier.openRead(key);
        if (reader === null) return "missing";
        let outcome: ReadOutcome;
        try {
          const codecId = this.#coder?.codec.id ?? CODEC_RAW;
          const found = await headerAsFound(reader, header, codecId);
          outcome = await this.#readBytes(reader, buffer, found, target);
        } finally {
          await reader.close();
        }
        if (outcome === "intact" && target !== null) {
          const isCoded = header.codecId !== CODEC_RAW;
          const durationMs = this.#clock.monotonicMs() - startMs;
          this.#gate.noteRead(header.kind, header.rawBytes, isCoded, durationMs);
        }
        return outcome;
      });
    });
  }

  /** Whether what was just written is there, as far as this tier can tell. @throws {TierError} `io`. */
  async readsBack(header: RecordHeader): Promise<boolean> {
    const { needsReadBack } = this.tier.capabilities;
    return !needsReadBack || (await this.read(header, null)) === "intact";
  }

  /** Reads only the header of one copy, if there is one. @throws {TierError} `io`. */
  async peek(copy: CopyName): Promise<PeekOutcome> {
    const key = this.keyOf(copy);
    return this.#serially(key, () => this.#peekKey(key, copy));
  }

  /** The header of whatever record lies under a key of the tier. @throws {TierError} `io`. */
  async peekKey(key: TierKey): Promise<PeekOutcome> {
    return this.#serially(key, () => this.#peekKey(key, null));
  }

  /** @returns Whether there was a record. @throws {TierError} `io`, `closed`. */
  async delete(copy: CopyName): Promise<boolean> {
    const key = this.keyOf(copy);
    return this.#serially(key, () => this.tier.delete(key));
  }

  /**
   * Deletes records, of whatever namespace.
   *
   * @param isNeeded Asked for each; what is not needed goes.
   * @returns Whether anything was deleted.
   * @throws {TierError} `io`, `closed`.
   */
  async sweep(isNeeded: (header: RecordHeader) => boolean): Promise<boolean> {
    let hasDeleted = false;
    for await (const key of this.tier.list()) {
      const peeked = await this.peekKey(key);
      if (peeked.verdict !== "found" || isNeeded(peeked.header)) continue;
      hasDeleted = (await this.#serially(key, () => this.tier.delete(key))) || hasDeleted;
    }
    return hasDeleted;
  }

  /** Whether a header is of this memory's namespace. */
  isOurs({ tenant, fingerprint }: RecordHeader): boolean {
    return tenant === this.namespace.tenant && fingerprint === this.namespace.fingerprint;
  }

  /** Takes a damaged record out of the way. @throws {TierError} `io`, `closed`. */
  async quarantine(copy: CopyName): Promise<void> {
    const key = this.keyOf(copy);
    return this.#serially(key, () => this.tier.quarantine(key));
  }

  /** Whether a tensor is coded, if that makes it shorter. */
  #mayCode({ kind, rawBytes }: RecordHeader, { isAlways, isWhenFull }: Coding): boolean {
    if (this.#coder === null) return false;
    if (isAlways) return true;
    const { physicalBytes, capacityBytes } = this.tier.stats();
    if (physicalBytes + rawBytes > FULLNESS_MAX * capacityBytes) return true;
    return isWhenFull !== true && this.#gate.asksCoded(kind, rawBytes);
  }

  async #writeRecord(
    key: TierKey,
    header: RecordHeader,
    source: BytesAt,
    isStale: () => boolean,
    coding: Coding | null,
    recoding: Coding["recoding"],
  ): Promise<WriteOutcome> {
    const coder = coding === null ? null : this.#coder;
    // What a codec takes to load is no part of what coding costs.
    await coder?.load(header.rawBytes);
    const startMs = this.#clock.monotonicMs();
    const encoded =
      coder === null || coding === null ? null : await coder.encode(header, source, coding);
    const encodedMs = this.#clock.monotonicMs();
    this.#writeCount += 1;
    const sharedBy = this.#writeCount;
    try {
      const written =
        encoded === null || coder === null
          ? header
          : { ...header, codecId: coder.codec.id, storedBytes: encoded.storedBytes };
      if (written.storedBytes > (coding?.storedBytesMax ?? Number.POSITIVE_INFINITY)) {
        return "no-space";
      }
      const outcome = await this.#writeStored(key, written, source, encoded, isStale, recoding);
      if (typeof outcome === "string") return outcome;
      if (encoded === null) this.#coder?.countPlain(header.rawBytes);
      else encoded.count();
      // Those that are written at once take the time together; coding takes this one's.
      const storingMs = (this.#clock.monotonicMs() - encodedMs) / sharedBy;
      const durationMs = encodedMs - startMs + storingMs;
      this.#gate.noteWrite(header.kind, header.rawBytes, coder !== null, durationMs);
      return outcome;
    } finally {
      this.#writeCount -= 1;
      encoded?.release();
    }
  }

  async #writeStored(
    key: TierKey,
    header: RecordHeader,
    source: BytesAt,
    encoded: EncodedRecord | null,
    isStale: () => boolean,
    recoding: Coding["recoding"],
  ): Promise<WriteOutcome> {
    const begun: TierWriter[] = [];
    try {
      const outcome = await this.#staging.use(async (buffer) => {
        // Not before there is a buffer: what was begun holds room in the tier.
        const hints = { ...header, recoding };
        const writer = await this.tier.begin(key, recordBytesOf(header), hints);
        if (writer === "no-space") return writer;
        begun.push(writer);
        const pieces = encoded?.pieces() ?? piecesOf(source, header.rawBytes);
        const written = await this.#writeBytes(writer, buffer, header, pieces, isStale);
        return written === "stored" ? writer : written;
      });
      if (typeof outcome === "string") return outcome;
      // Without the buffer: a tier commits many at once, if as many wait for it.
      const committed = await outcome.commit({ durable: header.isDurable });
      return committed === "stored" ? header : committed;
    } finally {
      // Harmless after a commit.
      for (const writer of begun) await writer.abort();
    }
  }

  async #isDurable(key: TierKey): Promise<boolean> {
    const peeked = await this.#peekKey(key, null);
    return peeked.verdict === "found" && peeked.header.isDurable;
  }

  async #writeBytes(
    writer: TierWriter,
    buffer: StagingBuffer,
    header: RecordHeader,
    pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    isStale: () => boolean,
  ): Promise<"stored" | "no-space" | "vetoed"> {
    const hash = this.#hasher.open();
    let [half, otherHalf] = buffer.halves;
    let filled = 0;
    const totalBytes = recordBytesOf(header);
    let unwrittenBytes = totalBytes;
    const usualBytes = this.tier.capabilities.preferredWriteBytes ?? WRITE_CHUNK_BYTES;
    const nextChunkBytes = () => {
      if (unwrittenBytes <= usualBytes + CHUNK_EXTRA_BYTES) {
        return Math.min(half.byteLength, unwrittenBytes);
      }
      const isFirst = unwrittenBytes === totalBytes;
      return Math.min(half.byteLength, isFirst ? usualBytes - PAGE_BYTES : usualBytes);
    };
    let chunkBytes = nextChunkBytes();
    let writing: Promise<"written" | "no-space"> = Promise.resolve("written");
    /** Gives the tier what is filled. @returns false when it has refused what it got before. */
    const flush = async (): Promise<boolean> => {
      if ((await writing) === "no-space") return false;
      if (filled === 0) return true;
      writing = writer.write(privatePart(half, 0, filled));
      // It is looked at before the next write and at the end.
      writing.catch(() => {});
      [half, otherHalf] = [otherHalf, half];
      unwrittenBytes -= filled;
      filled = 0;
      chunkBytes = nextChunkBytes();
      return true;
    };
    try {
      const headerBytes = encodeHeader(header);
      half.set(headerBytes);
      filled = headerBytes.byteLength;
      hash.update(headerBytes);
      let leftBytes = header.storedBytes;
      for await (const piece of pieces) {
        leftBytes -= piece.byteLength;
        // Parts that are encoded again become longer or shorter only if they were written meanwhile.
        if (leftBytes < 0) return "vetoed";
        for (let offset = 0; offset < piece.byteLength; ) {
          if (filled === chunkBytes && !(await flush())) return "no-space";
          const count = Math.min(chunkBytes - filled, piece.byteLength - offset);
          const target = half.subarray(filled, filled + count);
          target.set(piece.subarray(offset, offset + count));
          hash.update(target);
          filled += count;
          offset += count;
        }
      }
      if (leftBytes > 0 || isStale()) return "vetoed";
      if (chunkBytes - filled < TRAILER_BYTES && !(await flush())) return "no-space";
      half.set(hash.end(), filled);
      filled += TRAILER_BYTES;
      return (await flush()) && (await writing) === "written" ? "stored" : "no-space";
    } finally {
      hash.discard();
      // The buffer is the tier's until then.
      await writing.catch(() => {});
    }
  }

  async #readBytes(
    reader: TierReader,
    buffer: StagingBuffer,
    header: RecordHeader,
    target: BytesAt | null,
  ): Promise<ReadOutcome> {
    const isRaw = header.codecId === CODEC_RAW;
    const place = isRaw && this.tier.capabilities.readsInPlace ? target : null;
    const sink =
      target === null || place !== null ? null : await this.#sinkOf(header, buffer.unit, target);
    const openHash = () => this.#hasher.open();
    return readRecord({ reader, buffer, openHash, header, sink, place });
  }

  /** Where stored bytes go, as they come. @throws {OutOfMemoryError} No room for the codec. */
  async #sinkOf(header: RecordHeader, room: Uint8Array, target: BytesAt): Promise<Sink> {
    if (header.codecId !== CODEC_RAW && this.#coder !== null) {
      return this.#coder.decode(header, room, target);
    }
    return plainSink(target);
  }

  async #peekKey(key: TierKey, copy: CopyName | null): Promise<PeekOutcome> {
    const reader = await this.tier.openRead(key);
    if (reader === null) return { verdict: "missing" };
    try {
      const decoded = await readHeader(reader);
      if (decoded.verdict !== "valid") return decoded;
      const { header } = decoded;
      if (copy !== null && !this.#isNamed(header, copy)) {
        return { verdict: "damaged", reason: "the record is of another tensor" };
      }
      if (reader.byteLength !== recordBytesOf(header)) {
        return { verdict: "damaged", reason: "the length is not that of the header" };
      }
      const { codecId, storedBytes, rawBytes } = header;
      const isRaw = codecId === CODEC_RAW;
      if (!isRaw && codecId !== this.#coder?.codec.id) {
        return { verdict: "incompatible", reason: `codec ${codecId}` };
      }
      if (isRaw ? storedBytes !== rawBytes : storedBytes < 1 || storedBytes >= rawBytes) {
        return { verdict: "damaged", reason: "stored length" };
      }
      return { verdict: "found", header };
    } finally {
      await reader.close();
    }
  }

  #isNamed(header: RecordHeader, { id, isSaved }: CopyName): boolean {
    return header.id === id && header.isSaved === isSaved && this.isOurs(header);
  }

  /** The key under which a copy lies in the tier. */
  keyOf({ id, isSaved }: CopyName): TierKey {
    const name = `${isSaved}${id}`;
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    const found = recordKey({ ...this.namespace, id }, isSaved);
    if (this.#keys.size === KEY_COUNT_MAX) this.#keys.clear();
    if (name.length <= KEY_NAME_LENGTH_MAX) this.#keys.set(name, found);
    return found;
  }

  async #serially<T>(key: TierKey, operation: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const result = before === undefined ? operation() : before.then(operation, operation);
    this.#tails.set(key, result);
    try {
      return await result;
    } finally {
      if (this.#tails.get(key) === result) this.#tails.delete(key);
    }
  }
}

/** Least length of a staging buffer: the longest header fits into a half. */
export const CHUNK_BYTES_MIN = 2 * HEADER_BYTES_MAX;

/** A tensor's bytes as they are. */
function* piecesOf(source: BytesAt, byteLength: number): Generator<Uint8Array> {
  for (let offset = 0; offset < byteLength; offset += PIECE_BYTES) {
    yield source(offset, Math.min(PIECE_BYTES, byteLength - offset));
  }
}

/** Turns the refusal of an incompatible record into the error that a caller sees. */
export function incompatible(tier: string, reason: string): TierError {
  return new TierError("incompatible", tier, `a record of another format is left alone: ${reason}`);
}
