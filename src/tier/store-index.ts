// What counts in a store: per key the object or tombstone with the highest sequence. Rebuilt from the
// files at every opening, so nothing of it is ever written. Pure: knows no files.
import type { Segment, StoredFrame } from "./segment.js";
import { frameBytesOf } from "./segment-format.js";
import type { TierKey } from "./tier.js";

/** An object in a file of its own. */
export interface StoredFile {
  readonly segment: null;
  readonly key: TierKey;
  readonly sequence: number;
  readonly payloadBytes: number;
  /** It was written to survive power loss, or nobody knows. */
  readonly isDurable: boolean;
  readonly name: string;
}

export type Stored = StoredFrame | StoredFile;

/** Whether an entry is a deletion. */
function isTombstone(entry: Stored): boolean {
  return entry.segment !== null && entry.kind === "tombstone";
}

export class StoreIndex {
  readonly #entries = new Map<TierKey, Stored>();
  /** Dead objects per key that may still be found on disk. While there are any, a tombstone counts. */
  readonly #shadows = new Map<TierKey, number>();
  /** Keys of which a dead object is durable. */
  readonly #durableShadows = new Set<TierKey>();
  readonly #segments = new Set<Segment>();
  /** Segments of which nothing may count any more. */
  readonly #emptied = new Set<Segment>();
  #open: Segment | null = null;
  #closedBytes = 0;
  #liveBytes = 0;
  #fileBytes = 0;
  objectCount = 0;
  /** Payload bytes of the objects that count. */
  storedBytes = 0;
  lastSequence = 0;

  get segments(): ReadonlySet<Segment> {
    return this.#segments;
  }

  /** Length of all segments, with the table that the open one will get. */
  get segmentsBytes(): number {
    return this.#closedBytes + (this.#open?.physicalBytes ?? 0);
  }

  /** Of it, what does not count: dead frames, tables, and what is torn. */
  get deadBytes(): number {
    return this.segmentsBytes - this.#liveBytes;
  }

  /** Length of all files that hold objects. */
  get physicalBytes(): number {
    return this.segmentsBytes + this.#fileBytes;
  }

  find(key: TierKey): Stored | null {
    const entry = this.#entries.get(key);
    return entry === undefined || isTombstone(entry) ? null : entry;
  }

  /** Whether something dead under this key would count again without a tombstone. */
  hasShadow(key: TierKey): boolean {
    return this.#shadows.has(key);
  }

  /**
   * Whether what comes next under this key must be durable: otherwise a power cut could take it, and
   * with it or without it show something that is older than what was acknowledged.
   */
  needsDurable(key: TierKey): boolean {
    return this.find(key)?.isDurable === true || this.#durableShadows.has(key);
  }

  *keys(): Generator<TierKey> {
    for (const [key, entry] of this.#entries) if (!isTombstone(entry)) yield key;
  }

  /** Whether this very entry is the one that counts. */
  counts(entry: Stored): boolean {
    return this.#entries.get(entry.key) === entry;
  }

  addSegment(segment: Segment): void {
    this.#segments.add(segment);
    if (segment.isOpen) this.#open = segment;
    else this.closeSegment(segment);
  }

  closeSegment(segment: Segment): void {
    if (this.#open === segment) this.#open = null;
    this.#closedBytes += segment.byteLength;
    if (segment.liveBytes === 0) this.#emptied.add(segment);
  }

  /**
   * Enters what has been written or found. It counts unless something with a higher sequence does.
   *
   * @returns The file that does not count any more and is to be removed, if there is one.
   */
  put(entry: Stored): StoredFile | null {
    this.lastSequence = Math.max(this.lastSequence, entry.sequence);
    if (entry.segment === null) this.#fileBytes += entry.payloadBytes;
    const before = this.#entries.get(entry.key);
    // A copy made by cleaning has the sequence of its original.
    if (before !== undefined && before.sequence > entry.sequence) return this.#retire(entry);
    this.#entries.set(entry.key, entry);
    if (entry.segment !== null) this.#grow(entry.segment, frameBytesOf(entry.payloadBytes));
    this.#count(entry, 1);
    const retired = before === undefined ? null : this.#leave(before);
    if (isTombstone(entry) && !this.#shadows.has(entry.key)) this.#dropTombstone(entry);
    return retired;
  }

  /** The frame may be found on disk and does not count. */
  lose(frame: StoredFrame): void {
    this.lastSequence = Math.max(this.lastSequence, frame.sequence);
    this.#retire(frame);
  }

  /** A copy of this frame is under way: until {@link endCopy} its key has a shadow. */
  beginCopy(frame: StoredFrame): void {
    this.#addShadow(frame, 1);
  }

  /** The copy has been entered, or will never be. */
  endCopy(frame: StoredFrame): void {
    this.#addShadow(frame, -1);
  }

  /** The file of this object is gone. */
  dropFile(file: StoredFile): void {
    this.#fileBytes -= file.payloadBytes;
    if (this.counts(file)) {
      this.#entries.delete(file.key);
      this.#count(file, -1);
    } else this.#addShadow(file, -1);
  }

  /** Closed segments of which nothing counts; each is given once. */
  takeEmptied(): Segment[] {
    const emptied = [...this.#emptied].filter((segment) => segment.liveBytes === 0);
    this.#emptied.clear();
    return emptied;
  }

  /**
   * Closed segments in which only tombstones count, each for objects of that very segment: one goes
   * with the other. Walks all segments of which little counts.
   */
  hollowSegments(): Segment[] {
    return [...this.#segments].filter((segment) => {
      const counting = segment.frames.filter((frame) => this.counts(frame));
      if (segment.isOpen || counting.some(({ kind }) => kind === "object")) return false;
      return counting.every(({ key }) => {
        const dead = segment.frames.filter((frame) => frame.kind === "object" && frame.key === key);
        return dead.length === this.#shadows.get(key);
      });
    });
  }

  /** The segment's file is gone. */
  dropSegment(segment: Segment): void {
    this.#segments.delete(segment);
    this.#closedBytes -= segment.byteLength;
    for (const frame of segment.frames) {
      if (frame.kind === "object") this.#addShadow(frame, -1);
    }
  }

  #retire(entry: Stored): StoredFile | null {
    if (entry.segment === null || entry.kind === "object") this.#addShadow(entry, 1);
    return entry.segment === null ? entry : null;
  }

  /** This entry counted until now. */
  #leave(before: Stored): StoredFile | null {
    this.#count(before, -1);
    if (before.segment !== null) this.#shrink(before.segment, frameBytesOf(before.payloadBytes));
    return this.#retire(before);
  }

  #count(entry: Stored, sign: 1 | -1): void {
    if (isTombstone(entry)) return;
    this.objectCount += sign;
    this.storedBytes += sign * entry.payloadBytes;
  }

  #grow(segment: Segment, bytes: number): void {
    segment.liveBytes += bytes;
    this.#liveBytes += bytes;
  }

  #shrink(segment: Segment, bytes: number): void {
    segment.liveBytes -= bytes;
    this.#liveBytes -= bytes;
    const isClosed = this.#segments.has(segment) && !segment.isOpen;
    if (segment.liveBytes === 0 && isClosed) this.#emptied.add(segment);
  }

  #addShadow({ key, isDurable }: Stored, change: 1 | -1): void {
    const count = (this.#shadows.get(key) ?? 0) + change;
    if (count > 0) {
      this.#shadows.set(key, count);
      if (isDurable) this.#durableShadows.add(key);
      return;
    }
    this.#shadows.delete(key);
    this.#durableShadows.delete(key);
    const entry = this.#entries.get(key);
    if (entry !== undefined && isTombstone(entry)) this.#dropTombstone(entry);
  }

  #dropTombstone(entry: Stored): void {
    this.#entries.delete(entry.key);
    if (entry.segment !== null) this.#shrink(entry.segment, frameBytesOf(entry.payloadBytes));
  }
}
