// A tier on IndexedDB: each object is a row of its own bytes, put in one transaction. Thin: objects
// are assembled in memory, so one object needs its own size twice while it is written or read.
//
// IndexedDB stores the whole buffer behind a view, hence private copies only.
import { type Clock, systemClock } from "../clock.js";
import { TierError } from "../errors.js";
import type { PrivateBytes } from "../util/private-bytes.js";
import { FailedDeletions } from "./failed-deletions.js";
import { TierMeter } from "./meter.js";
import type { Tier, TierKey } from "./tier.js";
import { takeWebLock } from "./web-lock.js";
import { wholeObjectWriter } from "./whole-object.js";

export interface IndexedDbTierOptions {
  /** Name of the database. */
  readonly database: string;
  /** Default: `"ssd"`. */
  readonly name?: string;
  /** Default: Infinity. */
  readonly capacityBytes?: number;
  /** Default: the platform's. */
  readonly indexedDB?: IDBFactory;
  /** Default: the platform's. Where there are none (insecure pages), nothing keeps two pages apart. */
  readonly locks?: LockManager;
  /** Default: 4000. How long another page's lock is waited for; Infinity: until that page has gone. */
  readonly waitMs?: number | undefined;
  readonly clock?: Clock;
  /**
   * Told when the database goes while it is open: deleted or upgraded by a page, cleared by the user or the browser.
   * The error is what every call throws from then on, `closed`.
   */
  readonly onLost?: ((error: TierError) => void) | undefined;
}

const WAIT_MS = 4000;
/** How long opening may take: it waits for deletions and upgrades that other pages have asked for. */
const OPEN_MS = 10_000;

const VERSION = 1;
const STORE = "objects";
/** Lengths of the objects by the same keys: the objects themselves are not read at open. */
const LENGTH_STORE = "lengths";
const DAMAGED_STORE = "damaged";

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
    transaction.onerror = () => reject(transaction.error);
  });
}

export function indexedDbTier(options: IndexedDbTierOptions): Tier {
  const name = options.name ?? "ssd";
  const factory = options.indexedDB ?? indexedDB;
  const meter = new TierMeter(options.capacityBytes ?? Number.POSITIVE_INFINITY);
  const locks = options.locks ?? (globalThis.navigator?.locks as LockManager | undefined);
  const { waitMs = WAIT_MS, clock = systemClock } = options;
  let database: IDBDatabase | null = null;
  /** Not by us. */
  let isLost = false;
  let unlock = () => {};
  const condemned = new FailedDeletions();

  const closed = (): TierError => {
    const lost = "the database was deleted, upgraded or cleared: make a new memory";
    return new TierError("closed", name, isLost ? lost : "the tier is closed");
  };
  const opened = (): IDBDatabase => {
    if (database === null) throw closed();
    return database;
  };
  const begin = (
    stores: string[],
    mode: IDBTransactionMode,
    options?: IDBTransactionOptions,
  ): IDBTransaction => {
    try {
      return opened().transaction(stores, mode, options);
    } catch (error) {
      throw failed(error, "the browser has closed the database");
    }
  };
  const failed = (error: unknown, message: string): TierError =>
    error instanceof TierError ? error : new TierError("io", name, message, { cause: error });

  const open = (): Promise<IDBDatabase> =>
    new Promise((resolve, reject) => {
      const request = factory.open(options.database, VERSION);
      let isLate = false;
      const forget = clock.defer(OPEN_MS, () => {
        isLate = true;
        reject(new TierError("busy", name, "another page is upgrading or deleting the database"));
      });
      request.onupgradeneeded = () => {
        request.result.createObjectStore(STORE);
        request.result.createObjectStore(LENGTH_STORE);
        request.result.createObjectStore(DAMAGED_STORE, { autoIncrement: true });
      };
      request.onerror = () => {
        forget();
        const isNewer = request.error?.name === "VersionError";
        reject(isNewer ? incompatible() : failed(request.error, "cannot open the database"));
      };
      request.onsuccess = () => {
        forget();
        // Nobody waits any more, and an open connection would be in others' way.
        if (isLate) request.result.close();
        else resolve(request.result);
      };
    });
  const incompatible = (): TierError =>
    new TierError("incompatible", name, `the database ${options.database} is not of this version`);

  const learn = async (from: IDBDatabase): Promise<void> => {
    const stores = [STORE, LENGTH_STORE, DAMAGED_STORE];
    if (!stores.every((each) => from.objectStoreNames.contains(each))) throw incompatible();
    try {
      const store = from.transaction(LENGTH_STORE).objectStore(LENGTH_STORE);
      const [keys, lengths] = await Promise.all([
        settled(store.getAllKeys()),
        settled<number[]>(store.getAll()),
      ]);
      for (const [index, key] of keys.entries()) {
        meter.put(key as TierKey, lengths[index] as number);
      }
    } catch (error) {
      throw failed(error, "cannot list the database");
    }
  };

  const remove = (key: TierKey): Promise<void> =>
    condemned.attempt(key, async () => {
      const transaction = begin([STORE, LENGTH_STORE], "readwrite");
      try {
        transaction.objectStore(STORE).delete(key);
        transaction.objectStore(LENGTH_STORE).delete(key);
        await completed(transaction);
      } catch (error) {
        throw failed(error, "cannot delete an object");
      }
      meter.forget(key);
    });

  return {
    name,
    capabilities: {
      isPersistent: true,
      hasDurableCommit: true,
      needsReadBack: true,
      readsInPlace: false,
    },
    open: async () => {
      if (database !== null) return;
      isLost = false;
      if (locks !== undefined) {
        const release = await takeWebLock(locks, `tierheap/${options.database}`, waitMs, clock);
        if (release === null) {
          throw new TierError("busy", name, "another page or worker holds the database: close it");
        }
        unlock = release;
      }
      try {
        const found = await open();
        const lose = () => {
          found.close();
          const wasOpen = database === found;
          isLost = true;
          database = null;
          unlock();
          if (wasOpen) options.onLost?.(closed());
        };
        found.onversionchange = lose;
        // The browser cleared the origin, or its storage failed.
        found.onclose = lose;
        try {
          await learn(found);
        } catch (error) {
          found.close();
          throw error;
        }
        if (isLost) opened();
        database = found;
      } catch (error) {
        unlock();
        throw error;
      }
    },
    begin: async (key, byteLength) =>
      wholeObjectWriter({
        name,
        key,
        byteLength,
        meter,
        check: opened,
        publish: async (object, { durable }) => {
          const transaction = begin([STORE, LENGTH_STORE], "readwrite", {
            durability: durable ? "strict" : "relaxed",
          });
          try {
            transaction.objectStore(STORE).put(object, key);
            transaction.objectStore(LENGTH_STORE).put(byteLength, key);
            await completed(transaction);
          } catch (error) {
            if ((error as DOMException | null)?.name === "QuotaExceededError") return "no-space";
            throw failed(error, "cannot store an object");
          }
          condemned.forget(key);
          return "stored";
        },
      }),
    openRead: async (key) => {
      if (condemned.has(key)) await remove(key);
      const request = begin([STORE], "readonly").objectStore(STORE).get(key);
      meter.openReadCount += 1;
      let object: PrivateBytes | undefined;
      try {
        object = (await settled(request)) as PrivateBytes | undefined;
      } catch (error) {
        throw failed(error, "cannot read an object");
      }
      if (object === undefined) return null;
      const bytes = object;
      return {
        byteLength: bytes.byteLength,
        read: async (offset, target) => {
          opened();
          const part = bytes.subarray(offset, offset + target.byteLength);
          target.set(part);
          meter.bytesRead += part.byteLength;
          return part.byteLength;
        },
        close: async () => {},
      };
    },
    delete: async (key) => {
      const existed = meter.has(key) && !condemned.has(key);
      opened();
      await remove(key);
      meter.deleteCount += 1;
      return existed;
    },
    quarantine: async (key: TierKey) => {
      const stores = [STORE, LENGTH_STORE, DAMAGED_STORE];
      const transaction = begin(stores, "readwrite");
      const store = transaction.objectStore(STORE);
      try {
        const object = await settled(store.get(key));
        if (object !== undefined) transaction.objectStore(DAMAGED_STORE).put(object);
        store.delete(key);
        transaction.objectStore(LENGTH_STORE).delete(key);
        await completed(transaction);
      } catch (error) {
        throw failed(error, "cannot quarantine an object");
      }
      meter.forget(key);
      meter.quarantinedCount += 1;
    },
    list: async function* () {
      opened();
      yield* condemned.without(meter.keys());
    },
    stats: () => meter.stats(),
    close: async () => {
      if (database !== null) await condemned.retry(remove);
      database?.close();
      database = null;
      unlock();
    },
  };
}
