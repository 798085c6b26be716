// A store's directory while it is held: what lies where, and every change of it. Throws the file
// system's own errors; what they mean to callers, and who may still call, is for the tier.
//
// Source: Thanumalayan Sankaranarayana Pillai et al., "All File Systems Are Not Created Equal",
// OSDI 2014 — why a rename needs the file's and the directory's fsync around it.
import { type Random, randomName } from "../random.js";
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";
import { FailedDeletions } from "./failed-deletions.js";
import { isNoSpace, systemCode } from "./file-errors.js";
import { FileReaders } from "./file-readers.js";
import type { FileSystem } from "./file-system.js";
import { FrameBuffers } from "./frame-buffers.js";
import { IdleFiles, type WritableFile } from "./idle-files.js";
import { copyAside, trimQuarantine } from "./quarantine.js";
import { type Segment, wideHex } from "./segment.js";
import { SegmentCleaner } from "./segment-cleaner.js";
import { FRAME_HEADER_BYTES, frameBytesOf, packedBytesOf } from "./segment-format.js";
import { SegmentLog } from "./segment-log.js";
import { SpareRoom } from "./spare-room.js";
import type { StoredFile, StoreIndex } from "./store-index.js";
import { openStored, type StoredObject } from "./stored-object.js";
import type { TierKey } from "./tier.js";

export interface OpenStoreOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly random: Random;
  readonly index: StoreIndex;
  /** Number of the last segment there was. */
  readonly lastNumber: number;
  /** Most physical bytes; Infinity when unlimited. */
  readonly capacityBytes: number;
  readonly bufferBytes: number;
  readonly packedBytesMax: number;
  readonly cleaningShare: number;
  /** Kept free on the device for deletions; 0: none. */
  readonly spareRoomBytes: number;
  readonly opensAhead: boolean;
}

/** An object that is being written. */
export interface ObjectWriter {
  /** Appends bytes; no more than were announced. */
  write(source: PrivateBytes): Promise<void>;
  /** After this the object counts. All its bytes must have been written. */
  commit(isDurable: boolean): Promise<void>;
  /** Drops what was written, if it was not committed, and gives the room back. Never throws. */
  end(): Promise<void>;
}

const MIB = 2 ** 20;
const SEGMENT_BYTES_MAX = 16 * MIB;
/** A store of limited capacity has room for this many segments, so that cleaning finds some. */
const SEGMENT_COUNT_MIN = 32;
/** A segment holds at least this many objects of the longest packed length. */
const PACKED_COUNT_MIN = 8;
/** No object's: of the file that keeps room for deletions. */
const SPARE_KEY = "0".repeat(64);
/** Part of a limited capacity that may be kept for them. */
const SPARE_SHARE_MAX = 1 / 32;

export class OpenStore {
  readonly index: StoreIndex;
  readonly log: SegmentLog;
  readonly cleaner: SegmentCleaner;
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly #random: Random;
  readonly #capacityBytes: number;
  readonly #packedBytesMax: number;
  /** Room that only cleaning may use: without it a full store could not be cleaned. */
  readonly #cleaningSpareBytes: number;
  readonly #buffers: FrameBuffers;
  readonly #readers: FileReaders;
  readonly #idle: IdleFiles;
  readonly #spareRoom: SpareRoom;
  /** Files that do not count any more, and are still there. */
  readonly #replaced: StoredFile[] = [];
  /** Their removal while it is under way. */
  #removing: Promise<void> | null = null;
  readonly #condemned = new FailedDeletions();
  /** Bytes promised to writers that have not ended. */
  #pendingBytes = 0;
  #sequence: number;

  constructor(options: OpenStoreOptions) {
    const { files, directory, random, index, lastNumber, capacityBytes } = options;
    const segmentBytes = Math.min(SEGMENT_BYTES_MAX, capacityBytes / SEGMENT_COUNT_MIN);
    const packedBytesMax = segmentBytes / PACKED_COUNT_MIN - FRAME_HEADER_BYTES;
    this.index = index;
    this.#files = files;
    this.#directory = directory;
    this.#random = random;
    this.#capacityBytes = capacityBytes;
    this.#packedBytesMax = Math.min(options.packedBytesMax, packedBytesMax);
    const isCleanable = Number.isFinite(capacityBytes) && packedBytesMax > 0;
    // A full segment, with the tables of the two that it may be copied to.
    this.#cleaningSpareBytes = isCleanable ? 2 * segmentBytes : 0;
    this.#buffers = new FrameBuffers(options.bufferBytes);
    this.#sequence = index.lastSequence;
    this.#readers = new FileReaders(files, directory);
    this.#idle = new IdleFiles(files);
    this.#spareRoom = new SpareRoom(
      files,
      this.#temporaryPath(SPARE_KEY),
      options.spareRoomBytes <= capacityBytes * SPARE_SHARE_MAX ? options.spareRoomBytes : 0,
    );
    this.log = new SegmentLog({
      files,
      directory,
      random,
      segmentBytes,
      lastNumber,
      opensAhead: options.opensAhead,
      onOpened: (segment) => index.addSegment(segment),
      onClosed: (segment) => index.closeSegment(segment),
      onLost: (frame) => index.lose(frame),
      onStored: (frame) => this.#noteReplaced(index.put(frame)),
    });
    this.cleaner = new SegmentCleaner({
      index,
      segmentBytes,
      log: this.log,
      readers: this.#readers,
      share: options.cleaningShare,
      tryReserve: (bytes) => this.#tryReserve(bytes, 0),
      unreserve: (bytes) => this.#unreserve(bytes),
      removeEmptied: () => this.#removeEmptied(),
    });
  }

  /** Bytes on the device. */
  get physicalBytes(): number {
    return this.index.physicalBytes + this.#idle.byteLength + this.#spareRoom.byteLength;
  }

  /** @returns null when the object would exceed the capacity, and cleaning does not help. */
  async begin(key: TierKey, byteLength: number): Promise<ObjectWriter | null> {
    const isPacked = byteLength <= this.#packedBytesMax;
    const bytes = isPacked ? packedBytesOf(byteLength) : byteLength;
    if (!(await this.#reserve(bytes))) return null;
    try {
      const frame = isPacked ? await this.#takeFrame(frameBytesOf(byteLength)) : null;
      return frame === null
        ? await this.#beginFile(key, byteLength, bytes)
        : this.#beginFrame(key, byteLength, frame, bytes);
    } catch (error) {
      this.#unreserve(bytes);
      throw error;
    }
  }

  /** @returns null when there is no object of that key. */
  async openObject(key: TierKey): Promise<StoredObject | null> {
    if (this.#condemned.has(key)) await this.delete(key);
    return openStored(key, { index: this.index, readers: this.#readers });
  }

  /** @returns Whether there was an object. */
  async delete(key: TierKey): Promise<boolean> {
    const entry = this.index.find(key);
    await this.#condemned.attempt(key, async () => {
      // The tombstone first: without it an older object would count once the file is gone.
      if (this.index.hasShadow(key)) await this.#bury(key);
      else if (entry?.segment === null) await this.#removeFile(entry);
      else if (entry !== null) await this.#bury(key);
    });
    await this.settle();
    return entry !== null;
  }

  /** Keys of what can be found. */
  keys(): TierKey[] {
    return [...this.#condemned.without(this.index.keys())];
  }

  /** Takes an object out of the way. @returns Whether there was one. */
  async quarantine(key: TierKey): Promise<boolean> {
    const entry = this.index.find(key);
    if (entry === null) return false;
    const path = this.#path(`${key}.${randomName(this.#random)}.damaged`);
    if (entry.segment === null) {
      await this.#readers.drop(entry.name);
      await this.#files.rename(this.#path(entry.name), path).catch((error: unknown) => {
        if (systemCode(error) !== "ENOENT") throw error;
      });
      this.index.dropFile(entry);
      if (this.index.hasShadow(key)) await this.#bury(key);
    } else {
      const object = await this.openObject(key);
      if (object !== null) await copyAside(this.#files, object, path);
      await this.#bury(key);
    }
    await trimQuarantine(this.#files, this.#directory);
    await this.settle();
    return true;
  }

  /** What follows every change: files go that hold nothing, and cleaning begins if it is due. */
  async settle(): Promise<void> {
    // Nobody waits for files that were replaced, but who needs their room.
    this.#removeReplaced().catch(() => {});
    await this.#removeEmptied();
    await this.#spareRoom.take();
    this.cleaner.wake();
  }

  /** The device has no room: what is kept for later goes. @returns Whether that gave any. */
  async giveRoom(): Promise<boolean> {
    const physicalBytes = this.physicalBytes;
    await this.#removeReplaced();
    await this.#idle.clear();
    return this.physicalBytes < physicalBytes;
  }

  /** Cleans every segment that holds something dead. */
  async clean(): Promise<void> {
    await this.log.seal();
    await this.cleaner.makeRoom(() => false);
    await this.#removeReplaced();
    await this.#idle.clear();
    await this.settle();
  }

  /** Removes what need not be there at the next open. Every writer has ended. */
  async close(): Promise<void> {
    await this.cleaner.close();
    await this.#spareRoom.give();
    await this.#condemned.retry((key) => this.delete(key));
    await this.log.close();
    await this.settle();
    await this.#removeReplaced();
    await this.#idle.clear();
    await this.#remove(this.index.hollowSegments());
    await this.#removeEmptied();
    await this.#readers.close();
  }

  /** @param spareBytes Room to be left. */
  #tryReserve(bytes: number, spareBytes: number): boolean {
    const usedBytes = this.physicalBytes + this.#pendingBytes;
    if (usedBytes + bytes + spareBytes > this.#capacityBytes) return false;
    this.#pendingBytes += bytes;
    return true;
  }

  #unreserve(bytes: number): void {
    this.#pendingBytes -= bytes;
  }

  /** Reserves room, cleaning if that can give it. */
  async #reserve(bytes: number): Promise<boolean> {
    const spareBytes = this.#cleaningSpareBytes;
    if (this.#tryReserve(bytes, spareBytes)) return true;
    await this.#removeReplaced();
    if (this.#tryReserve(bytes, spareBytes)) return true;
    await this.#idle.clear();
    if (this.#tryReserve(bytes, spareBytes)) return true;
    const leastBytes = this.index.storedBytes + this.#pendingBytes + bytes + spareBytes;
    if (leastBytes > this.#capacityBytes) return false;
    let isReserved = false;
    await this.cleaner.makeRoom(() => {
      isReserved ||= this.#tryReserve(bytes, spareBytes);
      return isReserved;
    });
    return isReserved;
  }

  /** @returns null when so much is being built that this one is better written at once. */
  async #takeFrame(byteLength: number): Promise<PrivateBytes | null> {
    for (;;) {
      const frame = this.#buffers.tryTake(byteLength);
      if (frame !== null || !this.log.isBusy) return frame;
      await this.log.nextBatch();
    }
  }

  #beginFrame(
    key: TierKey,
    payloadBytes: number,
    frame: PrivateBytes,
    reservedBytes: number,
  ): ObjectWriter {
    let offset = FRAME_HEADER_BYTES;
    return {
      write: async (source) => {
        frame.set(source, offset);
        offset += source.byteLength;
      },
      commit: async (isAsked) => {
        const isDurable = isAsked || this.index.needsDurable(key);
        frame.fill(0, offset);
        const sequence = ++this.#sequence;
        this.cleaner.noteWritten(frame.byteLength);
        const kind = "object";
        await this.log.append({ kind, key, sequence, payloadBytes, isDurable, frame });
        this.#condemned.forget(key);
      },
      end: async () => {
        this.#unreserve(reservedBytes);
        this.#buffers.give(frame);
      },
    };
  }

  #temporaryPath(key: TierKey): string {
    return this.#path(`${key}.${randomName(this.#random)}.tmp`);
  }

  async #createFile(key: TierKey): Promise<WritableFile> {
    const path = this.#temporaryPath(key);
    return { path, file: await this.#files.create(path) };
  }

  async #beginFile(
    key: TierKey,
    payloadBytes: number,
    reservedBytes: number,
  ): Promise<ObjectWriter> {
    const { path, file } = this.#idle.take(payloadBytes) ?? (await this.#createFile(key));
    let offset = 0;
    /** What is to be removed unless the object is committed. */
    let leftPath: string | null = path;
    let isFileOpen = true;
    const closeFile = async () => {
      if (!isFileOpen) return;
      isFileOpen = false;
      await file.close();
    };
    return {
      write: async (source) => {
        if (file.writeBehind !== undefined) {
          await file.writeBehind(source, offset);
          offset += source.byteLength;
          return;
        }
        for (let done = 0; done < source.byteLength; ) {
          const rest = privatePart(source, done, source.byteLength);
          const count = await file.write([rest], offset);
          if (count === 0) throw new RangeError("the file took no bytes");
          done += count;
          offset += count;
        }
      },
      commit: async (isAsked) => {
        const isDurable = isAsked || this.index.needsDurable(key);
        await file.settle?.();
        // A descriptor whose sync failed is never synced again: the system has marked its pages
        // clean. The caller ends, and the next attempt is a new file.
        if (isDurable) await file.sync();
        const sequence = ++this.#sequence;
        const name = `${key}.${wideHex(sequence)}${isDurable ? ".durable" : ""}.tensor`;
        await this.#files.rename(path, this.#path(name));
        leftPath = this.#path(name);
        if (isDurable) await this.#files.syncDirectory(this.#directory);
        leftPath = null;
        isFileOpen = false;
        this.#readers.adopt(name, file, payloadBytes);
        const stored = { key, sequence, payloadBytes, isDurable, name };
        this.#noteReplaced(this.index.put({ ...stored, segment: null }));
        this.#condemned.forget(key);
      },
      end: async () => {
        this.#unreserve(reservedBytes);
        await closeFile().catch(() => {});
        // What cannot be removed is swept at the next open.
        if (leftPath !== null) await this.#files.remove(leftPath).catch(() => {});
      },
    };
  }

  #noteReplaced(file: StoredFile | null): void {
    if (file !== null) this.#replaced.push(file);
  }

  /** Removes the file of an object; where that fails, a tombstone says that it does not count. */
  async #removeFile(file: StoredFile): Promise<void> {
    await this.#readers.drop(file.name);
    try {
      await this.#files.remove(this.#path(file.name));
    } catch {
      return this.#bury(file.key);
    }
    this.index.dropFile(file);
    this.#spareRoom.noteRoom();
    if (file.isDurable) await this.#files.syncDirectory(this.#directory);
  }

  /** Removes files that do not count any more. Never rejects. */
  #removeReplaced(): Promise<void> {
    if (this.#replaced.length > 0) this.#removing ??= this.#removeThem();
    return this.#removing ?? Promise.resolve();
  }

  /** Keeps a file that does not count to be written again, or removes it. */
  async #giveBack(stored: StoredFile): Promise<void> {
    const { key, name, payloadBytes } = stored;
    const file = this.#idle.hasRoom(payloadBytes) ? this.#readers.giveUp(name) : null;
    if (file === null) {
      await this.#readers.drop(name);
      await this.#files.remove(this.#path(name));
      this.index.dropFile(stored);
      return;
    }
    // By its old name it would be found after a crash, with whatever is written into it by then.
    const path = this.#temporaryPath(key);
    try {
      await this.#files.rename(this.#path(name), path);
    } catch (error) {
      await file.close().catch(() => {});
      throw error;
    }
    this.index.dropFile(stored);
    this.#idle.give({ path, file }, payloadBytes);
  }

  async #removeThem(): Promise<void> {
    for (let file = this.#replaced.pop(); file !== undefined; file = this.#replaced.pop()) {
      try {
        await this.#giveBack(file);
      } catch {
        // It casts its shadow until the next open.
      }
    }
    this.#removing = null;
  }

  /** Writes the tombstone of a key; where there is no other room, in that of cleaning. */
  async #bury(key: TierKey): Promise<void> {
    const reservedBytes = packedBytesOf(0);
    const isReserved = (await this.#reserve(reservedBytes)) || this.#tryReserve(reservedBytes, 0);
    try {
      await this.#appendTombstone(key).catch(async (error: unknown) => {
        if (!isNoSpace(error)) throw error;
        const isGiven = await this.#spareRoom.give();
        if (!(await this.giveRoom()) && !isGiven) throw error;
        await this.#appendTombstone(key);
      });
    } finally {
      if (isReserved) this.#unreserve(reservedBytes);
    }
  }

  async #appendTombstone(key: TierKey): Promise<void> {
    const frame = privateBytes(FRAME_HEADER_BYTES);
    const sequence = ++this.#sequence;
    const isDurable = this.index.needsDurable(key);
    const kind = "tombstone";
    await this.log.append({ kind, key, sequence, payloadBytes: 0, isDurable, frame });
  }

  async #removeEmptied(): Promise<void> {
    // The last dead object of a key takes its tombstone with it, and that perhaps another segment.
    for (;;) {
      const emptied = this.index.takeEmptied();
      if (emptied.length === 0) return;
      await this.#remove(emptied);
    }
  }

  async #remove(segments: readonly Segment[]): Promise<void> {
    for (const segment of segments) {
      try {
        await this.#files.remove(this.#path(segment.name));
        this.index.dropSegment(segment);
        this.#spareRoom.noteRoom();
      } catch {
        // It is found again at the next open, with nothing in it.
      }
      await this.#readers.drop(segment.name);
    }
  }

  #path(name: string): string {
    return this.#files.join(this.#directory, name);
  }
}
