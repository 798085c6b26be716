// Power cuts at every point of a store's life: random work on a store in memory, and for every disk
// that a cut may leave what the next opening makes of it. Objects carry key, version and a pattern, so
// that whatever is read tells what it is.
//
// Source: Thanumalayan Sankaranarayana Pillai et al., "All File Systems Are Not Created Equal",
// OSDI 2014 — states instead of luck, and which bugs to plant.
import { seededRandom } from "../random.js";
import type { FileSystem } from "../tier/file-system.js";
import { FsTier } from "../tier/fs.js";
import type { TierKey } from "../tier/tier.js";
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";
import { crashStates, type Disk } from "./crash-states.js";
import { type FileOperation, memoryFileSystem } from "./memory-file-system.js";

export interface StoreWorkloadOptions {
  readonly seed: number;
  /** Steps of the workload; some do several things at once. */
  readonly stepCount: number;
  /** Every object is written durably, and so deleted; otherwise none. */
  readonly isDurable: boolean;
  /** Stands in for the file system, to plant a bug. */
  readonly decorate?: (fileSystem: FileSystem) => FileSystem;
}

/** One change of one key. */
export interface Attempt {
  readonly key: number;
  /** 0 for a deletion. */
  readonly version: number;
  readonly isDurable: boolean;
  /** Length of the log when it was begun, and when it was acknowledged. */
  readonly begun: number;
  acknowledged: number;
}

export interface StoreWorkload {
  readonly operations: readonly FileOperation[];
  readonly attempts: readonly Attempt[];
}

export interface CrashReport {
  /** Different disks, each at a different point of the log. */
  readonly stateCount: number;
  /** What an opening made of a disk that it must not. */
  readonly violations: readonly string[];
}

const KEY_COUNT = 5;
const DIRECTORY = "/store";
/** Short segments, so that they are closed, emptied and cleaned. */
const CAPACITY_BYTES = 96 * 1024;
const HEADER_BYTES = 12;

function keyOf(index: number): TierKey {
  return index.toString(16).padStart(2, "0").repeat(32);
}

/** An object that says what it is: key, version, length, and a pattern of them. */
export function objectOf(key: number, version: number, byteLength: number): PrivateBytes {
  const bytes = privateBytes(byteLength);
  const view = new DataView(bytes.buffer);
  let word = Math.imul(key + 1, 0x9e3779b1) ^ Math.imul(version + 1, 0x85ebca6b) ^ byteLength;
  for (let index = HEADER_BYTES; index < byteLength; index++) {
    word = (Math.imul(word, 1664525) + 1013904223) | 0;
    bytes[index] = word >> 24;
  }
  view.setUint32(0, key);
  view.setUint32(4, version);
  view.setUint32(8, byteLength);
  return bytes;
}

/** @returns The version that these bytes are whole, or -1. */
export function versionOf(bytes: PrivateBytes, key: number): number {
  if (bytes.byteLength < HEADER_BYTES) return -1;
  const version = new DataView(bytes.buffer).getUint32(4);
  const expected = objectOf(key, version, bytes.byteLength);
  return expected.every((byte, index) => byte === bytes[index]) ? version : -1;
}

function openTier(fileSystem: FileSystem, seed: number): FsTier {
  const random = seededRandom(seed);
  const directory = DIRECTORY;
  // Of two seeds one opens segments ahead.
  const opensAhead = seed % 2 === 1;
  return new FsTier({ directory, fileSystem, random, capacityBytes: CAPACITY_BYTES, opensAhead });
}

async function store(tier: FsTier, key: number, bytes: PrivateBytes, durable: boolean) {
  const writer = await tier.begin(keyOf(key), bytes.byteLength);
  if (writer === "no-space") return false;
  await writer.write(bytes);
  const outcome = await writer.commit({ durable });
  await writer.abort();
  return outcome === "stored";
}

/** Puts, overwrites, deletes, cleans, closes and opens again, and logs what the disk saw. */
export async function runStoreWorkload(options: StoreWorkloadOptions): Promise<StoreWorkload> {
  const { seed, stepCount, isDurable } = options;
  const files = memoryFileSystem();
  const fileSystem = options.decorate?.(files) ?? files;
  const random = seededRandom(seed);
  const draw = (count: number) => random.uint32() % count;
  const attempts: Attempt[] = [];
  let version = 0;
  const attempt = async (key: number, value: number, work: () => Promise<boolean>) => {
    const begun = files.operations.length;
    const acknowledged = Number.POSITIVE_INFINITY;
    // The deletion of what is durable is durable.
    const made = { key, version: value, isDurable, begun, acknowledged };
    attempts.push(made);
    if (await work()) made.acknowledged = files.operations.length;
  };
  let tier = openTier(fileSystem, seed);
  await tier.open();
  const put = async (key: number) => {
    version += 1;
    // Mostly packed, now and then in a file of its own.
    const byteLength = HEADER_BYTES + (draw(4) === 0 ? 300 + 100 * draw(2) : draw(200));
    const bytes = objectOf(key, version, byteLength);
    await attempt(key, version, () => store(tier, key, bytes, isDurable));
  };
  for (let step = 0; step < stepCount; step++) {
    const choice = draw(20);
    if (choice === 0) {
      await tier.close();
      tier = openTier(fileSystem, seed + step + 1);
      await tier.open();
    } else if (choice === 1) {
      await tier.clean();
    } else if (choice < 5) {
      const key = draw(KEY_COUNT);
      await attempt(key, 0, async () => {
        await tier.delete(keyOf(key));
        return true;
      });
    } else if (choice < 12) {
      await put(draw(KEY_COUNT));
    } else {
      const first = draw(KEY_COUNT);
      const count = 2 + draw(3);
      const keys = Array.from({ length: count }, (_, index) => (first + index) % KEY_COUNT);
      await Promise.all(keys.map(put));
    }
  }
  await tier.close();
  return { operations: files.operations, attempts };
}

/** What an opening finds on a disk: per key a version, 0 for nothing, -1 for damage. */
async function recover(disk: Disk) {
  const files = memoryFileSystem();
  for (const [path, bytes] of disk) files.plant(path, bytes.slice());
  const tier = openTier(files, 1);
  await tier.open();
  const found: number[] = [];
  for (let key = 0; key < KEY_COUNT; key++) {
    const reader = await tier.openRead(keyOf(key));
    if (reader === null) {
      found.push(0);
      continue;
    }
    const bytes = privateBytes(reader.byteLength);
    const count = await reader.read(0, bytes);
    await reader.close();
    found.push(count < bytes.byteLength ? -1 : versionOf(bytes, key));
  }
  await tier.close();
  const hasLeft = [...files.files().keys()].some((path) => path.endsWith(".tmp"));
  return { found, operations: files.operations, hasLeft };
}

/** Two hashes of 32 bits over a disk: enough to tell a few million from each other. */
function fingerprint(disk: Disk): string {
  let first = 0;
  let second = 1;
  const add = (value: number) => {
    first = Math.imul(first ^ value, 0x01000193);
    second = Math.imul(second + value + 1, 0x9e3779b1) ^ (second >>> 15);
  };
  for (const [path, bytes] of disk) {
    for (let index = 0; index < path.length; index++) add(path.charCodeAt(index));
    add(bytes.byteLength);
    for (const byte of bytes) add(byte);
  }
  return `${first}/${second}`;
}

/**
 * Opens every disk that a power cut during a workload may leave.
 *
 * @param options.stateCountMax Ends after this many states.
 * @param options.nestedEvery Of every so many states, cuts during the opening itself are tried too;
 *   0 for none.
 */
export async function exploreCrashes(
  { operations, attempts }: StoreWorkload,
  options: { readonly stateCountMax: number; readonly nestedEvery: number },
): Promise<CrashReport> {
  const { stateCountMax, nestedEvery } = options;
  const seen = new Set<string>();
  const violations: string[] = [];
  const check = async (disk: Disk, length: number, isNested: boolean): Promise<void> => {
    const name = `${length} ${fingerprint(disk)}`;
    if (seen.has(name) || seen.size >= stateCountMax) return;
    seen.add(name);
    const { found, operations: own, hasLeft } = await recover(disk);
    if (hasLeft) violations.push(`after ${length} operations a temporary file is left`);
    for (const [key, version] of found.entries()) {
      const begun = attempts.filter((each) => each.key === key && each.begun < length);
      const last = begun.findLastIndex((each) => each.isDurable && each.acknowledged <= length);
      const allowed = begun.slice(Math.max(0, last)).map((each) => each.version);
      if (last < 0) allowed.push(0);
      // What was not written durably may be damaged; the digest of a record says so.
      if (begun.slice(Math.max(0, last)).some((each) => !each.isDurable && each.version > 0)) {
        allowed.push(-1);
      }
      if (allowed.includes(version)) continue;
      violations.push(
        `after ${length} operations key ${key} is ${version}, not ${allowed.join(" or ")}`,
      );
    }
    if (isNested || nestedEvery === 0 || seen.size % nestedEvery !== 0) return;
    for (let count = 1; count <= own.length; count++) {
      for (const next of crashStates(own.slice(0, count), disk)) await check(next, length, true);
    }
  };
  for (let length = 0; length <= operations.length && seen.size < stateCountMax; length++) {
    for (const disk of crashStates(operations.slice(0, length))) await check(disk, length, false);
  }
  return { stateCount: seen.size, violations };
}

/** Ways of getting the protocol wrong that the exploration must find. */
export const PLANTED_BUGS: ReadonlyMap<string, (inner: FileSystem) => FileSystem> = new Map([
  [
    "files are not synced",
    (inner) => ({
      ...inner,
      create: async (path) => ({ ...(await inner.create(path)), sync: async () => {} }),
    }),
  ],
  ["directories are not synced", (inner) => ({ ...inner, syncDirectory: async () => {} })],
  [
    "the acknowledgement does not wait for the sync",
    (inner) => ({
      ...inner,
      create: async (path) => {
        const writer = await inner.create(path);
        let isDue = false;
        const catchUp = async () => {
          if (isDue) await writer.sync();
          isDue = false;
        };
        return {
          write: async (sources, offset) => {
            await catchUp();
            return writer.write(sources, offset);
          },
          sync: async () => {
            isDue = true;
          },
          read: (targets, offset) => writer.read(targets, offset),
          close: () => writer.close(),
        };
      },
    }),
  ],
  [
    "a rename copies",
    (inner) => ({
      ...inner,
      rename: async (sourcePath, targetPath) => {
        const reader = await inner.openRead(sourcePath);
        const bytes = privateBytes(reader?.byteLength ?? 0);
        await reader?.read([bytes], 0);
        const writer = await inner.create(targetPath);
        await writer.write([bytes], 0);
        await writer.close();
        await inner.remove(sourcePath);
      },
    }),
  ],
]);
