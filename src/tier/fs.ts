// The SSD tier on a file system: short objects packed into segments, long ones in files of their own.
// Knows nothing of records. Format and protocols are written down in docs/record-format.md; what is
// in the directory is the open store's business, and this file's is who may call and what fails how.
import { TierError } from "../errors.js";
import { type Random, systemRandom } from "../random.js";
import { isNoSpace, tierErrorOf } from "./file-errors.js";
import type { FileLock, FileSystem } from "./file-system.js";
import { TierCounters } from "./meter.js";
import { type ObjectWriter, OpenStore } from "./open-store.js";
import { openStore } from "./store-opening.js";
import type { Tier, TierCapabilities, TierKey, TierReader, TierStats, TierWriter } from "./tier.js";

export interface FsTierOptions {
  readonly directory: string;
  readonly fileSystem: FileSystem;
  /** Default: `"ssd"`. */
  readonly name?: string;
  /** Default: Infinity. Most physical bytes. */
  readonly capacityBytes?: number;
  /**
   * Default: 4 MiB. Memory for packed objects that are being built or wait to be written. More of it
   * lets more of them share one sync.
   */
  readonly bufferBytes?: number;
  /** Default: 256 KiB. Objects up to this length are packed, fewer where the capacity is small. */
  readonly packedBytesMax?: number;
  /** Default: 0.5. Bytes that cleaning in the background may write per byte that callers write. */
  readonly cleaningShare?: number;
  /** Default: 0. Room on the device that is kept for deletions, where the capacity is many times that. */
  readonly spareRoomBytes?: number;
  /** Default: false. Whether the next segment's file is made before it is needed: for files that take long to open. */
  readonly opensAhead?: boolean;
  readonly random?: Random;
}

const BUFFER_BYTES = 2 ** 22;
const PACKED_BYTES_MAX = 2 ** 18;
const CLEANING_SHARE = 0.5;

export class FsTier implements Tier {
  readonly name: string;
  readonly capabilities: TierCapabilities = {
    isPersistent: true,
    hasDurableCommit: true,
    // The system would answer from its cache, whatever the device has.
    needsReadBack: false,
    readsInPlace: true,
  };
  readonly #options: FsTierOptions;
  readonly #files: FileSystem;
  readonly #capacityBytes: number;
  readonly #counters = new TierCounters();
  readonly #writers = new Set<TierWriter>();
  #lock: FileLock | null = null;
  #store: OpenStore | null = null;
  #isOpen = false;

  constructor(options: FsTierOptions) {
    this.name = options.name ?? "ssd";
    this.#options = options;
    this.#files = options.fileSystem;
    this.#capacityBytes = options.capacityBytes ?? Number.POSITIVE_INFINITY;
  }

  async open(): Promise<void> {
    if (this.#isOpen) return;
    const { directory } = this.#options;
    try {
      await this.#files.makeDirectory(directory);
      this.#lock = await this.#files.tryLock(this.#files.join(directory, "lock"));
      if (this.#lock === null) {
        throw new TierError(
          "busy",
          this.name,
          `the directory ${directory} is in use by another memory or process; wait for it or choose another directory`,
        );
      }
      this.#store = await this.#openStore();
      this.#isOpen = true;
    } catch (error) {
      await this.#lock?.release().catch(() => {});
      this.#lock = null;
      throw this.#translate(error, `cannot open the directory ${directory}`);
    }
  }

  async begin(key: TierKey, byteLength: number): Promise<TierWriter | "no-space"> {
    const store = this.#opened();
    let writer: ObjectWriter | null;
    try {
      writer = await store.begin(key, byteLength);
    } catch (error) {
      return this.#noSpaceOr(store, error, "cannot create a file");
    }
    if (writer === null) {
      this.#counters.noSpaceCount += 1;
      return "no-space";
    }
    if (!this.#isOpen) await writer.end();
    this.#opened();
    return this.#track(store, writer, byteLength);
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    const store = this.#opened();
    this.#counters.openReadCount += 1;
    try {
      const object = await store.openObject(key);
      if (object === null) return null;
      return {
        byteLength: object.byteLength,
        read: async (offset, ...targets) => {
          this.#opened();
          try {
            const count = await object.read(offset, ...targets);
            this.#counters.bytesRead += count;
            return count;
          } catch (error) {
            throw this.#translate(error, "cannot read a file");
          }
        },
        close: () => object.close().catch(() => {}),
      };
    } catch (error) {
      throw this.#translate(error, "cannot open a file");
    }
  }

  async delete(key: TierKey): Promise<boolean> {
    const store = this.#opened();
    try {
      const existed = await store.delete(key);
      this.#counters.deleteCount += 1;
      return existed;
    } catch (error) {
      throw this.#translate(error, "cannot delete an object");
    }
  }

  async quarantine(key: TierKey): Promise<void> {
    const store = this.#opened();
    try {
      if (await store.quarantine(key)) this.#counters.quarantinedCount += 1;
    } catch (error) {
      throw this.#translate(error, "cannot quarantine an object");
    }
  }

  async *list(): AsyncGenerator<TierKey> {
    yield* this.#opened().keys();
  }

  stats(): TierStats {
    const index = this.#store?.index;
    return {
      ...this.#counters.counts(),
      objectCount: index?.objectCount ?? 0,
      storedBytes: index?.storedBytes ?? 0,
      physicalBytes: this.#store?.physicalBytes ?? 0,
      capacityBytes: this.#capacityBytes,
    };
  }

  /** Syncs of packed objects so far, and bytes that cleaning has written. */
  storeStats(): { readonly syncCount: number; readonly cleanedBytes: number } {
    const { log, cleaner } = this.#opened();
    return { syncCount: log.syncCount, cleanedBytes: cleaner.writtenBytes };
  }

  /** Gives back the room of all that is dead. Copies what counts in segments that hold some. */
  async clean(): Promise<void> {
    await this.#opened().clean();
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const writer of [...this.#writers]) await writer.abort();
    await this.#store?.close();
    await this.#lock?.release().catch(() => {});
    this.#lock = null;
  }

  async #openStore(): Promise<OpenStore> {
    const { directory, random = systemRandom } = this.#options;
    const files = this.#files;
    const store = new OpenStore({
      ...(await openStore({ files, directory, tier: this.name })),
      files,
      directory,
      random,
      capacityBytes: this.#capacityBytes,
      bufferBytes: this.#options.bufferBytes ?? BUFFER_BYTES,
      packedBytesMax: this.#options.packedBytesMax ?? PACKED_BYTES_MAX,
      cleaningShare: this.#options.cleaningShare ?? CLEANING_SHARE,
      spareRoomBytes: this.#options.spareRoomBytes ?? 0,
      opensAhead: this.#options.opensAhead ?? false,
    });
    await store.settle();
    return store;
  }

  /** Counts what goes through a writer, and keeps it from more than was announced. */
  #track(store: OpenStore, writer: ObjectWriter, byteLength: number): TierWriter {
    let writtenBytes = 0;
    let isEnded = false;
    let committing: Promise<void> = Promise.resolve();
    const end = async () => {
      if (isEnded) return;
      isEnded = true;
      this.#writers.delete(tracked);
      await writer.end();
    };
    const tracked: TierWriter = {
      write: async (source) => {
        this.#opened();
        if (writtenBytes + source.byteLength > byteLength) {
          throw new TierError("io", this.name, "the object is longer than announced");
        }
        try {
          await writer.write(source);
        } catch (error) {
          return this.#noSpaceOr(store, error, "cannot write a file");
        }
        writtenBytes += source.byteLength;
        this.#counters.bytesWritten += source.byteLength;
        return "written";
      },
      commit: async ({ durable }) => {
        this.#opened();
        if (writtenBytes !== byteLength) {
          throw new TierError(
            "io",
            this.name,
            `${writtenBytes} of ${byteLength} bytes were written`,
          );
        }
        try {
          committing = writer.commit(durable);
          await committing;
        } catch (error) {
          return this.#noSpaceOr(store, error, "cannot commit an object");
        }
        await end();
        this.#counters.commitCount += 1;
        await store.settle();
        return "stored";
      },
      abort: async () => {
        await committing.catch(() => {});
        if (isEnded) return;
        await end();
        if (this.#isOpen) await store.settle();
      },
    };
    this.#writers.add(tracked);
    return tracked;
  }

  async #noSpaceOr(store: OpenStore, error: unknown, message: string): Promise<"no-space"> {
    if (isNoSpace(error)) {
      this.#counters.noSpaceCount += 1;
      // Who tries again finds more.
      await store.giveRoom();
      return "no-space";
    }
    throw this.#translate(error, message);
  }

  #translate(error: unknown, message: string): TierError {
    return tierErrorOf(error, this.name, message);
  }

  #opened(): OpenStore {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tier is closed");
    return this.#store as OpenStore;
  }
}
