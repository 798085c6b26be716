// The stored bytes of a coded record: units made from a tensor's parts, and parts made from units again.
// Memory for one unit each way, and a buffer that spares most tensors a second encoding.
//
// A record says how long it is before its bytes follow, so a tensor is encoded before it is written. What
// the buffer holds of that is written; the rest is encoded again, to the same bytes.
import type { Clock } from "../clock.js";
import type { Codec, CodecWorkers, CodecWorkersStats } from "../codec/codec.js";
import type { RecordHeader } from "../record/record.js";
import { CodecMeter, type CodecStats, CodecTally } from "./codec-meter.js";
import type { Coding } from "./coding.js";
import { type Sink, UnitStream } from "./decoding.js";
import { type Encoding, encodeHere } from "./encoding.js";
import type { BytesAt } from "./staging.js";

/** A coded record must be shorter than this share of the tensor. */
const WORTH = 0.95;
/** After so many bytes, a tensor that gets hardly shorter is given up. */
const PROBE_BYTES = 2 ** 20;
/** Shorter tensors are coded sooner than a worker answers. */
const WORKER_BYTES_MIN = 2 ** 18;

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
  pieces(): AsyncIterable<Uint8Array>;
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
  #workers: CodecWorkers | null = null;

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

  /** Loads what coding a tensor takes, so that it is no part of what coding costs. Never rejects. */
  async load(rawBytes: number): Promise<void> {
    await this.codec.load().catch(() => null);
    await this.#workersFor(rawBytes);
  }

  /** null: there are none, or they have not been needed yet. */
  workersStats(): CodecWorkersStats | null {
    return this.#workers?.stats() ?? null;
  }

  /** Ends the workers. What is under way is coded by the caller's thread. */
  async close(): Promise<void> {
    await this.#workers?.close();
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
    const part = { dtype, columns, limit, mayFactor: kind !== "KV_CACHE" };
    const unitsFrom = (offset: number) =>
      this.#unitsFrom({ coder, clock: this.#clock, source, rawBytes, part }, offset);
    const ahead = this.#takeAhead();
    const release = () => this.#giveAhead(ahead);
    const tally = new CodecTally();
    let storedBytes = 0;
    let aheadBytes = 0;
    let aheadRawBytes = 0;
    let seenBytes = 0;
    let isWorth = true;
    try {
      for await (const unit of unitsFrom(0)) {
        const { byteLength } = unit.bytes;
        tally.add(unit.part, unit.rawBytes);
        seenBytes += unit.rawBytes;
        if (aheadBytes === storedBytes && aheadBytes + byteLength <= (ahead?.byteLength ?? 0)) {
          ahead?.set(unit.bytes, aheadBytes);
          aheadBytes += byteLength;
          aheadRawBytes = seenBytes;
        }
        storedBytes += byteLength;
        if (seenBytes === rawBytes || seenBytes >= PROBE_BYTES) {
          isWorth = storedBytes < WORTH * seenBytes;
        }
        if (!isWorth) break;
      }
    } catch (error) {
      release();
      throw error;
    }
    if (!isWorth) {
      release();
      return null;
    }
    const pieces = async function* () {
      if (ahead !== null && aheadBytes > 0) yield ahead.subarray(0, aheadBytes);
      for await (const { bytes } of unitsFrom(aheadRawBytes)) yield bytes;
    };
    return { storedBytes, pieces, count: () => this.#meter.count(tally), release };
  }

  /**
   * Decodes stored bytes as they come.
   *
   * @param room For one unit: {@link Codec.unitBytesMax} bytes.
   * @throws {OutOfMemoryError} The platform has no room for the codec.
   */
  async decode(header: RecordHeader, room: Uint8Array, target: BytesAt): Promise<Sink> {
    const { dtype, rawBytes } = header;
    const coder = await this.codec.load();
    const decode = (unit: Uint8Array, offset: number) => {
      const startMs = this.#clock.monotonicMs();
      const decoded = coder.decode(unit, dtype, target(offset, rawBytes - offset));
      if (decoded === null) return null;
      this.#meter.addDecodeMs(decoded.codec, this.#clock.monotonicMs() - startMs);
      return decoded.byteLength;
    };
    const helped = await this.#workersFor(rawBytes);
    if (helped === null) return new UnitStream(coder, room, rawBytes, decode);
    const { workers, WorkerStream } = helped;
    const onDecoded = (codec: string, durationMs: number) =>
      this.#meter.addDecodeMs(codec, durationMs);
    const given = { coder, workers, clock: this.#clock, room, dtype, rawBytes, target };
    return new WorkerStream({ ...given, decode, onDecoded });
  }

  /** All units from an offset on, counted as they are made. */
  async *#unitsFrom(encoding: Encoding, offset: number) {
    const helped = await this.#workersFor(encoding.rawBytes);
    const units =
      helped === null
        ? encodeHere(encoding, offset)
        : helped.encodeByWorkers(encoding, offset, helped.workers);
    for await (const unit of units) {
      this.#meter.addEncodeMs(unit.part.codec, unit.part.durationMs);
      yield unit;
    }
  }

  /** Workers, and what works with them; null for a short tensor, or if there are none. */
  async #workersFor(rawBytes: number) {
    if (rawBytes < WORKER_BYTES_MIN) return null;
    this.#workers ??= await this.codec.loadWorkers();
    if (this.#workers === null) return null;
    return { workers: this.#workers, ...(await import("./coding-by-workers.js")) };
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
