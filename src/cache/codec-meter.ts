// What codecs did for the records of a memory, counted by codec.
import type { CodedPart } from "../codec/codec.js";

export interface CodecStats {
  /** Name of the codec; `"raw"` also for records that were written as they are. */
  readonly codec: string;
  /** Records written that have a part in it, since the memory was created. */
  readonly tensorCount: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Spent encoding, what was tried and not kept included. */
  readonly encodeMs: number;
  readonly decodeMs: number;
  /** Largest of those that were measured; 0 of an exact codec. */
  readonly relativeErrorMax: number;
  /** Largest absolute error that was measured. */
  readonly maxErrorMax: number;
}

type Counters = { -readonly [name in keyof Omit<CodecStats, "codec">]: CodecStats[name] };

function noCounts(): Counters {
  return {
    ...{ tensorCount: 0, rawBytes: 0, storedBytes: 0, encodeMs: 0, decodeMs: 0 },
    ...{ relativeErrorMax: 0, maxErrorMax: 0 },
  };
}

/** The parts of one record. */
export class CodecTally {
  readonly byCodec = new Map<string, Counters>();

  add({ codec, byteLength, relativeError, maxError }: CodedPart, rawBytes: number): void {
    const counters = this.byCodec.get(codec) ?? noCounts();
    counters.tensorCount = 1;
    counters.rawBytes += rawBytes;
    counters.storedBytes += byteLength;
    counters.relativeErrorMax = Math.max(counters.relativeErrorMax, relativeError);
    counters.maxErrorMax = Math.max(counters.maxErrorMax, maxError);
    this.byCodec.set(codec, counters);
  }
}

export class CodecMeter {
  readonly #byCodec = new Map<string, Counters>();

  count(tally: CodecTally): void {
    for (const [codec, counters] of tally.byCodec) {
      const total = this.#of(codec);
      total.tensorCount += counters.tensorCount;
      total.rawBytes += counters.rawBytes;
      total.storedBytes += counters.storedBytes;
      total.relativeErrorMax = Math.max(total.relativeErrorMax, counters.relativeErrorMax);
      total.maxErrorMax = Math.max(total.maxErrorMax, counters.maxErrorMax);
    }
  }

  countPlain(rawBytes: number): void {
    const total = this.#of("raw");
    total.tensorCount += 1;
    total.rawBytes += rawBytes;
    total.storedBytes += rawBytes;
  }

  addEncodeMs(codec: string, durationMs: number): void {
    this.#of(codec).encodeMs += durationMs;
  }

  addDecodeMs(codec: string, durationMs: number): void {
    this.#of(codec).decodeMs += durationMs;
  }

  /** One row for each codec that was used, most raw bytes first. */
  stats(): CodecStats[] {
    return [...this.#byCodec]
      .map(([codec, counters]) => ({ codec, ...counters }))
      .sort((left, right) => right.rawBytes - left.rawBytes);
  }

  #of(codec: string): Counters {
    let counters = this.#byCodec.get(codec);
    if (counters === undefined) {
      counters = noCounts();
      this.#byCodec.set(codec, counters);
    }
    return counters;
  }
}
