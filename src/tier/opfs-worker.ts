// The far side of the OPFS tier: runs in a worker, the only place with synchronous file handles.
// scripts/build.mjs bundles it into one text, from which the page starts it.
//
// OPFS locks a file while it is open, so all who have it open share one handle here. A file that is
// renamed meanwhile is closed and opened again, and one that is replaced or removed is copied into memory
// first: as on other file systems it stays readable for those who have it open.
import { systemClock } from "../clock.js";
import type {
  Failure,
  Moved,
  OpfsReply,
  OpfsRequest,
  PartsRead,
  ReadPart,
} from "./opfs-messages.js";
import { takeWebLock } from "./web-lock.js";

/** What the standard has and the compiler's library has not. */
interface SyncHandle {
  read(target: Uint8Array, options: { readonly at: number }): number;
  write(source: Uint8Array, options: { readonly at: number }): number;
  getSize(): number;
  flush(): void;
  close(): void;
}
interface FileEntry extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<SyncHandle>;
  move(directory: FileSystemDirectoryHandle, name: string): Promise<void>;
}
type Directory = FileSystemDirectoryHandle & AsyncIterable<[string, FileSystemHandle]>;

interface OpenFile {
  path: string;
  /** null: its bytes are in `detached`, or it is being renamed. */
  handle: SyncHandle | null;
  detached: Uint8Array;
  isMoving: boolean;
  userCount: number;
}

interface Port {
  postMessage(message: OpfsReply, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<OpfsRequest>) => void) | null;
}

/**
 * A worker of a page that was left may write on for seconds, and keeps its locks for so long.
 */
const LEAVING_MS = 4000;
const RETRY_MS = 40;

const EMPTY = new Uint8Array(0);

/** What the errors of the platform are called on other file systems. */
const CODES = new Map([
  ["NotFoundError", "ENOENT"],
  ["QuotaExceededError", "ENOSPC"],
  ["NoModificationAllowedError", "EBUSY"],
  ["TypeMismatchError", "EISDIR"],
]);

class CodedError extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

const nameOf = (error: unknown) => (error as DOMException | null)?.name;

function codeOf(error: unknown): string {
  return error instanceof CodedError ? error.code : (CODES.get(nameOf(error) ?? "") ?? "EIO");
}

function failureOf(error: unknown): Failure {
  return { code: codeOf(error), message: error instanceof Error ? error.message : String(error) };
}

/** Tries again for as long as somebody who is leaving may hold what is wanted. */
async function outlast<T>(attempt: () => Promise<T | null>): Promise<T | null> {
  const endMs = systemClock.monotonicMs() + LEAVING_MS;
  for (;;) {
    const found = await attempt();
    if (found !== null || systemClock.monotonicMs() >= endMs) return found;
    await systemClock.sleep(RETRY_MS);
  }
}

async function openHandle(entry: FileEntry): Promise<SyncHandle> {
  const handle = await outlast(async () => {
    try {
      return await entry.createSyncAccessHandle();
    } catch (error) {
      if (nameOf(error) === "NoModificationAllowedError") return null;
      throw error;
    }
  });
  if (handle === null) throw new CodedError("EBUSY", "the file is held by another page");
  return handle;
}

class Files {
  readonly #named = new Map<string, OpenFile>();
  readonly #byNumber = new Map<number, OpenFile>();
  readonly #locks = new Map<string, () => void>();
  /**
   * As they were last found. Not for who makes a file, or wants to know whether one is still there: when a page's data
   * was cleared, Chromium answers nobody for seconds after an old handle was asked that.
   */
  readonly #directories = new Map<string, Directory>();
  #lastNumber = 0;

  async makeDirectory(path: string): Promise<void> {
    await this.#directory(path.split("/"), true);
  }

  async list(path: string): Promise<{ name: string; byteLength: number }[]> {
    const directory = await this.#directory(path.split("/"));
    const found: { name: string; byteLength: number }[] = [];
    for await (const [name, entry] of directory) {
      if (entry.kind !== "file") continue;
      const open = this.#named.get(`${path}/${name}`);
      const byteLength =
        open?.handle?.getSize() ?? (await (entry as FileSystemFileHandle).getFile()).size;
      found.push({ name, byteLength });
    }
    return found;
  }

  async create(path: string): Promise<number> {
    const { directory, name } = await this.#place(path, true);
    const exists = await directory.getFileHandle(name).then(
      () => true,
      (error: unknown) => {
        if (nameOf(error) !== "NotFoundError") throw error;
        return false;
      },
    );
    if (exists) throw new CodedError("EEXIST", `${path} exists`);
    const entry = (await directory.getFileHandle(name, { create: true })) as FileEntry;
    return this.#add(path, await openHandle(entry));
  }

  /** @returns null when there is no such file. */
  async openRead(path: string): Promise<{ number: number; byteLength: number } | null> {
    let number: number;
    const shared = this.#named.get(path);
    if (shared !== undefined) {
      number = this.#use(shared);
    } else {
      const entry = await this.#find(path);
      if (entry === null) return null;
      number = this.#add(path, await openHandle(entry));
    }
    const { handle, detached } = this.#file(number);
    return { number, byteLength: handle?.getSize() ?? detached.byteLength };
  }

  read(parts: readonly ReadPart[], target: Uint8Array<ArrayBuffer>): PartsRead {
    let start = 0;
    const outcomes = parts.map((part) => {
      const place = target.subarray(start, start + part.byteLength);
      start += part.byteLength;
      try {
        return this.#readPart(part, place);
      } catch (error) {
        return failureOf(error);
      }
    });
    return { outcomes, bytes: target };
  }

  write(number: number, source: Uint8Array<ArrayBuffer>, offset: number, isBehind: boolean): Moved {
    const handle = this.#handle(number);
    // A hole would be read as bytes that nobody wrote.
    const isHole = isBehind && handle.getSize() < offset;
    return { count: isHole ? 0 : handle.write(source, { at: offset }), bytes: source };
  }

  sync(number: number): void {
    this.#handle(number).flush();
  }

  /** Whether a file that is open has its name still: the user may have cleared the data, and its handle writes on. */
  async isThere(number: number): Promise<boolean> {
    const file = this.#byNumber.get(number);
    for (;;) {
      // What was removed, replaced or renamed from here has lost it rightly.
      if (file === undefined || file.handle === null) return true;
      const { path } = file;
      if ((await this.#find(path, true)) !== null) return true;
      if (file.handle !== null && file.path === path) return false;
    }
  }

  /** Whether its handle is on its way to another name. */
  isMoving(number: number): boolean {
    return this.#byNumber.get(number)?.isMoving === true;
  }

  close(number: number): void {
    const file = this.#byNumber.get(number);
    if (!this.#byNumber.delete(number) || file === undefined) return;
    file.userCount -= 1;
    if (file.userCount > 0) return;
    if (this.#named.get(file.path) === file) this.#named.delete(file.path);
    file.handle?.close();
    file.handle = null;
    file.detached = EMPTY;
  }

  async rename(sourcePath: string, targetPath: string): Promise<void> {
    const entry = await this.#find(sourcePath);
    if (entry === null) throw new CodedError("ENOENT", `there is no ${sourcePath}`);
    this.#detach(targetPath);
    const { directory, name } = await this.#place(targetPath);
    const open = this.#named.get(sourcePath);
    if (open === undefined) return entry.move(directory, name);
    open.isMoving = true;
    open.handle?.close();
    open.handle = null;
    try {
      await entry.move(directory, name);
      this.#named.delete(sourcePath);
      this.#named.set(targetPath, open);
      open.path = targetPath;
    } finally {
      // The entry has gone with its file, if that has gone.
      try {
        open.handle = await openHandle(entry);
      } finally {
        open.isMoving = false;
      }
    }
  }

  /** @returns Whether the file existed. */
  async remove(path: string): Promise<boolean> {
    if ((await this.#find(path)) === null) return false;
    this.#detach(path);
    const { directory, name } = await this.#place(path);
    await directory.removeEntry(name);
    return true;
  }

  /** @returns Whether the lock is held now. */
  async tryLock(path: string, waitMs: number): Promise<boolean> {
    if (this.#locks.has(path)) return false;
    const locks = (navigator as { locks?: LockManager }).locks;
    // Insecure pages have none; nor have they OPFS.
    if (locks === undefined) return false;
    const release = await takeWebLock(locks, `tierheap/opfs/${path}`, waitMs, systemClock);
    if (release === null) return false;
    this.#locks.set(path, release);
    return true;
  }

  unlock(path: string): void {
    this.#locks.get(path)?.();
    this.#locks.delete(path);
  }

  #readPart({ number, offset }: ReadPart, target: Uint8Array): number {
    const { handle, detached } = this.#file(number);
    if (handle !== null) return handle.read(target, { at: offset });
    const part = detached.subarray(offset, offset + target.byteLength);
    target.set(part);
    return part.byteLength;
  }

  #file(number: number): OpenFile {
    const found = this.#byNumber.get(number);
    if (found === undefined) throw new CodedError("EBADF", "the file is closed");
    return found;
  }

  #handle(number: number): SyncHandle {
    const { handle } = this.#file(number);
    if (handle === null) throw new CodedError("EBADF", "the file was removed");
    return handle;
  }

  #add(path: string, handle: SyncHandle): number {
    const file: OpenFile = { path, handle, detached: EMPTY, isMoving: false, userCount: 0 };
    this.#named.set(path, file);
    return this.#use(file);
  }

  #use(file: OpenFile): number {
    file.userCount += 1;
    this.#lastNumber += 1;
    this.#byNumber.set(this.#lastNumber, file);
    return this.#lastNumber;
  }

  /** Copies an open file into memory and gives its handle back, so that its name is free. */
  #detach(path: string): void {
    const file = this.#named.get(path);
    if (file === undefined || file.handle === null) return;
    const bytes = new Uint8Array(file.handle.getSize());
    file.detached = bytes.subarray(0, file.handle.read(bytes, { at: 0 }));
    file.handle.close();
    file.handle = null;
    this.#named.delete(path);
  }

  /** @param isFresh What was known of its directory does not count. */
  async #find(path: string, isFresh = false): Promise<FileEntry | null> {
    try {
      const { directory, name } = await this.#place(path, isFresh);
      return (await directory.getFileHandle(name)) as FileEntry;
    } catch (error) {
      if (["ENOENT", "EISDIR"].includes(codeOf(error))) return null;
      throw error;
    }
  }

  async #place(path: string, isFresh = false): Promise<{ directory: Directory; name: string }> {
    const names = path.split("/");
    const name = names.pop() as string;
    const known = isFresh ? undefined : this.#directories.get(names.join("/"));
    return { directory: known ?? (await this.#directory(names)), name };
  }

  async #directory(names: readonly string[], create = false): Promise<Directory> {
    this.#directories.delete(names.join("/"));
    let directory = await navigator.storage.getDirectory();
    // A path may begin with a slash, or have two in a row.
    for (const name of names.filter((each) => each !== ""))
      directory = await directory.getDirectoryHandle(name, { create });
    this.#directories.set(names.join("/"), directory as Directory);
    return directory as Directory;
  }
}

const files = new Files();
const port = globalThis as unknown as Port;
/** Calls that wait for the platform, one after another: between them they share what is open. */
let queue: Promise<unknown> = Promise.resolve();

function answer(request: OpfsRequest): unknown {
  switch (request.call) {
    case "read": {
      const [parts] = request.parameters;
      return parts.some(({ number }) => files.isMoving(number)) ? later(request) : now(request);
    }
    case "write":
    case "sync":
    case "close": {
      const [number] = request.parameters;
      return files.isMoving(number) ? later(request) : now(request);
    }
    case "isThere":
    case "unlock":
      return now(request);
    default:
      return later(request);
  }
}

function now({ call, parameters }: OpfsRequest): unknown {
  return (files[call] as (...some: readonly unknown[]) => unknown)(...parameters);
}

function later(request: OpfsRequest): Promise<unknown> {
  const done = queue.then(() => now(request));
  queue = done.catch(() => {});
  return done;
}

async function reply(request: OpfsRequest): Promise<void> {
  try {
    // What does not wait is done before the next message is looked at.
    const pending = answer(request);
    const value = pending instanceof Promise ? await pending : pending;
    const { bytes } = (value ?? {}) as Partial<Moved>;
    const transfer = bytes === undefined ? [] : [bytes.buffer];
    port.postMessage({ id: request.id, value }, transfer);
  } catch (error) {
    port.postMessage({ id: request.id, ...failureOf(error) }, []);
  }
}

port.onmessage = ({ data }) => {
  // What fails is its own reply.
  reply(data).catch(() => {});
};
