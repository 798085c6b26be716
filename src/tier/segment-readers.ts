// Open descriptors of segments: few, kept for the next read, closed when they were not used for long.
// A segment that was removed meanwhile stays readable for those who have it open.
import type { FileReader, FileSystem } from "./file-system.js";
import type { Segment } from "./segment.js";

/** Descriptors kept open while nobody reads. */
const IDLE_COUNT_MAX = 16;

interface Shared {
  readonly opening: Promise<FileReader | null>;
  userCount: number;
  isDropped: boolean;
}

export class SegmentReaders {
  readonly #files: FileSystem;
  readonly #directory: string;
  /** In the order of their last use. */
  readonly #shared = new Map<Segment, Shared>();

  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  /**
   * Opens a segment, or joins those who have it open.
   *
   * @returns null when there is no such file.
   * @throws The file system's own error.
   */
  async acquire(
    segment: Segment,
  ): Promise<{ readonly file: FileReader; release(): Promise<void> } | null> {
    const path = this.#files.join(this.#directory, segment.name);
    const shared = this.#shared.get(segment) ?? {
      opening: this.#files.openRead(path),
      userCount: 0,
      isDropped: false,
    };
    shared.userCount += 1;
    this.#shared.delete(segment);
    this.#shared.set(segment, shared);
    let file: FileReader | null = null;
    try {
      file = await shared.opening;
    } finally {
      if (file === null) this.#forget(segment, shared);
    }
    if (file === null) return null;
    let isReleased = false;
    const release = async () => {
      if (isReleased) return;
      isReleased = true;
      shared.userCount -= 1;
      if (shared.isDropped) await closeUnused(shared);
      else await this.#closeIdle(IDLE_COUNT_MAX);
    };
    return { file, release };
  }

  /** The file is gone: it is closed as soon as nobody reads it. */
  async drop(segment: Segment): Promise<void> {
    const shared = this.#shared.get(segment);
    if (shared === undefined) return;
    this.#forget(segment, shared);
    await closeUnused(shared);
  }

  /** Closes all; those in use when they are released. */
  async close(): Promise<void> {
    for (const segment of [...this.#shared.keys()]) await this.drop(segment);
  }

  #forget(segment: Segment, shared: Shared): void {
    shared.isDropped = true;
    if (this.#shared.get(segment) === shared) this.#shared.delete(segment);
  }

  async #closeIdle(countMax: number): Promise<void> {
    for (const [segment, shared] of this.#shared) {
      if (this.#shared.size <= countMax) return;
      if (shared.userCount > 0) continue;
      this.#forget(segment, shared);
      await closeUnused(shared);
    }
  }
}

async function closeUnused(shared: Shared): Promise<void> {
  if (shared.userCount > 0) return;
  const file = await shared.opening.catch(() => null);
  // Somebody may have been told of it while we waited; whoever is last closes it.
  if (shared.userCount === 0) await file?.close().catch(() => {});
}
