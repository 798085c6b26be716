// Every disk that a power cut may leave behind a log of file operations.
//
// Entries of a directory that were changed since it was last synced survive up to any point of their
// order. Of a file's writes since its last sync any subset survives, the last also torn in half, and
// the length may have grown without the content.
//
// Source: Thanumalayan Sankaranarayana Pillai et al., "All File Systems Are Not Created Equal",
// OSDI 2014 — what may be lost.
import type { FileOperation } from "./memory-file-system.js";

/** Paths and bytes of all files. */
export type Disk = ReadonlyMap<string, Uint8Array>;

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const PENDING_WRITES_MAX = 3;

function apply(writes: readonly Write[]): Uint8Array {
  const length = Math.max(0, ...writes.map(({ offset, bytes }) => offset + bytes.byteLength));
  const content = new Uint8Array(length);
  for (const { offset, bytes } of writes) content.set(bytes, offset);
  return content;
}

function contentsOf(synced: readonly Write[], pending: readonly Write[]): Uint8Array[] {
  if (pending.length === 0) return [apply(synced)];
  const contents: Uint8Array[] = [];
  const recent = pending.slice(-PENDING_WRITES_MAX);
  const older = pending.slice(0, -PENDING_WRITES_MAX);
  for (let subset = 0; subset < 2 ** recent.length; subset++) {
    const survivors = recent.filter((_write, index) => (subset >> index) & 1);
    contents.push(apply([...synced, ...older, ...survivors]));
  }
  const last = recent.at(-1) as Write;
  const torn = { ...last, bytes: last.bytes.subarray(0, last.bytes.byteLength >> 1) };
  contents.push(apply([...synced, ...pending.slice(0, -1), torn]));
  const grown = pending.map((write) => ({
    ...write,
    bytes: new Uint8Array(write.bytes.byteLength),
  }));
  contents.push(apply([...synced, ...grown]));
  return contents;
}

/**
 * The disks that a cut after the last of these operations may leave; some may be equal.
 *
 * @param operations What was done, by a memory file system's log.
 * @param base What was on the disk before, all of it synced. Default: nothing.
 */
export function* crashStates(
  operations: readonly FileOperation[],
  base: Disk = new Map(),
): Generator<Disk> {
  const entries: FileOperation[] = [];
  const writes = new Map<number, { synced: Write[]; pending: Write[] }>();
  let syncedCount = 0;
  for (const operation of operations) {
    if (operation.type === "write") writes.get(operation.file)?.pending.push(operation);
    else if (operation.type === "sync") {
      const file = writes.get(operation.file);
      file?.synced.push(...file.pending.splice(0));
    } else if (operation.type === "sync-directory") syncedCount = entries.length;
    else {
      entries.push(operation);
      if (operation.type === "create") writes.set(operation.file, { synced: [], pending: [] });
    }
  }
  const names = new Map<string, number>();
  // Files of the base have numbers below those of the log.
  for (const [index, [path, bytes]] of [...base].entries()) {
    names.set(path, -1 - index);
    writes.set(-1 - index, { synced: [{ offset: 0, bytes }], pending: [] });
  }
  const step = (operation: FileOperation) => {
    if (operation.type === "create") names.set(operation.path, operation.file);
    else if (operation.type === "remove") names.delete(operation.path);
    else if (operation.type === "rename") {
      names.set(operation.target, names.get(operation.source) as number);
      names.delete(operation.source);
    }
  };
  for (const operation of entries.slice(0, syncedCount)) step(operation);
  for (let survived = syncedCount; survived <= entries.length; survived++) {
    if (survived > syncedCount) step(entries[survived - 1] as FileOperation);
    const choices = [...names].map(([path, file]) => {
      const { synced = [], pending = [] } = writes.get(file) ?? {};
      return { path, contents: contentsOf(synced, pending) };
    });
    const variantCount = Math.max(1, ...choices.map(({ contents }) => contents.length));
    for (let variant = 0; variant < variantCount; variant++) {
      yield new Map(
        choices.map(({ path, contents }) => [
          path,
          contents[variant % contents.length] as Uint8Array,
        ]),
      );
    }
  }
}
