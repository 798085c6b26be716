// Open descriptors of a store's files: few, kept for the next read, closed when they were not used for
// long. A file that was removed meanwhile stays readable for those who have it open.
import type { FileReader, FileSystem, FileWriter } from "./file-system.js";

/** Descriptors kept open while nobody reads. */
const IDLE_COUNT_MAX = 64;

interface Shared {
  readonly opening: Promise<FileReader | null>;
  /** Of a file that was written here; null for others. */
  readonly writer: FileWriter | null;
  userCount: number;
  isDropped: boolean;
}

export class FileReaders {
  readonly #files: FileSystem;
  readonly #directory: string;
  /** By the files' names, in the order of their last use. */
  readonly #shared = new Map<string, Shared>();
  readonly #closing = new Set<Promise<unknown>>();

  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  /** Takes over the descriptor of a file that was written, and is not read yet. */
  adopt(name: string, writer: FileWriter, byteLength: number): void {
    const file: FileReader = {
      byteLength,
      read: (targets, offset) => writer.read(targets, offset),
      close: () => writer.close(),
    };
    const opening = Promise.resolve(file);
    this.#shared.set(name, { opening, writer, userCount: 0, isDropped: false });
    this.#closeIdle();
  }

  /** The opposite of {@link adopt}. @returns null when it was closed meanwhile, or somebody reads it. */
  giveUp(name: string): FileWriter | null {
    const shared = this.#shared.get(name);
    if (shared === undefined || shared.userCount > 0 || shared.writer === null) return null;
    this.#forget(name, shared);
    return shared.writer;
  }

  /**
   * Opens a file, or joins those who have it open.
   *
   * @returns null when there is no such file.
   * @throws The file system's own error.
   */
  async acquire(
    name: string,
  ): Promise<{ readonly file: FileReader; release(): Promise<void> } | null> {
    const shared = this.#shared.get(name) ?? {
      opening: this.#files.openRead(this.#files.join(this.#directory, name)),
      writer: null,
      userCount: 0,
      isDropped: false,
    };
    shared.userCount += 1;
    this.#shared.delete(name);
    this.#shared.set(name, shared);
    let file: FileReader | null = null;
    try {
      file = await shared.opening;
    } finally {
      if (file === null) this.#forget(name, shared);
    }
    if (file === null) return null;
    let isReleased = false;
    const release = async () => {
      if (isReleased) return;
      isReleased = true;
      shared.userCount -= 1;
      if (shared.isDropped) await closeUnused(shared);
      else this.#closeIdle();
    };
    return { file, release };
  }

  /** The file is gone: it is closed as soon as nobody reads it. */
  async drop(name: string): Promise<void> {
    const shared = this.#shared.get(name);
    if (shared === undefined) return;
    this.#forget(name, shared);
    await closeUnused(shared);
  }

  /** Closes all; those in use when they are released. */
  async close(): Promise<void> {
    for (const name of [...this.#shared.keys()]) await this.drop(name);
    await Promise.all(this.#closing);
  }

  #forget(name: string, shared: Shared): void {
    shared.isDropped = true;
    if (this.#shared.get(name) === shared) this.#shared.delete(name);
  }

  /** Closes what is too much, in the background. */
  #closeIdle(): void {
    for (const [name, shared] of this.#shared) {
      if (this.#shared.size <= IDLE_COUNT_MAX) return;
      if (shared.userCount > 0) continue;
      this.#forget(name, shared);
      const closing: Promise<unknown> = closeUnused(shared).then(() =>
        this.#closing.delete(closing),
      );
      this.#closing.add(closing);
    }
  }
}

/** Never rejects. */
async function closeUnused(shared: Shared): Promise<void> {
  if (shared.userCount > 0) return;
  const file = await shared.opening.catch(() => null);
  // Somebody may have been told of it while we waited; whoever is last closes it.
  if (shared.userCount === 0) await file?.close().catch(() => {});
}
