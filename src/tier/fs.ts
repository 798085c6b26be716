// The SSD tier on a file system: one file per object in one directory, written beside its final
// name and renamed into place. Knows nothing of records.
//
//   <key>.tensor              a committed object
//   <key>.<random>.tmp        being written; swept at open, since the lock says its writer is dead
//   <key>.<random>.damaged    quarantined; some go when there are too many
//   lock.<number>             identity of the process that holds the directory; only the highest counts
//
// Other files are left alone.
//
// Source: Thanumalayan Sankaranarayana Pillai et al., "All File Systems Are Not Created Equal",
// OSDI 2014 — why a rename needs the file's and the directory's fsync around it.
import { TierError, type TierErrorCode } from "../errors.js";
import { type Random, randomName, systemRandom } from "../random.js";
import { type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { FileLock, FileReader, FileSystem } from "./file-system.js";
import { TierMeter } from "./meter.js";
import type { Tier, TierCapabilities, TierKey, TierReader, TierStats, TierWriter } from "./tier.js";

export interface FsTierOptions {
  readonly directory: string;
  readonly fileSystem: FileSystem;
  /** Default: `"ssd"`. */
  readonly name?: string;
  /** Default: Infinity. Most physical bytes of committed objects. */
  readonly capacityBytes?: number;
  readonly random?: Random;
}

const OBJECT_NAME = /^([0-9a-f]{64})\.tensor$/;
const TEMPORARY_NAME = /^[0-9a-f]{64}\.[0-9a-f]{32}\.tmp$/;
const DAMAGED_NAME = /^[0-9a-f]{64}\.[0-9a-f]{32}\.damaged$/;
/** Quarantined files kept as evidence. */
const DAMAGED_COUNT_MAX = 16;

const NO_SPACE_CODES = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
const BUSY_CODES = new Set(["EMFILE", "ENFILE", "EBUSY", "EAGAIN"]);

function systemCode(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

export class FsTier implements Tier {
  readonly name: string;
  readonly capabilities: TierCapabilities = { isPersistent: true, hasDurableCommit: true };
  readonly #directory: string;
  readonly #files: FileSystem;
  readonly #random: Random;
  readonly #meter: TierMeter;
  readonly #writers = new Set<TierWriter>();
  #lock: FileLock | null = null;
  #isOpen = false;

  constructor(options: FsTierOptions) {
    this.name = options.name ?? "ssd";
    this.#directory = options.directory;
    this.#files = options.fileSystem;
    this.#random = options.random ?? systemRandom;
    this.#meter = new TierMeter(options.capacityBytes ?? Number.POSITIVE_INFINITY);
  }

  async open(): Promise<void> {
    if (this.#isOpen) return;
    try {
      await this.#files.makeDirectory(this.#directory);
      this.#lock = await this.#files.tryLock(this.#path("lock"));
      if (this.#lock === null) {
        throw new TierError(
          "busy",
          this.name,
          `the directory ${this.#directory} is in use by another memory or process; wait for it or choose another directory`,
        );
      }
      await this.#scan();
      this.#isOpen = true;
    } catch (error) {
      await this.#lock?.release().catch(() => {});
      this.#lock = null;
      throw this.#translate(error, `cannot open the directory ${this.#directory}`);
    }
  }

  async begin(key: TierKey, byteLength: number): Promise<TierWriter | "no-space"> {
    this.#checkOpen();
    if (!this.#meter.tryBegin(byteLength)) return "no-space";
    const path = this.#path(`${key}.${randomName(this.#random)}.tmp`);
    let file: Awaited<ReturnType<FileSystem["create"]>>;
    try {
      file = await this.#files.create(path);
    } catch (error) {
      this.#meter.end(byteLength);
      return this.#noSpaceOr(error, "cannot create a file");
    }
    let written = 0;
    let isFileOpen = true;
    let isEnded = false;
    const closeFile = async () => {
      if (!isFileOpen) return;
      isFileOpen = false;
      await file.close();
    };
    const end = () => {
      if (isEnded) return;
      isEnded = true;
      this.#writers.delete(writer);
      this.#meter.end(byteLength);
    };
    const writer: TierWriter = {
      write: async (source) => {
        this.#checkOpen();
        try {
          let done = 0;
          while (done < source.byteLength) {
            const rest = privatePart(source, done, source.byteLength);
            const count = await file.write(rest, written);
            if (count === 0) throw new TierError("io", this.name, "the file took no bytes");
            done += count;
            written += count;
            this.#meter.bytesWritten += count;
          }
          return "written";
        } catch (error) {
          return this.#noSpaceOr(error, "cannot write a file");
        }
      },
      commit: async ({ durable }) => {
        this.#checkOpen();
        if (written !== byteLength) {
          throw new TierError("io", this.name, `${written} of ${byteLength} bytes were written`);
        }
        try {
          // A descriptor whose sync failed is never synced again: the system has marked its pages
          // clean. The caller aborts, and the next attempt is a new file.
          if (durable) await file.sync();
          await closeFile();
          await this.#files.rename(path, this.#objectPath(key));
        } catch (error) {
          return this.#noSpaceOr(error, "cannot publish a file");
        }
        end();
        this.#meter.put(key, byteLength);
        this.#meter.commitCount += 1;
        try {
          if (durable) await this.#files.syncDirectory(this.#directory);
        } catch (error) {
          throw this.#translate(error, "the object is published but may not survive power loss");
        }
        return "stored";
      },
      abort: async () => {
        if (isEnded) return;
        end();
        // Nothing of the object is visible; what cannot be removed is swept at the next open.
        await closeFile().catch(() => {});
        await this.#files.remove(path).catch(() => {});
      },
    };
    this.#writers.add(writer);
    return writer;
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    this.#checkOpen();
    this.#meter.openReadCount += 1;
    let file: FileReader | null;
    try {
      file = await this.#files.openRead(this.#objectPath(key));
    } catch (error) {
      throw this.#translate(error, "cannot open a file");
    }
    if (file === null) return null;
    const reader = file;
    return {
      byteLength: reader.byteLength,
      read: (offset, target) => this.#readFully(reader, offset, target),
      close: async () => {
        await reader.close().catch(() => {});
      },
    };
  }

  async delete(key: TierKey): Promise<boolean> {
    this.#checkOpen();
    try {
      const existed = await this.#files.remove(this.#objectPath(key));
      this.#meter.forget(key);
      this.#meter.deleteCount += 1;
      return existed;
    } catch (error) {
      throw this.#translate(error, "cannot remove a file");
    }
  }

  async quarantine(key: TierKey): Promise<void> {
    this.#checkOpen();
    try {
      const path = this.#path(`${key}.${randomName(this.#random)}.damaged`);
      await this.#files.rename(this.#objectPath(key), path);
      this.#meter.quarantinedCount += 1;
      await this.#trimQuarantine();
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw this.#translate(error, "cannot quarantine a file");
    }
    this.#meter.forget(key);
  }

  async *list(): AsyncGenerator<TierKey> {
    this.#checkOpen();
    yield* this.#meter.keys();
  }

  stats(): TierStats {
    return this.#meter.stats();
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const writer of [...this.#writers]) await writer.abort();
    await this.#lock?.release().catch(() => {});
    this.#lock = null;
  }

  /** Learns what is there and sweeps what a dead writer left. */
  async #scan(): Promise<void> {
    for (const { name, byteLength } of await this.#files.list(this.#directory)) {
      const key = OBJECT_NAME.exec(name)?.[1];
      if (key !== undefined) this.#meter.put(key, byteLength);
      else if (TEMPORARY_NAME.test(name)) await this.#files.remove(this.#path(name));
    }
  }

  async #trimQuarantine(): Promise<void> {
    const files = await this.#files.list(this.#directory);
    const damaged = files.filter(({ name }) => DAMAGED_NAME.test(name));
    for (const { name } of damaged.slice(DAMAGED_COUNT_MAX)) {
      await this.#files.remove(this.#path(name));
    }
  }

  async #readFully(file: FileReader, offset: number, target: PrivateBytes): Promise<number> {
    this.#checkOpen();
    try {
      let done = 0;
      while (done < target.byteLength) {
        const rest = privatePart(target, done, target.byteLength);
        const count = await file.read(rest, offset + done);
        if (count === 0) break;
        done += count;
      }
      this.#meter.bytesRead += done;
      return done;
    } catch (error) {
      throw this.#translate(error, "cannot read a file");
    }
  }

  #noSpaceOr(error: unknown, message: string): "no-space" {
    if (NO_SPACE_CODES.has(systemCode(error))) {
      this.#meter.noSpaceCount += 1;
      return "no-space";
    }
    throw this.#translate(error, message);
  }

  #translate(error: unknown, message: string): TierError {
    if (error instanceof TierError) return error;
    const code = systemCode(error);
    const kind: TierErrorCode = BUSY_CODES.has(code) ? "busy" : "io";
    return new TierError(kind, this.name, `${message}${code && ` (${code})`}`, { cause: error });
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tier is closed");
  }

  #path(name: string): string {
    return this.#files.join(this.#directory, name);
  }

  #objectPath(key: TierKey): string {
    return this.#path(`${key}.tensor`);
  }
}
