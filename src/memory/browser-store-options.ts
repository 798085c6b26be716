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
}

/** @throws {MisuseError} `bad-option`. */
export function checkBrowserStore(options: unknown): BrowserStoreOptions {
  const known = ["store", "createWorker", "persist"];
  const { store, createWorker, persist } = checkObject(options, "ssd.browser", known);
  if (store !== undefined && !["auto", "opfs", "indexeddb"].includes(store as string)) {
    throw new MisuseError("bad-option", 'ssd.browser.store is "auto", "opfs" or "indexeddb"');
  }
  if (createWorker !== undefined && typeof createWorker !== "function") {
    throw new MisuseError("bad-option", "ssd.browser.createWorker is a function");
  }
  checkFlag(persist, "ssd.browser.persist");
  return options as BrowserStoreOptions;
}
