// Opens one object of a store for reading, wherever it lies.
import { type PrivateBytes, privatePart } from "../util/private-bytes.js";
import type { FileReader, FileSystem } from "./file-system.js";
import { FRAME_HEADER_BYTES } from "./segment-format.js";
import type { SegmentReaders } from "./segment-readers.js";
import { readFully } from "./segment-scan.js";
import type { StoreIndex } from "./store-index.js";
import type { TierKey } from "./tier.js";

/** An object's bytes. */
export interface StoredObject {
  readonly byteLength: number;
  /** @returns Bytes read; fewer than `target` holds only at the object's end. */
  read(offset: number, target: PrivateBytes): Promise<number>;
  close(): Promise<void>;
}

/** Where a store's objects lie. */
export interface StorePlace {
  readonly files: FileSystem;
  readonly directory: string;
  readonly index: StoreIndex;
  readonly readers: SegmentReaders;
}

/**
 * Opens the object that counts under a key.
 *
 * @returns null when there is none. @throws The file system's own error.
 */
export async function openStored(
  key: TierKey,
  { files, directory, index, readers }: StorePlace,
): Promise<StoredObject | null> {
  for (;;) {
    const entry = index.find(key);
    if (entry === null) return null;
    if (entry.segment === null) {
      const file = await files.openRead(files.join(directory, entry.name));
      if (file !== null) return storedObject(file, 0, file.byteLength, () => file.close());
    } else {
      const found = await readers.acquire(entry.segment);
      const startOffset = entry.offset + FRAME_HEADER_BYTES;
      if (found !== null) {
        return storedObject(found.file, startOffset, entry.payloadBytes, found.release);
      }
    }
    // Cleaning may have moved it; otherwise somebody took the file away.
    if (index.find(key) === entry) return null;
  }
}

function storedObject(
  file: FileReader,
  startOffset: number,
  byteLength: number,
  close: () => Promise<void>,
): StoredObject {
  return {
    byteLength,
    read: async (offset, target) => {
      const count = Math.max(0, Math.min(target.byteLength, byteLength - offset));
      if (count === 0) return 0;
      return readFully(file, startOffset + offset, privatePart(target, 0, count));
    },
    close,
  };
}
