// Learns what an earlier process left in a store's directory, and sweeps what does not count. Reading
// changes nothing, so that it can be done to look only.
import { TierError } from "../errors.js";
import type { FileSystem } from "./file-system.js";
import { parseSegmentName, Segment, type StoredFrame } from "./segment.js";
import { SEQUENCE_MAX } from "./segment-format.js";
import { scanSegment } from "./segment-scan.js";
import { type StoredFile, StoreIndex } from "./store-index.js";

const FILE_NAME = /^([0-9a-f]{64})(?:\.([0-9a-f]{16})(\.durable)?)?\.tensor$/;
const TEMPORARY_NAME = /^[0-9a-f]{64}\.[0-9a-f]{32}\.tmp$/;
export const DAMAGED_NAME = /^[0-9a-f]{64}\.[0-9a-f]{32}\.damaged$/;

export interface OpeningOptions {
  readonly files: FileSystem;
  readonly directory: string;
  /** Name of the tier, for errors. */
  readonly tier: string;
}

/** A regular file of the directory. */
export interface ListedFile {
  readonly name: string;
  readonly byteLength: number;
}

function storedFile({ name, byteLength }: ListedFile): StoredFile | null {
  const match = FILE_NAME.exec(name);
  if (match === null) return null;
  const [, key = "", digits = "0", durable] = match;
  const sequence = Number.parseInt(digits, 16);
  if (sequence > SEQUENCE_MAX) return null;
  // Before there were segments, names did not say it.
  const isDurable = sequence === 0 || durable !== undefined;
  return { segment: null, key, sequence, payloadBytes: byteLength, isDurable, name };
}

async function readSegment(
  { files, directory }: OpeningOptions,
  segment: Segment,
): Promise<boolean> {
  const file = await files.openRead(files.join(directory, segment.name));
  if (file === null) return false;
  try {
    const scanned = await scanSegment(file, segment.id);
    if (scanned === null) return false;
    segment.byteLength = file.byteLength;
    segment.tableBytes = scanned.tableBytes;
    for (const frame of scanned.frames) segment.frames.push({ ...frame, segment });
    return true;
  } finally {
    await file.close();
  }
}

/** What lies in a directory, and what of it counts. */
export interface FoundStore {
  readonly index: StoreIndex;
  /** Number of the last segment there was. */
  readonly lastNumber: number;
  /** Files that do not count any more. */
  readonly replaced: readonly StoredFile[];
  /** What writers that died have left. */
  readonly temporary: readonly ListedFile[];
  /** Quarantined objects. */
  readonly damaged: readonly ListedFile[];
  /** Files with a segment's name that are no segment of ours. */
  readonly foreign: readonly ListedFile[];
}

/**
 * Rebuilds the index from the files, and changes nothing.
 *
 * @throws {TierError} `incompatible` — a segment is of another version.
 * @throws The file system's own error.
 */
export async function readStore(options: OpeningOptions): Promise<FoundStore> {
  const { files, directory, tier } = options;
  const listed = await files.list(directory);
  const segments = new Map<ListedFile, Segment>();
  let lastNumber = 0;
  for (const file of listed) {
    const parsed = parseSegmentName(file.name);
    if (parsed === null || parsed.number > SEQUENCE_MAX) continue;
    if (!parsed.isKnown) {
      const message = `${file.name} in ${directory} is of another version of the format`;
      throw new TierError("incompatible", tier, message);
    }
    lastNumber = Math.max(lastNumber, parsed.number);
    segments.set(file, new Segment(parsed.number, parsed.id));
  }
  const index = new StoreIndex();
  const frames: StoredFrame[] = [];
  const foreign: ListedFile[] = [];
  for (const [file, segment] of segments) {
    if (!(await readSegment(options, segment))) {
      foreign.push(file);
      continue;
    }
    index.addSegment(segment);
    for (const frame of segment.frames) frames.push(frame);
  }
  const replaced: (StoredFile | null)[] = [];
  for (const file of listed.map(storedFile)) if (file !== null) replaced.push(index.put(file));
  // A tombstone counts only while there is something for it to hide, so it comes last.
  for (const frame of frames) if (frame.kind === "object") replaced.push(index.put(frame));
  for (const frame of frames) if (frame.kind === "tombstone") replaced.push(index.put(frame));
  return {
    index,
    lastNumber,
    replaced: replaced.filter((file) => file !== null),
    temporary: listed.filter(({ name }) => TEMPORARY_NAME.test(name)),
    damaged: listed.filter(({ name }) => DAMAGED_NAME.test(name)),
    foreign,
  };
}

/**
 * As {@link readStore}, and removes temporary files and files that do not count.
 *
 * @throws {TierError} `incompatible` — nothing was touched. @throws The file system's own error.
 */
export async function openStore(options: OpeningOptions): Promise<FoundStore> {
  const { files, directory } = options;
  const found = await readStore(options);
  for (const { name } of found.temporary) await files.remove(files.join(directory, name));
  for (const file of found.replaced) {
    await files.remove(files.join(directory, file.name));
    found.index.dropFile(file);
  }
  return found;
}
