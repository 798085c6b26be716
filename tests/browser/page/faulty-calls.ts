// Makes calls of the platform fail when they are told to: those of the private file system in a worker,
// and those of IndexedDB in a page.

/** Which calls fail, and how. */
export interface FaultPlan {
  /** The call that fails, counted from 1. */
  readonly at: number;
  /** Every later call fails too. */
  readonly isForEver: boolean;
  /** Name of the platform's error. */
  readonly error: string;
  /** A write that fails has written a part. */
  readonly isShort: boolean;
}

export interface FaultReport {
  /** Names of the calls that failed. */
  readonly hits: readonly string[];
  readonly callCount: number;
}

type Method = (...parameters: unknown[]) => unknown;

let plan: FaultPlan | null = null;
let callCount = 0;
let hits: string[] = [];

export function beginFaults(given: FaultPlan): void {
  plan = given;
  callCount = 0;
  hits = [];
}

export function endFaults(): FaultReport {
  plan = null;
  return { hits, callCount };
}

/** The error that this call fails with, or null when it works. */
function faultOf(call: string): DOMException | null {
  if (plan === null) return null;
  callCount += 1;
  const isHit = plan.isForEver ? callCount >= plan.at : callCount === plan.at;
  if (!isHit) return null;
  hits.push(call);
  return new DOMException("injected", plan.error);
}

/** Replaces a method by one that asks `fail` first what to do instead. */
function wrap(
  owner: object,
  name: string,
  fail: (error: DOMException, original: Method, self: unknown, given: unknown[]) => unknown,
  isCounted: (given: unknown[]) => boolean = () => true,
): void {
  const methods = owner as Record<string, Method>;
  const original = methods[name] as Method;
  methods[name] = function (this: unknown, ...given: unknown[]) {
    const error = isCounted(given) ? faultOf(name) : null;
    if (error === null) return original.apply(this, given);
    return fail(error, original, this, given);
  };
}

/** In a worker: what changes files. */
export function wrapFiles(): void {
  const throws = (error: DOMException): never => {
    throw error;
  };
  const { FileSystemSyncAccessHandle: SyncHandle } = globalThis as unknown as {
    FileSystemSyncAccessHandle: { readonly prototype: object };
  };
  wrap(SyncHandle.prototype, "write", (error, original, self, [bytes, options]) => {
    if (plan?.isShort !== true || !(bytes instanceof Uint8Array)) throw error;
    return original.call(self, bytes.subarray(0, bytes.byteLength >> 1), options);
  });
  wrap(SyncHandle.prototype, "flush", throws);
  const rejects = (error: DOMException) => Promise.reject(error);
  // What is removed or only opened needs no space.
  const isNoQuota = () => plan?.error !== "QuotaExceededError";
  const creates = ([, options]: unknown[]) => (options as { create?: boolean })?.create === true;
  wrap(FileSystemDirectoryHandle.prototype, "getFileHandle", rejects, creates);
  wrap(FileSystemDirectoryHandle.prototype, "removeEntry", rejects, isNoQuota);
  wrap(FileSystemFileHandle.prototype, "createSyncAccessHandle", rejects, isNoQuota);
  wrap(FileSystemFileHandle.prototype, "move", rejects);
}

/** In a page: what changes a database. A request is aborted as the browser does it at its quota. */
export function wrapDatabases(): void {
  const aborts = (error: DOMException, original: Method, self: unknown, given: unknown[]) => {
    const request = original.apply(self, given) as IDBRequest;
    const { transaction } = self as IDBObjectStore;
    request.addEventListener("success", () => {
      Object.defineProperty(transaction, "error", { value: error });
      transaction.abort();
    });
    return request;
  };
  wrap(IDBObjectStore.prototype, "put", aborts);
  wrap(IDBObjectStore.prototype, "delete", aborts);
  const throws = (error: DOMException): never => {
    throw error;
  };
  // No browser refuses a transaction for want of space.
  wrap(IDBDatabase.prototype, "transaction", throws, () => plan?.error !== "QuotaExceededError");
}
