// The stored bytes of a coded record: units made from a tensor's parts, and parts made from units again.
// Memory for one unit each way, and a buffer that spares most tensors a second encoding.
//
// A record says how long it is before its bytes follow, so a tensor is encoded before it is written. What
// the buffer holds of that is written; the rest is encoded again, to the same bytes.
import type { Clock } from "../clock.js";
import type { Codec, UnitCoder } from "../codec/codec.js";
import type { RecordHeader } from "../record/record.js";
import { CodecMeter, type CodecStats, CodecTally } from "./codec-meter.js";
import type { Coding } from "./coding.js";
import type { BytesAt } from "./staging.js";

/** A coded record must be shorter than this share of the tensor. */
const WORTH = 0.95;
/** After so many bytes, a tensor that gets hardly shorter is given up. */
const PROBE_BYTES = 2 ** 20;
/** Bytes encoded in one turn of the event loop. */
const TURN_BYTES = 2 ** 22;

export interface RecordCoderOptions {
  readonly codec: Codec;
  readonly clock: Clock;
  /** Length of the buffer. */
  readonly aheadBytes: number;
}

/** What a tensor becomes. */
export interface EncodedRecord {
  readonly storedBytes: number;
  /** All stored bytes in order, each piece valid until the next is asked for. */
  pieces(): Iterable<Uint8Array>;
  /** Counts it as written. */
  count(): void;
  /** Gives the buffer back; nothing is asked of this any more. */
  release(): void;
}

export class RecordCoder {
  readonly codec: Codec;
  readonly #clock: Clock;
  readonly #aheadBytes: number;
  readonly #meter = new CodecMeter();
  /** Made when it is first needed; null while one record has it. */
  #ahead: Uint8Array | null | undefined;

  constructor({ codec, clock, aheadBytes }: RecordCoderOptions) {
    this.codec = codec;
    this.#clock = clock;
    this.#aheadBytes = aheadBytes;
  }

  stats(): CodecStats[] {
    return this.#meter.stats();
  }

  /** Counts a record that was written as it is. */
  countPlain(rawBytes: number): void {
    this.#meter.countPlain(rawBytes);
  }

  /**
   * Encodes a tensor.
   *
   * @returns null when it gets hardly shorter, or the platform has no room for the codec.
   */
  async encode(
    header: RecordHeader,
    source: BytesAt,
    { limit }: Coding,
  ): Promise<EncodedRecord | null> {
    // As they are will do: nobody has to be told.
    const coder = await this.codec.load().catch(() => null);
    if (coder === null) return null;
    const { rawBytes, dtype, shape, kind } = header;
    const columns = shape.at(-1) as number;
    const stepBytes = coder.partBytes(dtype, columns);
    const mayFactor = kind !== "KV_CACHE";
    const encodeAt = (offset: number, tally: CodecTally | null) => {
      const startMs = this.#clock.monotonicMs();
      const bytes = source(offset, Math.min(stepBytes, rawBytes - offset));
      const unit = coder.encode({ bytes, dtype, columns, limit, mayFactor });
      this.#meter.addEncodeMs(unit.codec, this.#clock.monotonicMs() - startMs);
      tally?.add(unit, bytes.byteLength);
      return unit.bytes;
    };
    const ahead = this.#takeAhead();
    const release = () => this.#giveAhead(ahead);
    const tally = new CodecTally();
    let storedBytes = 0;
    let aheadBytes = 0;
    let aheadRawBytes = 0;
    let isWorth = true;
    try {
      for (let offset = 0; offset < rawBytes && isWorth; offset += stepBytes) {
        const unit = encodeAt(offset, tally);
        if (
          aheadBytes === storedBytes &&
          aheadBytes + unit.byteLength <= (ahead?.byteLength ?? 0)
        ) {
          ahead?.set(unit, aheadBytes);
          aheadBytes += unit.byteLength;
          aheadRawBytes = offset + stepBytes;
        }
        storedBytes += unit.byteLength;
        const seenBytes = Math.min(rawBytes, offset + stepBytes);
        if (seenBytes === rawBytes || seenBytes >= PROBE_BYTES) {
          isWorth = storedBytes < WORTH * seenBytes;
        }
        const isTurnOver = Math.floor(seenBytes / TURN_BYTES) > Math.floor(offset / TURN_BYTES);
        if (isTurnOver && seenBytes < rawBytes) await this.#clock.sleep(0);
      }
    } catch (error) {
      release();
      throw error;
    }
    if (!isWorth) {
      release();
      return null;
    }
    const pieces = function* () {
      if (ahead !== null && aheadBytes > 0) yield ahead.subarray(0, aheadBytes);
      for (let at = aheadRawBytes; at < rawBytes; at += stepBytes) yield encodeAt(at, null);
    };
    return { storedBytes, pieces, count: () => this.#meter.count(tally), release };
  }

  /**
   * Decodes stored bytes as they come.
   *
   * @param room For one unit: {@link Codec.unitBytesMax} bytes.
   * @throws {OutOfMemoryError} The platform has no room for the codec.
   */
  async decode(header: RecordHeader, room: Uint8Array, target: BytesAt): Promise<UnitStream> {
    const { dtype, rawBytes } = header;
    const coder = await this.codec.load();
    return new UnitStream(coder, room, rawBytes, (unit, offset) => {
      const startMs = this.#clock.monotonicMs();
      const decoded = coder.decode(unit, dtype, target(offset, rawBytes - offset));
      if (decoded === null) return null;
      this.#meter.addDecodeMs(decoded.codec, this.#clock.monotonicMs() - startMs);
      return decoded.byteLength;
    });
  }

  #takeAhead(): Uint8Array | null {
    const ahead = this.#ahead === undefined ? new Uint8Array(this.#aheadBytes) : this.#ahead;
    this.#ahead = null;
    return ahead;
  }

  #giveAhead(ahead: Uint8Array | null): void {
    if (ahead !== null) this.#ahead = ahead;
  }
}

/** Cuts stored bytes into units and has them decoded, one after the other. */
export class UnitStream {
  readonly #coder: UnitCoder;
  readonly #room: Uint8Array;
  readonly #rawBytes: number;
  readonly #decode: (unit: Uint8Array, offset: number) => number | null;
  #filled = 0;
  #rawOffset = 0;

  /** @param decode Decodes a unit to that offset of the tensor; null if it is malformed. */
  constructor(
    coder: UnitCoder,
    room: Uint8Array,
    rawBytes: number,
    decode: (unit: Uint8Array, offset: number) => number | null,
  ) {
    this.#coder = coder;
    this.#room = room;
    this.#rawBytes = rawBytes;
    this.#decode = decode;
  }

  /** Whether the units made the whole tensor, and nothing was left over. */
  get isWhole(): boolean {
    return this.#rawOffset === this.#rawBytes && this.#filled === 0;
  }

  /** Takes the next bytes. @returns false when they are malformed. */
  push(bytes: Uint8Array): boolean {
    const { headBytes } = this.#coder;
    let rest = bytes;
    while (rest.byteLength > 0) {
      if (this.#filled === 0 && rest.byteLength >= headBytes) {
        const unitBytes = this.#coder.unitBytes(rest);
        if (unitBytes === null) return false;
        if (unitBytes <= rest.byteLength) {
          if (!this.#take(rest.subarray(0, unitBytes))) return false;
          rest = rest.subarray(unitBytes);
          continue;
        }
      }
      let wantedBytes = headBytes;
      if (this.#filled >= headBytes) {
        const unitBytes = this.#coder.unitBytes(this.#room);
        if (unitBytes === null) return false;
        wantedBytes = unitBytes;
      }
      const count = Math.min(wantedBytes - this.#filled, rest.byteLength);
      this.#room.set(rest.subarray(0, count), this.#filled);
      this.#filled += count;
      rest = rest.subarray(count);
      if (this.#filled > headBytes && this.#filled === wantedBytes) {
        this.#filled = 0;
        if (!this.#take(this.#room.subarray(0, wantedBytes))) return false;
      }
    }
    return true;
  }

  #take(unit: Uint8Array): boolean {
    if (this.#rawOffset === this.#rawBytes) return false;
    const byteLength = this.#decode(unit, this.#rawOffset);
    if (byteLength === null) return false;
    this.#rawOffset += byteLength;
    return true;
  }
}
