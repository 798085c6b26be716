// The far side of the OPFS tier: runs in a worker, the only place with synchronous file handles.
// scripts/build.mjs bundles it into one text, from which the page starts it.
//
// OPFS locks a file while it is open, so all who have it open share one handle here, and a file that
// is renamed, replaced or removed meanwhile is copied into memory first: as on other file systems it
// stays readable for those who have it open.
import { systemClock } from "../clock.js";
import type { OpfsReply, OpfsRequest } from "./opfs-messages.js";

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
  /** null: its bytes are in `detached`. */
  handle: SyncHandle | null;
  detached: Uint8Array;
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
  readonly #byNumber = new Map<number, { readonly file: OpenFile; readonly path: string }>();
  readonly #locks = new Map<string, () => void>();
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
    const { directory, name } = await this.#place(path);
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
      number = this.#use(path, shared);
    } else {
      const entry = await this.#find(path);
      if (entry === null) return null;
      number = this.#add(path, await openHandle(entry));
    }
    const { handle, detached } = this.#file(number);
    return { number, byteLength: handle?.getSize() ?? detached.byteLength };
  }

  read(number: number, byteLength: number, offset: number): Uint8Array {
    const { handle, detached } = this.#file(number);
    if (handle === null) return detached.slice(offset, offset + byteLength);
    const target = new Uint8Array(byteLength);
    const count = handle.read(target, { at: offset });
    return count === byteLength ? target : target.slice(0, count);
  }

  write(number: number, source: Uint8Array, offset: number): number {
    return this.#handle(number).write(source, { at: offset });
  }

  sync(number: number): void {
    this.#handle(number).flush();
  }

  close(number: number): void {
    const found = this.#byNumber.get(number);
    if (!this.#byNumber.delete(number) || found === undefined) return;
    const { file, path } = found;
    file.userCount -= 1;
    if (file.userCount > 0) return;
    if (this.#named.get(path) === file) this.#named.delete(path);
    file.handle?.close();
    file.handle = null;
    file.detached = EMPTY;
  }

  async rename(sourcePath: string, targetPath: string): Promise<void> {
    const entry = await this.#find(sourcePath);
    if (entry === null) throw new CodedError("ENOENT", `there is no ${sourcePath}`);
    this.#detach(sourcePath);
    this.#detach(targetPath);
    const { directory, name } = await this.#place(targetPath);
    await entry.move(directory, name);
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
  async tryLock(path: string): Promise<boolean> {
    if (this.#locks.has(path)) return false;
    const locks = (navigator as { locks?: LockManager }).locks;
    // Insecure pages have none; nor have they OPFS.
    if (locks === undefined) return false;
    const attempt = () =>
      new Promise<(() => void) | null>((resolve, reject) => {
        locks
          .request(`tierheap/opfs/${path}`, { ifAvailable: true }, (lock) => {
            if (lock !== null) return new Promise<void>((release) => resolve(release));
            resolve(null);
            return undefined;
          })
          .catch(reject);
      });
    const release = await outlast(attempt);
    if (release === null) return false;
    this.#locks.set(path, release);
    return true;
  }

  unlock(path: string): void {
    this.#locks.get(path)?.();
    this.#locks.delete(path);
  }

  #file(number: number): OpenFile {
    const found = this.#byNumber.get(number);
    if (found === undefined) throw new CodedError("EBADF", "the file is closed");
    return found.file;
  }

  #handle(number: number): SyncHandle {
    const { handle } = this.#file(number);
    if (handle === null) throw new CodedError("EBADF", "the file was removed");
    return handle;
  }

  #add(path: string, handle: SyncHandle): number {
    const file: OpenFile = { handle, detached: EMPTY, userCount: 0 };
    this.#named.set(path, file);
    return this.#use(path, file);
  }

  #use(path: string, file: OpenFile): number {
    file.userCount += 1;
    this.#lastNumber += 1;
    this.#byNumber.set(this.#lastNumber, { file, path });
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

  async #find(path: string): Promise<FileEntry | null> {
    try {
      const { directory, name } = await this.#place(path);
      return (await directory.getFileHandle(name)) as FileEntry;
    } catch (error) {
      if (["ENOENT", "EISDIR"].includes(codeOf(error))) return null;
      throw error;
    }
  }

  async #place(path: string): Promise<{ directory: Directory; name: string }> {
    const names = path.split("/");
    const name = names.pop() as string;
    return { directory: await this.#directory(names), name };
  }

  async #directory(names: readonly string[], create = false): Promise<Directory> {
    let directory = await navigator.storage.getDirectory();
    // A path may begin with a slash, or have two in a row.
    for (const name of names.filter((each) => each !== ""))
      directory = await directory.getDirectoryHandle(name, { create });
    return directory as Directory;
  }
}

const files = new Files();
const port = globalThis as unknown as Port;
/** Calls that wait for the platform, one after another: between them they share what is open. */
let queue: Promise<unknown> = Promise.resolve();

function answer(request: OpfsRequest): unknown {
  switch (request.call) {
    case "read":
      return files.read(...request.parameters);
    case "write":
      return files.write(...request.parameters);
    case "sync":
      return files.sync(...request.parameters);
    case "close":
      return files.close(...request.parameters);
    case "unlock":
      return files.unlock(...request.parameters);
    default: {
      const { call, parameters } = request;
      const work = () => (files[call] as (...some: readonly string[]) => unknown)(...parameters);
      const done = queue.then(work);
      queue = done.catch(() => {});
      return done;
    }
  }
}

async function reply(request: OpfsRequest): Promise<void> {
  try {
    // What does not wait is done before the next message is looked at.
    const pending = answer(request);
    const value = pending instanceof Promise ? await pending : pending;
    const transfer = value instanceof Uint8Array ? [value.buffer as ArrayBuffer] : [];
    port.postMessage({ id: request.id, value }, transfer);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    port.postMessage({ id: request.id, code: codeOf(error), message }, []);
  }
}

port.onmessage = ({ data }) => {
  // What fails is its own reply.
  reply(data).catch(() => {});
};
