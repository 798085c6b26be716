// Codes records anew on their way to a colder tier, in fewer bytes, within what their errors have left of the
// tensor's budget. Which records, it decides by time: what a byte saves there against what saving it takes.
import type { Clock } from "../clock.js";
import type { Codec, UnitCoder } from "../codec/codec.js";
import type { Hasher } from "../core/hash-stream.js";
import {
  CODEC_RAW,
  decodeHeader,
  encodeHeader,
  type RecordHeader,
  recordBytesOf,
} from "../record/record.js";
import type { ErrorLimit } from "../types.js";
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import { CodecMeter, type CodecStats, CodecTally } from "./codec-meter.js";
import { UnitCutter } from "./decoding.js";
import { TranscodeGate } from "./transcode-gate.js";

/** Units coded in one turn of the event loop. */
const TURN_UNITS = 4;
/** A record must become shorter than this share of what it was. */
const WORTH = 0.95;

/** Gives the pieces of an object in order; each is valid until the next is asked for. */
export type PiecesOf = () => AsyncIterable<Uint8Array>;

/** A record that is worth coding anew. */
export interface Transcoding {
  /** Of the new record. */
  readonly byteLength: number;
  /** The new record, in pieces that are valid until the next is asked for. */
  pieces(source: PiecesOf): AsyncGenerator<Uint8Array>;
  /** Counts it as written. */
  count(): void;
}

export interface RecordTranscoderOptions {
  readonly codec: Codec;
  readonly hasher: Hasher;
  readonly clock: Clock;
  /** Rooms for a unit and its part, as many as moves at a time. */
  readonly roomCount: number;
}

/** What a pass over a record has seen. */
interface Seen {
  header: RecordHeader | null;
  /** Of the parts of all units. */
  rawBytes: number;
  /** Spent coding. */
  durationMs: number;
}

/** Buffers of one record under way. */
interface Rooms {
  readonly unit: Uint8Array;
  readonly part: Uint8Array;
}

export class RecordTranscoder {
  readonly gate = new TranscodeGate();
  readonly #codec: Codec;
  readonly #hasher: Hasher;
  readonly #clock: Clock;
  readonly #idle: Rooms[] = [];
  readonly #meter = new CodecMeter();

  constructor({ codec, hasher, clock, roomCount }: RecordTranscoderOptions) {
    this.#codec = codec;
    this.#hasher = hasher;
    this.#clock = clock;
    for (let index = 0; index < roomCount; index++) {
      const { unitBytesMax } = codec;
      this.#idle.push({ unit: privateBytes(unitBytesMax), part: privateBytes(unitBytesMax) });
    }
  }

  /** One row for each codec in which something was written anew; raw bytes are those of the tensors. */
  stats(): CodecStats[] {
    return this.#meter.stats();
  }

  /**
   * Finds out what a record would become: codes it anew once, and keeps nothing but the length.
   *
   * @param limit For the tensor as it was; null: exact.
   * @returns null when it would get hardly shorter, or is no record that this can read.
   * @remarks Does not check the digest; whoever copies does.
   */
  async plan(source: PiecesOf, limit: ErrorLimit | null): Promise<Transcoding | null> {
    const coder = await this.#codec.load().catch(() => null);
    const rooms = this.#idle.pop();
    if (coder === null || rooms === undefined) return null;
    try {
      const tally = new CodecTally();
      const seen: Seen = { header: null, rawBytes: 0, durationMs: 0 };
      let storedBytes = 0;
      for await (const unit of this.#units({ source, coder, limit, rooms, seen, tally })) {
        storedBytes += unit.byteLength;
      }
      const before = seen.header;
      if (before === null || seen.rawBytes !== before.rawBytes) return null;
      const savedShare = 1 - storedBytes / before.storedBytes;
      this.gate.note(before.kind, before.storedBytes, seen.durationMs, savedShare);
      if (storedBytes >= WORTH * before.storedBytes) return null;
      const after = { ...before, codecId: this.#codec.id, storedBytes };
      return {
        byteLength: recordBytesOf(after),
        pieces: (again) => this.#record({ source: again, coder, limit, after }),
        count: () => this.#meter.count(tally),
      };
    } finally {
      this.#idle.push(rooms);
    }
  }

  /** Header, units, digest. Ends early, and so with too few bytes, where the source has changed. */
  async *#record(parts: {
    readonly source: PiecesOf;
    readonly coder: UnitCoder;
    readonly limit: ErrorLimit | null;
    readonly after: RecordHeader;
  }): AsyncGenerator<Uint8Array> {
    const { after } = parts;
    const rooms = this.#idle.pop();
    if (rooms === undefined) return;
    const hash = this.#hasher.open();
    try {
      const head = encodeHeader(after);
      hash.update(head);
      yield head;
      let leftBytes = after.storedBytes;
      const seen: Seen = { header: null, rawBytes: 0, durationMs: 0 };
      for await (const unit of this.#units({ ...parts, rooms, seen, tally: null })) {
        leftBytes -= unit.byteLength;
        if (leftBytes < 0) return;
        hash.update(unit);
        yield unit;
      }
      if (leftBytes === 0) yield hash.end();
    } finally {
      hash.discard();
      this.#idle.push(rooms);
    }
  }

  /** The units of a record, coded anew. Nothing where it is malformed. */
  async *#units(given: {
    readonly source: PiecesOf;
    readonly coder: UnitCoder;
    readonly limit: ErrorLimit | null;
    readonly rooms: Rooms;
    readonly seen: Seen;
    readonly tally: CodecTally | null;
  }): AsyncGenerator<Uint8Array> {
    const { source, coder, limit, rooms, seen, tally } = given;
    let header: RecordHeader | null = null;
    let leftBytes = 0;
    let unitCount = 0;
    let cut: (bytes: Uint8Array) => Iterable<Uint8Array | null> = () => [];
    for await (const piece of source()) {
      let stored = piece;
      if (header === null) {
        // A piece is longer than any header.
        const decoded = decodeHeader(piece);
        if (decoded.verdict !== "valid") return;
        header = decoded.header;
        const { codecId, dtype, shape } = header;
        if (codecId !== CODEC_RAW && codecId !== this.#codec.id) return;
        seen.header = header;
        stored = piece.subarray(decoded.headerBytes);
        leftBytes = header.storedBytes;
        const partBytes = coder.partBytes(dtype, shape.at(-1) as number);
        const { storedBytes } = header;
        cut =
          codecId === CODEC_RAW
            ? partCutter(rooms.unit, partBytes, storedBytes)
            : (
                (cutter) => (bytes) =>
                  cutter.cut(bytes)
              )(new UnitCutter(coder, rooms.unit));
      }
      const bytes = stored.subarray(0, leftBytes);
      leftBytes -= bytes.byteLength;
      for (const each of cut(bytes)) {
        if (each === null) return;
        const unit = this.#codeAnew(coder, each, limit, rooms.part, seen, tally);
        if (unit === null) return;
        yield unit;
        unitCount += 1;
        if (unitCount % TURN_UNITS === 0) await this.#clock.sleep(0);
      }
    }
  }

  /** @param stored A unit, or a part of a record that is stored as it is. @returns null if it is malformed. */
  #codeAnew(
    coder: UnitCoder,
    stored: Uint8Array,
    limit: ErrorLimit | null,
    room: Uint8Array,
    seen: Seen,
    tally: CodecTally | null,
  ): Uint8Array | null {
    const { dtype, shape, kind, codecId } = seen.header as RecordHeader;
    const startMs = this.#clock.monotonicMs();
    const columns = shape.at(-1) as number;
    const part = { dtype, columns, limit, mayFactor: kind !== "KV_CACHE" };
    const isRaw = codecId === CODEC_RAW;
    const made = isRaw
      ? coder.encode({ ...part, bytes: stored })
      : coder.recode(stored, part, room);
    if (made === null) return null;
    const durationMs = this.#clock.monotonicMs() - startMs;
    const { codec, relativeError, maxError, bytes } = made;
    const { byteLength } = bytes;
    this.#meter.addEncodeMs(codec, durationMs);
    const rawBytes = isRaw ? stored.byteLength : (coder.rawBytes(stored) ?? 0);
    seen.rawBytes += rawBytes;
    seen.durationMs += durationMs;
    tally?.add({ codec, relativeError, maxError, byteLength, durationMs }, rawBytes);
    return bytes;
  }
}

/** Cuts the bytes of a tensor into parts, of which only the last is shorter. */
function partCutter(room: Uint8Array, partBytes: number, rawBytes: number) {
  let filled = 0;
  let leftBytes = rawBytes;
  return function* (bytes: Uint8Array): Generator<Uint8Array> {
    for (let at = 0; at < bytes.byteLength; ) {
      const wantedBytes = Math.min(partBytes, leftBytes);
      const count = Math.min(wantedBytes - filled, bytes.byteLength - at);
      room.set(bytes.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled < wantedBytes) return;
      leftBytes -= filled;
      filled = 0;
      yield room.subarray(0, wantedBytes);
    }
  };
}

/** Fills a buffer with pieces, and gives it whenever it is full, and at the end. */
export async function* inChunks(
  pieces: AsyncIterable<Uint8Array>,
  buffer: PrivateBytes,
): AsyncGenerator<PrivateBytes> {
  let filled = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.byteLength; ) {
      const count = Math.min(buffer.byteLength - filled, piece.byteLength - at);
      buffer.set(piece.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled < buffer.byteLength) continue;
      yield buffer;
      filled = 0;
    }
  }
  if (filled > 0) yield privatePart(buffer, 0, filled);
}
