// Gives the room of dead frames back: copies what counts in a segment to the open one, so that the
// segment holds nothing any more. In the background it writes at most a share of what callers write;
// when a caller needs room, it goes on until there is room or nothing to gain.
//
// Source: Mendel Rosenblum, John Ousterhout, "The Design and Implementation of a Log-Structured File
// System", SOSP 1991, section 3 — cleaning, and why short segments with little that counts go first.
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import { isNoSpace } from "./file-errors.js";
import type { FileReaders } from "./file-readers.js";
import type { Segment, StoredFrame } from "./segment.js";
import {
  FRAME_HEADER_BYTES,
  frameBytesOf,
  TABLE_ENTRY_BYTES,
  TABLE_OVERHEAD_BYTES,
} from "./segment-format.js";
import type { SegmentLog } from "./segment-log.js";
import { readFully } from "./segment-scan.js";
import type { StoreIndex } from "./store-index.js";

export interface SegmentCleanerOptions {
  readonly index: StoreIndex;
  readonly log: SegmentLog;
  readonly readers: FileReaders;
  /** Bytes that may be written in the background per byte that callers write. */
  readonly share: number;
  /** Length of a full segment. */
  readonly segmentBytes: number;
  /** Reserves room for copies. */
  tryReserve(bytes: number): boolean;
  unreserve(bytes: number): void;
  /** Removes segments of which nothing counts. */
  removeEmptied(): Promise<void>;
}

/** Cleaning in the background begins when more than this part of all segments is dead. */
const DEAD_RATIO_MIN = 0.5;
/** Bytes copied at once. */
const COPY_BYTES = 2 ** 20;

export class SegmentCleaner {
  readonly #options: SegmentCleanerOptions;
  /** Could not be read; not tried again. */
  readonly #unreadable = new Set<Segment>();
  #tail: Promise<void> = Promise.resolve();
  #isRunning = false;
  #isClosed = false;
  /** Bytes that may be written in the background now. */
  #allowanceBytes = 0;
  /** Bytes written by cleaning so far. */
  writtenBytes = 0;

  constructor(options: SegmentCleanerOptions) {
    this.#options = options;
  }

  /** A caller has written this much. */
  noteWritten(byteLength: number): void {
    const { share, segmentBytes } = this.#options;
    const allowanceBytes = this.#allowanceBytes + share * byteLength;
    this.#allowanceBytes = Math.min(allowanceBytes, segmentBytes);
  }

  /** Begins to clean in the background if that is due. Never waits, never throws. */
  wake(): void {
    if (this.#isRunning || this.#isClosed || this.#dueVictim() === null) return;
    this.#isRunning = true;
    const cleaning = this.#inTurn(async () => {
      for (;;) {
        const victim = this.#isClosed ? null : this.#dueVictim();
        if (victim === null || !(await this.#clean(victim))) break;
      }
      this.#isRunning = false;
    });
    // Nobody waits for it but `close`; it never rejects.
    cleaning.catch(() => {});
  }

  /** Cleans until there is room, or nothing is left to gain. Never rejects. */
  makeRoom(hasRoom: () => boolean): Promise<void> {
    return this.#inTurn(async () => {
      let hasSealed = false;
      const tried = new Set<Segment>();
      while (!this.#isClosed && !hasRoom()) {
        const victim = this.#victim(0, tried);
        if (victim !== null) {
          // One that does not fit now may fit when another has given its room.
          if (!(await this.#clean(victim))) tried.add(victim);
        } else {
          if (hasSealed) return;
          hasSealed = true;
          await this.#options.log.seal();
          await this.#options.removeEmptied();
        }
      }
    });
  }

  /** Ends the copy under way, and starts none any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#tail;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#tail = this.#tail.then(work);
    return this.#tail;
  }

  #dueVictim(): Segment | null {
    const { index, segmentBytes } = this.#options;
    const { deadBytes, segmentsBytes } = index;
    if (deadBytes < segmentBytes || deadBytes < segmentsBytes * DEAD_RATIO_MIN) return null;
    const victim = this.#victim(DEAD_RATIO_MIN);
    return victim !== null && victim.liveBytes <= this.#allowanceBytes ? victim : null;
  }

  /**
   * The closed segment of which the largest part is dead. Where callers wait for room, short ones that
   * could be one count as well.
   */
  #victim(deadRatioMin: number, tried?: ReadonlySet<Segment>): Segment | null {
    const { index, segmentBytes } = this.#options;
    const isShort = (segment: Segment) => segment.byteLength < segmentBytes / 2;
    let best: Segment | null = null;
    let bestRatio = deadRatioMin;
    let short: Segment | null = null;
    let shortCount = 0;
    for (const segment of index.segments) {
      if (segment.isOpen || segment.liveBytes === 0) continue;
      if (this.#unreadable.has(segment) || tried?.has(segment) === true) continue;
      if (isShort(segment)) {
        short = segment;
        shortCount += 1;
      }
      const ratio = segment.deadBytes / segment.byteLength;
      if (ratio <= bestRatio) continue;
      best = segment;
      bestRatio = ratio;
    }
    return best ?? (tried !== undefined && shortCount > 1 ? short : null);
  }

  /** @returns Whether the segment holds nothing any more. */
  async #clean(victim: Segment): Promise<boolean> {
    const { index, tryReserve, unreserve, removeEmptied } = this.#options;
    const frames = victim.frames.filter((frame) => index.counts(frame));
    // At most the open segment is filled, and one more is begun.
    const bytes = frames.reduce(
      (sum, frame) => sum + frameBytesOf(frame.payloadBytes) + TABLE_ENTRY_BYTES,
      2 * TABLE_OVERHEAD_BYTES,
    );
    if (!tryReserve(bytes)) return false;
    try {
      for (let start = 0; start < frames.length; ) {
        let end = start;
        for (let count = 0; end < frames.length && count < COPY_BYTES; end++) {
          count += frameBytesOf(frames[end]?.payloadBytes ?? 0);
        }
        await this.#copy(victim, frames.slice(start, end));
        start = end;
      }
    } catch (error) {
      // What was copied counts where it is now, the rest where it was.
      if (!isNoSpace(error)) this.#unreadable.add(victim);
      return false;
    } finally {
      unreserve(bytes);
    }
    await removeEmptied();
    return victim.liveBytes === 0;
  }

  async #copy(victim: Segment, frames: readonly StoredFrame[]): Promise<void> {
    const { index, readers } = this.#options;
    const found = await readers.acquire(victim.name);
    if (found === null) throw new RangeError("the segment is gone");
    // What is deleted meanwhile stays so, even if the victim and with it the tombstone's reason go.
    for (const frame of frames) index.beginCopy(frame);
    try {
      const first = frames[0]?.offset ?? 0;
      const last = frames.at(-1);
      const endOffset = last === undefined ? first : last.offset + frameBytesOf(last.payloadBytes);
      const bytes = privateBytes(endOffset - first);
      const count = await readFully(found.file, first, [bytes]);
      if (count < bytes.byteLength) throw new RangeError("the segment is shorter than it was");
      const counting = frames.filter((frame) => index.counts(frame));
      const appends = counting.map((frame) => this.#append(frame, bytes, frame.offset - first));
      // All of them: the copies are under way until the last has settled.
      const failed = (await Promise.allSettled(appends)).find(
        ({ status }) => status === "rejected",
      );
      if (failed?.status === "rejected") throw failed.reason;
    } finally {
      for (const frame of frames) index.endCopy(frame);
      await found.release();
    }
  }

  #append(original: StoredFrame, bytes: PrivateBytes, start: number): Promise<void> {
    const { kind, payloadBytes } = original;
    const frame = privatePart(bytes, start, start + frameBytesOf(payloadBytes));
    frame.fill(0, FRAME_HEADER_BYTES + payloadBytes);
    this.#allowanceBytes -= frame.byteLength;
    this.writtenBytes += frame.byteLength;
    const { log } = this.#options;
    return log.append({ ...original, kind: kind === "tombstone" ? kind : "object", frame });
  }
}
