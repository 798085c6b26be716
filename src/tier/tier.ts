// Seam: a level of storage below the arenas. A tier stores opaque objects under keys of 64
// hexadecimal digits; what the bytes mean, and whether they are intact, is for the record layer.
//
// Order of calls: open once, then any, then close once. Objects are written whole through a writer
// and become visible at its commit, replacing any object of that key; until then, and after an
// abort or a crash, the old object is what a reader finds. Operations on one key are serialised by
// the caller; those on different keys may overlap.
import type { Clock } from "../clock.js";
import type { Random } from "../random.js";
import type { ErrorLimit } from "../types.js";
import type { PrivateBytes } from "../util/private-bytes.js";

/** 64 lower-case hexadecimal digits. */
export type TierKey = string;

export interface TierCapabilities {
  /** Objects outlive the process. */
  readonly isPersistent: boolean;
  /** A durable commit survives power loss. */
  readonly hasDurableCommit: boolean;
  /**
   * What was written is read back and verified before it is relied on. Not where the answer would come
   * from the memory that the write went to.
   */
  readonly needsReadBack: boolean;
  /**
   * A reader may be given several targets at once, and views of linear or shared memory. It touches none
   * after its read has settled, whatever comes of it.
   */
  readonly readsInPlace: boolean;
  /** Bytes that a writer is best given at once, where each write costs much. Default: 256 KiB. */
  readonly preferredWriteBytes?: number | undefined;
}

/** What a caller may tell about an object beforehand. Only stacked tiers look at it. */
export interface ObjectHints {
  /** What it is for; objects of one kind are taken to behave alike. */
  readonly kind: string;
  /** It will be committed durably. */
  readonly isDurable: boolean;
  /** It has to outlive the process. */
  readonly isSaved: boolean;
  /** When it loses its worth, in milliseconds since 1970; 0: never. A tier may drop it from then on. */
  readonly expiresMs: number;
  /**
   * How much of a record's tensor may change, counted from the original, if it is coded anew on its way to a colder
   * tier. Default: null: it stays as it is.
   */
  readonly recoding?: ErrorLimit | "exact" | null;
}

export interface TierStats {
  readonly objectCount: number;
  /** Bytes of committed objects. */
  readonly storedBytes: number;
  /** Bytes that the tier occupies: with framing, and with what is dead but not cleaned yet. */
  readonly physicalBytes: number;
  /** Most physical bytes that the tier may hold; Infinity when unlimited. */
  readonly capacityBytes: number;
  readonly bytesWritten: number;
  readonly bytesRead: number;
  readonly commitCount: number;
  readonly openReadCount: number;
  readonly deleteCount: number;
  readonly noSpaceCount: number;
  readonly quarantinedCount: number;
}

export interface TierWriter {
  /**
   * Appends bytes to the object.
   *
   * @param source Private memory: the platform may read it until the promise settles.
   * @throws {TierError} `io`, `closed`.
   */
  write(source: PrivateBytes): Promise<"written" | "no-space">;
  /**
   * Publishes the object. Must not be called after a refused or failed write.
   *
   * @param options.durable The object survives power loss once the promise resolves.
   * @throws {TierError} `io`, `closed`; the old object is then unchanged.
   */
  commit(options: { readonly durable: boolean }): Promise<"stored" | "no-space">;
  /** Drops what was written. Never throws; harmless after commit. */
  abort(): Promise<void>;
}

export interface TierReader {
  readonly byteLength: number;
  /**
   * Fills the targets, one behind the other, from `offset` on.
   *
   * @param targets One, in private memory; any, where `capabilities.readsInPlace`.
   * @returns Bytes read; fewer than the targets hold only at the object's end.
   * @throws {TierError} `io`, `closed`.
   */
  read(offset: number, ...targets: PrivateBytes[]): Promise<number>;
  close(): Promise<void>;
}

export interface Tier {
  /** Short name for errors and statistics, such as `"ssd"`. */
  readonly name: string;
  readonly capabilities: TierCapabilities;
  /** @throws {TierError} `io`, `busy` — another process holds the store, `incompatible`. */
  open(): Promise<void>;
  /**
   * Starts an object of exactly `byteLength` bytes.
   *
   * @param hints Without them the object is taken to be durable, and to outlive the process.
   * @returns `"no-space"` when it would exceed the capacity.
   * @throws {TierError} `io`, `busy`, `closed`.
   */
  begin(key: TierKey, byteLength: number, hints?: ObjectHints): Promise<TierWriter | "no-space">;
  /** @returns null when there is no object of that key. @throws {TierError} `io`, `busy`, `closed`. */
  openRead(key: TierKey): Promise<TierReader | null>;
  /**
   * Deletes an object for good: whatever comes of the call, this tier does not find the object again.
   *
   * @returns Whether there was an object.
   * @throws {TierError} `io`, `closed`. After `io` the key has nothing to read, or reading it fails, until
   *   the deletion has been made up for: with the next use of the key, or at the latest when the tier is
   *   closed. What is stored under the key meanwhile counts.
   */
  delete(key: TierKey): Promise<boolean>;
  /** Takes a damaged object out of the way without destroying it. @throws {TierError} `io`. */
  quarantine(key: TierKey): Promise<void>;
  /** Keys of the committed objects, in no order. @throws {TierError} `io`, `closed`. */
  list(): AsyncIterable<TierKey>;
  stats(): TierStats;
  /** Waits for commits under way; open writers are aborted. May be called again. */
  close(): Promise<void>;
}

/** Makes a tier out of what the memory has chosen for it. */
export type TierFactory = (parts: {
  /** Physical bytes at most; Infinity: no limit. */
  readonly capacityBytes: number;
  readonly clock: Clock;
  readonly random: Random;
}) => Tier;
