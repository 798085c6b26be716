// The end of the store where everything short is written: one open segment, and the queue of what
// goes into it next. One write takes all that is queued, one sync makes it durable for everybody who
// waits: group commit. Knows nothing of which frames count.
//
// Source: Jim Gray, Andreas Reuter, "Transaction Processing", 9.4.5 — group commit.
// Source: Mendel Rosenblum, John Ousterhout, "The Design and Implementation of a Log-Structured File
// System", SOSP 1991 — segments and their cleaning.
import { type Random, randomName } from "../random.js";
import { type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { FileSystem, FileWriter } from "./file-system.js";
import { Segment, type StoredFrame } from "./segment.js";
import { encodeFrame, encodeTable, type Frame } from "./segment-format.js";

/** A frame to be written. */
export interface Append extends Omit<Frame, "offset" | "kind"> {
  readonly kind: "object" | "tombstone";
  /** The whole frame; its header is written over by the log. Not used after the append has settled. */
  readonly frame: PrivateBytes;
}

interface Pending extends Append {
  resolve(): void;
  reject(error: unknown): void;
}

export interface SegmentLogOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly random: Random;
  /** A segment that has reached this length is closed. */
  readonly segmentBytes: number;
  /** Number of the last segment there was. */
  readonly lastNumber: number;
  /** The next segment's file is made before it is needed. */
  readonly opensAhead: boolean;
  /** A file for a new segment is there. */
  onOpened(segment: Segment): void;
  /** The frame is written, and synced if it is durable. Called before the append resolves. */
  onStored(frame: StoredFrame): void;
  /** The frame may or may not be in the file, and counts in no case. */
  onLost(frame: StoredFrame): void;
  /** No frame will be appended to this segment any more. */
  onClosed(segment: Segment): void;
}

/** A segment and its file. */
interface Opened {
  readonly segment: Segment;
  readonly file: FileWriter;
}

/** Most frames in one batch: what a system takes in one call, with room to spare. */
const BATCH_COUNT_MAX = 512;
/** Microtasks in which who was just told that an object is stored can have written the next one. */
const GATHER_TICK_COUNT = 60;
const GATHER_BYTES = 2 ** 18;

export class SegmentLog {
  readonly #options: SegmentLogOptions;
  readonly #queue: Pending[] = [];
  #queuedBytes = 0;
  readonly #waiters: (() => void)[] = [];
  #tail: Promise<void> = Promise.resolve();
  #isDraining = false;
  #open: Opened | null = null;
  /** The next one, or null where it could not be made; with nothing in it, it counts for nothing. */
  #next: Promise<Opened | null> | null = null;
  #syncedOffset = 0;
  #isNameSynced = false;
  #lastNumber: number;
  /** Syncs of data so far. */
  syncCount = 0;

  constructor(options: SegmentLogOptions) {
    this.#options = options;
    this.#lastNumber = options.lastNumber;
  }

  /** Appends are queued or under way. */
  get isBusy(): boolean {
    return this.#isDraining;
  }

  /** Resolves when the next batch has been written, or has failed. Only while {@link isBusy}. */
  nextBatch(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push(resolve);
    });
  }

  /**
   * Appends a frame.
   *
   * @throws The file system's own error; the frame then counts in no case.
   */
  append(append: Append): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...append, resolve, reject });
      this.#queuedBytes += append.frame.byteLength;
      if (this.#isDraining) return;
      this.#isDraining = true;
      this.#inTurn(() => this.#drain());
    });
  }

  /** Closes the open segment, with its table. Never rejects: without a table the frames are read. */
  seal(): Promise<void> {
    this.#inTurn(() => this.#seal());
    return this.#tail;
  }

  /** As {@link seal}; nothing is appended any more. */
  close(): Promise<void> {
    this.#inTurn(async () => {
      await this.#seal();
      await this.#discardNext();
    });
    return this.#tail;
  }

  #inTurn(work: () => Promise<void>): void {
    this.#tail = this.#tail.then(work);
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const firstBytes = this.#queue[0]?.frame.byteLength ?? 0;
      if ((this.#open?.segment.byteLength ?? 0) + firstBytes > this.#options.segmentBytes) {
        await this.#seal();
      }
      await this.#gather();
      await this.#writeBatch(this.#takeBatch());
      for (const wake of this.#waiters.splice(0)) wake();
    }
    this.#isDraining = false;
  }

  /**
   * Waits as long as more come at once: one write costs little more for many than for one, and a sync
   * nothing. Without a sync, no longer than until one write has enough to do.
   */
  async #gather(): Promise<void> {
    for (let count = 0; count < this.#queue.length && count < BATCH_COUNT_MAX; ) {
      count = this.#queue.length;
      const isDurable = this.#queue.some((pending) => pending.isDurable);
      if (!isDurable && this.#queuedBytes >= GATHER_BYTES) return;
      for (let tick = 0; tick < GATHER_TICK_COUNT; tick++) await Promise.resolve();
    }
  }

  #takeBatch(): Pending[] {
    const roomBytes = this.#options.segmentBytes - (this.#open?.segment.byteLength ?? 0);
    let count = 0;
    let byteLength = 0;
    for (const { frame } of this.#queue) {
      byteLength += frame.byteLength;
      // The first one goes in any case: it may be longer than a short segment.
      if (count > 0 && (byteLength > roomBytes || count === BATCH_COUNT_MAX)) break;
      count += 1;
    }
    const batch = this.#queue.splice(0, count);
    for (const { frame } of batch) this.#queuedBytes -= frame.byteLength;
    return batch;
  }

  /** Writes and syncs a batch and tells everybody. Never rejects. */
  async #writeBatch(batch: readonly Pending[]): Promise<void> {
    let waiting = batch;
    let frames: StoredFrame[] = [];
    try {
      const { segment, file } = this.#open ?? (await this.#create());
      this.#openAhead(segment);
      frames = this.#place(segment, batch);
      await writeFully(file, batch, segment);
      for (const frame of frames) if (!frame.isDurable) this.#options.onStored(frame);
      for (const pending of batch) if (!pending.isDurable) pending.resolve();
      waiting = batch.filter(({ isDurable }) => isDurable);
      frames = frames.filter(({ isDurable }) => isDurable);
      if (waiting.length === 0) return;
      await this.#sync(segment, file);
      for (const frame of frames) this.#options.onStored(frame);
      for (const pending of waiting) pending.resolve();
    } catch (error) {
      // After a failed write nobody knows what is in the file, and after a failed sync the system has
      // marked its pages clean: what comes next goes into a new one.
      for (const frame of frames) this.#options.onLost(frame);
      await this.#close();
      for (const pending of waiting) pending.reject(error);
    }
  }

  async #create(): Promise<Opened> {
    const opened = (await this.#takeNext()) ?? (await this.#makeFile());
    opened.segment.isOpen = true;
    this.#open = opened;
    this.#syncedOffset = 0;
    this.#isNameSynced = false;
    this.#options.onOpened(opened.segment);
    return opened;
  }

  async #makeFile(): Promise<Opened> {
    const { files, directory, random } = this.#options;
    const segment = new Segment(this.#lastNumber + 1, randomName(random));
    const file = await files.create(files.join(directory, segment.name));
    this.#lastNumber = segment.number;
    return { segment, file };
  }

  /** Begins to make the next segment's file once this one is half full. */
  #openAhead({ byteLength }: Segment): void {
    const { opensAhead, segmentBytes } = this.#options;
    if (!opensAhead || this.#next !== null || byteLength < segmentBytes / 2) return;
    // What is wrong is found, and told, when the file is needed.
    this.#next = this.#makeFile().catch(() => null);
  }

  #takeNext(): Promise<Opened | null> {
    const next = this.#next ?? Promise.resolve(null);
    this.#next = null;
    return next;
  }

  /** Removes the file that was made ahead. Never rejects: one that stays is found empty at the next open. */
  async #discardNext(): Promise<void> {
    const next = await this.#takeNext();
    if (next === null) return;
    const { files, directory } = this.#options;
    await next.file.close().catch(() => {});
    await files.remove(files.join(directory, next.segment.name)).catch(() => {});
  }

  /** Gives the frames their places and writes their headers. */
  #place(segment: Segment, batch: readonly Pending[]): StoredFrame[] {
    let offset = segment.byteLength;
    return batch.map(({ kind, key, sequence, payloadBytes, isDurable, frame }) => {
      const stored = { kind, key, sequence, payloadBytes, isDurable, offset, segment };
      encodeFrame(frame, { ...stored, syncedOffset: this.#syncedOffset }, segment.id);
      segment.frames.push(stored);
      offset += frame.byteLength;
      return stored;
    });
  }

  async #sync(segment: Segment, file: FileWriter): Promise<void> {
    this.syncCount += 1;
    const offset = segment.byteLength;
    await file.sync();
    this.#syncedOffset = offset;
    if (this.#isNameSynced) return;
    await this.#options.files.syncDirectory(this.#options.directory);
    this.#isNameSynced = true;
  }

  async #seal(): Promise<void> {
    if (this.#open === null) return;
    const { segment, file } = this.#open;
    const table = encodeTable(segment.frames, segment.byteLength, segment.id);
    const { byteLength } = segment;
    await writeFully(file, [{ frame: table }], segment).catch(() => {});
    segment.tableBytes = segment.byteLength - byteLength;
    await this.#close();
  }

  async #close(): Promise<void> {
    if (this.#open === null) return;
    const { segment, file } = this.#open;
    this.#open = null;
    await file.close().catch(() => {});
    segment.isOpen = false;
    this.#options.onClosed(segment);
  }
}

/** Writes the frames behind the segment's end, which moves with what is written. */
async function writeFully(
  file: FileWriter,
  batch: readonly { readonly frame: PrivateBytes }[],
  segment: Segment,
): Promise<void> {
  const sources = batch.map(({ frame }) => frame);
  for (let first = 0; first < sources.length; ) {
    let count = await file.write(sources.slice(first), segment.byteLength);
    if (count === 0) throw new RangeError("the file took no bytes");
    segment.byteLength += count;
    for (; count > 0; first++) {
      const frame = sources[first] as PrivateBytes;
      if (count < frame.byteLength) {
        sources[first] = privatePart(frame, count, frame.byteLength);
        break;
      }
      count -= frame.byteLength;
    }
  }
}
