// Encoding and decoding of a tensor by coding workers, several jobs at a time: the same bytes in the same order as
// without them. What comes to nothing is done by the caller's thread. Loaded when there are workers.
import type { Clock } from "../clock.js";
import type { CodecWorkers, CodedParts, UnitCoder } from "../codec/codec.js";
import type { Dtype } from "../types.js";
import { type Sink, UnitCutter } from "./decoding.js";
import { type Encoding, encodeAt, type PassingUnit } from "./encoding.js";
import type { BytesAt } from "./staging.js";

/**
 * All units from the part on that begins at `offset`. A job that comes to nothing is done by the thread that asks; so is one part
 * when nobody has room, because to wait for another transfer's jobs might be to wait for ever.
 */
export async function* encodeByWorkers(
  encoding: Encoding,
  offset: number,
  workers: CodecWorkers,
): AsyncGenerator<PassingUnit> {
  const { coder, source, rawBytes, part, clock } = encoding;
  const stepBytes = coder.partBytes(part.dtype, part.columns);
  const jobBytes = Math.max(1, Math.floor(workers.jobBytesMax / stepBytes)) * stepBytes;
  const given: Promise<CodedParts | null>[] = [];
  let held: CodedParts | null = null;
  try {
    for (let at = offset, givenEnd = offset; at < rawBytes; ) {
      givenEnd = Math.max(givenEnd, at);
      while (givenEnd < rawBytes && given.length < workers.windowCount) {
        const byteLength = Math.min(jobBytes, rawBytes - givenEnd);
        const made = workers.tryEncode({ ...part, bytes: source(givenEnd, byteLength) });
        if (made === null) break;
        given.push(made);
        givenEnd += byteLength;
      }
      const first = given.shift();
      if (first === undefined) {
        const unit = encodeAt(encoding, at);
        at += unit.rawBytes;
        yield unit;
        await clock.sleep(0);
        continue;
      }
      held = await first;
      const end = Math.min(rawBytes, at + jobBytes);
      let filled = 0;
      for (const done of held?.parts ?? []) {
        const bytes = (held as CodedParts).bytes.subarray(filled, filled + done.byteLength);
        const partBytes = Math.min(stepBytes, rawBytes - at);
        filled += done.byteLength;
        at += partBytes;
        yield { bytes, part: done, rawBytes: partBytes };
      }
      held?.release();
      while (at < end) {
        const unit = encodeAt(encoding, at);
        at += unit.rawBytes;
        yield unit;
      }
    }
  } finally {
    // Whoever asked may have had enough.
    held?.release();
    for (const made of given) {
      made.then(
        (result) => result?.release(),
        () => {},
      );
    }
  }
}

export interface WorkerStreamOptions {
  readonly coder: UnitCoder;
  readonly workers: CodecWorkers;
  readonly clock: Clock;
  /** For one unit. */
  readonly room: Uint8Array;
  readonly dtype: Dtype;
  /** Of the whole tensor. */
  readonly rawBytes: number;
  readonly target: BytesAt;
  /** Decodes a unit to that offset of the tensor, in this thread; null if it is malformed. */
  readonly decode: (unit: Uint8Array, offset: number) => number | null;
  /** Told what workers took. */
  readonly onDecoded: (codec: string, durationMs: number) => void;
}

/** Units that are decoded together, and where to. */
interface Batch {
  /** Kept until they are decoded, because a worker may end. */
  readonly room: Uint8Array;
  filledBytes: number;
  rawOffset: number;
  rawBytes: number;
}

/** Has units decoded by workers, several jobs at a time. */
export class WorkerStream implements Sink {
  readonly #options: WorkerStreamOptions;
  readonly #cutter: UnitCutter;
  readonly #given: { readonly batch: Batch; readonly made: Promise<CodedParts | null> }[] = [];
  readonly #idle: Batch[] = [];
  /** Units that were not given to anybody yet. */
  #batch: Batch;
  #rawOffset = 0;

  constructor(options: WorkerStreamOptions) {
    this.#options = options;
    this.#cutter = new UnitCutter(options.coder, options.room);
    this.#batch = this.#emptyBatch();
  }

  async push(bytes: Uint8Array): Promise<boolean> {
    const { coder, rawBytes, workers } = this.#options;
    for (const unit of this.#cutter.cut(bytes)) {
      const partBytes = unit === null ? null : coder.rawBytes(unit);
      if (unit === null || partBytes === null) return false;
      if (this.#rawOffset + partBytes > rawBytes) return false;
      const isFull =
        this.#batch.rawBytes + partBytes > workers.jobBytesMax ||
        this.#batch.filledBytes + unit.byteLength > workers.jobUnitBytesMax;
      if (isFull && !(await this.#giveBatch())) return false;
      const batch = this.#batch;
      batch.room.set(unit, batch.filledBytes);
      batch.filledBytes += unit.byteLength;
      batch.rawBytes += partBytes;
      this.#rawOffset += partBytes;
    }
    return true;
  }

  async end(): Promise<boolean> {
    if (!(await this.#giveBatch())) return false;
    while (this.#given.length > 0) if (!(await this.#takeFirst())) return false;
    return this.#rawOffset === this.#options.rawBytes && this.#cutter.isBetween;
  }

  async leave(): Promise<void> {
    for (const { made } of this.#given) (await made)?.release();
    this.#given.length = 0;
  }

  async #giveBatch(): Promise<boolean> {
    const batch = this.#batch;
    const { workers, dtype, target, clock } = this.#options;
    const { room, filledBytes, rawOffset, rawBytes } = batch;
    if (filledBytes === 0) return true;
    const bytes = room.subarray(0, filledBytes);
    for (;;) {
      const made =
        this.#given.length < workers.windowCount
          ? workers.tryDecode({ dtype, rawBytes, bytes, target: target(rawOffset, rawBytes) })
          : null;
      if (made !== null) {
        this.#given.push({ batch, made });
        break;
      }
      if (this.#given.length === 0) {
        // Nobody has room: to wait for another transfer's jobs might be to wait for ever.
        if (!this.#decodeHere(batch)) return false;
        this.#idle.push(batch);
        await clock.sleep(0);
        break;
      }
      if (!(await this.#takeFirst())) return false;
    }
    this.#batch = this.#emptyBatch();
    return true;
  }

  async #takeFirst(): Promise<boolean> {
    const first = this.#given[0];
    if (first === undefined) return true;
    const { batch, made } = first;
    const result = await made;
    this.#given.shift();
    this.#idle.push(batch);
    if (result === null) return this.#decodeHere(batch);
    if (result.bytes.byteLength > 0) {
      this.#options.target(batch.rawOffset, batch.rawBytes).set(result.bytes);
    }
    result.release();
    for (const { codec, durationMs } of result.parts) this.#options.onDecoded(codec, durationMs);
    return true;
  }

  #emptyBatch(): Batch {
    const room = this.#idle.pop()?.room ?? new Uint8Array(this.#options.workers.jobUnitBytesMax);
    return { room, filledBytes: 0, rawOffset: this.#rawOffset, rawBytes: 0 };
  }

  #decodeHere({ room, filledBytes, rawOffset, rawBytes }: Batch): boolean {
    const { coder, decode } = this.#options;
    let offset = rawOffset;
    for (let at = 0; at < filledBytes; ) {
      const unitBytes = coder.unitBytes(room.subarray(at, filledBytes)) ?? 0;
      const byteLength = decode(room.subarray(at, at + unitBytes), offset);
      if (byteLength === null) return false;
      offset += byteLength;
      at += unitBytes;
    }
    return offset === rawOffset + rawBytes;
  }
}
