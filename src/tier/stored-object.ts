// Opens one object of a store for reading, wherever it lies.
import { type PrivateBytes, privateLength, privateParts } from "../util/private-bytes.js";
import type { FileReaders } from "./file-readers.js";
import type { FileReader } from "./file-system.js";
import { FRAME_HEADER_BYTES } from "./segment-format.js";
import { readFully } from "./segment-scan.js";
import type { StoreIndex } from "./store-index.js";
import type { TierKey } from "./tier.js";

/** An object's bytes. */
export interface StoredObject {
  readonly byteLength: number;
  /** @returns Bytes read; fewer than the targets hold only at the object's end. */
  read(offset: number, ...targets: PrivateBytes[]): Promise<number>;
  close(): Promise<void>;
}

/** Where a store's objects lie. */
export interface StorePlace {
  readonly index: StoreIndex;
  readonly readers: FileReaders;
}

/**
 * Opens the object that counts under a key.
 *
 * @returns null when there is none. @throws The file system's own error.
 */
export async function openStored(
  key: TierKey,
  { index, readers }: StorePlace,
): Promise<StoredObject | null> {
  for (;;) {
    const entry = index.find(key);
    if (entry === null) return null;
    const { segment } = entry;
    const found = await readers.acquire(segment === null ? entry.name : segment.name);
    if (found !== null) {
      const { file, release } = found;
      if (segment === null) return storedObject(file, 0, file.byteLength, release);
      const startOffset = entry.offset + FRAME_HEADER_BYTES;
      return storedObject(file, startOffset, entry.payloadBytes, release);
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
    read: async (offset, ...targets) => {
      const count = Math.max(0, Math.min(privateLength(targets), byteLength - offset));
      if (count === 0) return 0;
      return readFully(file, startOffset + offset, privateParts(targets, 0, count));
    },
    close,
  };
}
