// Damaged objects, kept beside a store as evidence.
import { privateBytes, privatePart } from "../util/private-bytes.js";
import type { FileSystem } from "./file-system.js";
import { DAMAGED_NAME } from "./store-opening.js";
import type { StoredObject } from "./stored-object.js";

/** Quarantined files kept as evidence. */
const DAMAGED_COUNT_MAX = 16;

/** Copies a damaged packed object into a file of its own, and closes it. */
export async function copyAside(
  files: FileSystem,
  object: StoredObject,
  path: string,
): Promise<void> {
  const bytes = privateBytes(object.byteLength);
  let count = 0;
  try {
    count = await object.read(0, bytes);
  } finally {
    await object.close().catch(() => {});
  }
  const file = await files.create(path);
  try {
    for (let done = 0; done < count; ) {
      done += await file.write([privatePart(bytes, done, count)], done);
    }
  } finally {
    await file.close();
  }
}

/** Removes what is too much. @throws The file system's own error. */
export async function trimQuarantine(files: FileSystem, directory: string): Promise<void> {
  const found = await files.list(directory);
  const damaged = found.filter(({ name }) => DAMAGED_NAME.test(name));
  for (const { name } of damaged.slice(DAMAGED_COUNT_MAX)) {
    await files.remove(files.join(directory, name));
  }
}
