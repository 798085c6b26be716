// Files whose objects do not count any more, kept to be written again: the system has their pages and
// their place on the device already. They have names that count for nothing, and are swept at the next
// open like any other file that was not finished.
import type { FileSystem, FileWriter } from "./file-system.js";

/** An open file that counts for nothing. */
export interface WritableFile {
  readonly path: string;
  readonly file: FileWriter;
}

/** Few: one is enough for who writes one object after the other. */
const COUNT_MAX = 8;
const BYTES_MAX = 64 * 2 ** 20;

export class IdleFiles {
  readonly #files: FileSystem;
  /** With the length of each; the last one was given last. */
  readonly #idle: (WritableFile & { readonly byteLength: number })[] = [];
  /** Of all of them. */
  byteLength = 0;

  constructor(files: FileSystem) {
    this.#files = files;
  }

  /** Whether a file of this length may be given. */
  hasRoom(byteLength: number): boolean {
    return this.#idle.length < COUNT_MAX && this.byteLength + byteLength <= BYTES_MAX;
  }

  give({ path, file }: WritableFile, byteLength: number): void {
    this.#idle.push({ path, file, byteLength });
    this.byteLength += byteLength;
  }

  /** @returns A file of exactly this length, or null. All of its bytes must be written over. */
  take(byteLength: number): WritableFile | null {
    const at = this.#idle.findLastIndex((idle) => idle.byteLength === byteLength);
    if (at < 0) return null;
    this.byteLength -= byteLength;
    return this.#idle.splice(at, 1)[0] as WritableFile;
  }

  /** Removes all. Never rejects: what cannot be removed is swept at the next open. */
  async clear(): Promise<void> {
    for (const { path, file, byteLength } of this.#idle.splice(0)) {
      await file.close().catch(() => {});
      await this.#files.remove(path).catch(() => {});
      this.byteLength -= byteLength;
    }
  }
}
