// Seam: the file operations that the fs tier needs, so that faults and crashes can be injected.
//
// Paths are strings built by `join`. Every method rejects with the platform's own error, whose
// `code` (`ENOSPC`, `EIO`, …) the tier translates.
import type { PrivateBytes } from "../util/private-bytes.js";

export interface FileWriter {
  /**
   * Writes the sources, one behind the other, at `offset`. May write less: the caller loops.
   *
   * @param sources Private memory: the platform may read it until the promise settles.
   * @returns Bytes written.
   */
  write(sources: readonly PrivateBytes[], offset: number): Promise<number>;
  /**
   * Copies the source, and writes it at `offset` while the caller goes on: pieces in order, without a gap. Only where it
   * costs the caller more to wait for a write than to copy.
   *
   * @param source The caller's again when the promise settles.
   * @throws What went wrong with an earlier piece; what is in the file then is of no use.
   */
  writeBehind?(source: PrivateBytes, offset: number): Promise<void>;
  /** Resolves when all is written that was given to `writeBehind`. @throws As that. */
  settle?(): Promise<void>;
  /** As of a {@link FileReader}. */
  read(targets: readonly PrivateBytes[], offset: number): Promise<number>;
  /** Flushes the file's data and size to the device. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileReader {
  readonly byteLength: number;
  /**
   * Fills the targets, one behind the other, from `offset` on. May read less: the caller loops.
   *
   * @param targets Any memory; the platform may write to it until the promise settles.
   * @returns Bytes read; 0 at the end of the file.
   */
  read(targets: readonly PrivateBytes[], offset: number): Promise<number>;
  close(): Promise<void>;
}

/** A held directory lock. */
export interface FileLock {
  release(): Promise<void>;
}

export interface FileSystem {
  join(directory: string, name: string): string;
  /** Creates a directory and its parents, readable by the owner only; they survive power loss. */
  makeDirectory(path: string): Promise<void>;
  /** Names and sizes of the regular files in a directory. */
  list(path: string): Promise<{ readonly name: string; readonly byteLength: number }[]>;
  /** Creates a file that must not exist, readable by the owner only. */
  create(path: string): Promise<FileWriter>;
  /** Opens a regular file, following no link; null when there is none. */
  openRead(path: string): Promise<FileReader | null>;
  /** Renames atomically, replacing the target. */
  rename(sourcePath: string, targetPath: string): Promise<void>;
  /** @returns Whether the file existed. */
  remove(path: string): Promise<boolean>;
  /** Flushes a directory's entries to the device. */
  syncDirectory(path: string): Promise<void>;
  /**
   * Takes the lock of that name, stealing it only from a dead process. A file whose name begins with
   * `path` may stay when it is released.
   *
   * @returns null when its owner is alive.
   */
  tryLock(path: string): Promise<FileLock | null>;
}
