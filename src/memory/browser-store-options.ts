// What callers may say about the store of a browser, and its validation.
import { MisuseError } from "../errors.js";
import { checkFlag, checkObject } from "./checks.js";

/** What a browser keeps the SSD tier in. */
export interface BrowserStoreOptions {
  /**
   * `"opfs"`: files of the origin, opened by a worker. `"indexeddb"`: a database named as the directory.
   * Default: `"auto"`, the database if there is one of that name; else files where they work, else the
   * database, else nothing. What does not work is told by a `tier-unavailable` event.
   */
  readonly store?: "auto" | "opfs" | "indexeddb" | undefined;
  /**
   * Starts the worker for `"opfs"`, whose module is `tierheap/opfs-worker`: for pages whose security policy
   * forbids `blob:`. Default: the worker is started from a text in the package.
   */
  readonly createWorker?: (() => Worker) | undefined;
  /** Asks the browser not to evict the origin's data by itself. Default: false. */
  readonly persist?: boolean | undefined;
  /**
   * How long to wait for another page of the origin that holds the store, in milliseconds. After that `createTensorMemory` fails
   * with `TierError busy`. Default: 4000, in which a page that was left ends. Infinity: until the other page has gone.
   */
  readonly waitMs?: number | undefined;
}

/** @throws {MisuseError} `bad-option`. */
export function checkBrowserStore(options: unknown): BrowserStoreOptions {
  const known = ["store", "createWorker", "persist", "waitMs"];
  const { store, createWorker, persist, waitMs } = checkObject(options, "ssd.browser", known);
  if (store !== undefined && !["auto", "opfs", "indexeddb"].includes(store as string)) {
    throw new MisuseError("bad-option", 'ssd.browser.store is "auto", "opfs" or "indexeddb"');
  }
  if (createWorker !== undefined && typeof createWorker !== "function") {
    throw new MisuseError("bad-option", "ssd.browser.createWorker is a function");
  }
  if (waitMs !== undefined && !(typeof waitMs === "number" && waitMs >= 0)) {
    throw new MisuseError("bad-option", "ssd.browser.waitMs is a number of milliseconds from 0 on");
  }
  checkFlag(persist, "ssd.browser.persist");
  return options as BrowserStoreOptions;
}
