// The real file system of Node, behind the seam.
import * as fs from "node:fs";
import { constants } from "node:fs";
import {
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  unlink,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { randomName, systemRandom } from "../random.js";
import {
  type PrivateBytes,
  privateBytes,
  privateLength,
  privateParts,
} from "../util/private-bytes.js";
import type { FileLock, FileSystem } from "./file-system.js";

// A link or a FIFO in the directory must not be followed or wait. Both flags are 0 where the
// platform lacks them.
const READ_FLAGS = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** ELOOP, on BSD EMLINK, for a link; ENXIO for a socket. */
const NOT_REGULAR_CODES = new Set<string | undefined>(["ENOENT", "ELOOP", "EMLINK", "ENXIO"]);

function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}

async function orIfMissing<T>(promise: Promise<T>, value: T): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return value;
    throw error;
  }
}

// Plain descriptors: a FileHandle costs several promises per call.
const open = promisify(fs.open);
const close = promisify(fs.close);
const stat = promisify(fs.fstat);
const sync = promisify(fs.fdatasync);
const syncAll = promisify(fs.fsync);

/**
 * Where so many bytes begin at a multiple of their own number, Linux looks for one stretch of free
 * memory that holds them all, which can take longer than the copy.
 */
const STRETCH_BYTES = 131_072;
const PAGE_BYTES = 4096;
/** Most bytes of one write where the system has memory for them already. */
const OVERWRITE_BYTES_MAX = 2 ** 18 + 2 ** 13;

/**
 * Most bytes of one write: as many as pass one multiple of {@link STRETCH_BYTES} at most, and are less
 * than that behind it.
 */
export function writeBytesMax(offset: number): number {
  const behindBytes = offset % STRETCH_BYTES;
  const restBytes = behindBytes < PAGE_BYTES ? 0 : STRETCH_BYTES - behindBytes;
  return restBytes + STRETCH_BYTES - PAGE_BYTES;
}

/** Entries whose sizes are asked for at once. */
const STAT_COUNT_MAX = 64;

function read(
  descriptor: number,
  targets: readonly PrivateBytes[],
  offset: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.readv(descriptor, targets, offset, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

function write(
  descriptor: number,
  sources: readonly PrivateBytes[],
  offset: number,
  endOffset: number,
): Promise<number> {
  const isOverwrite = offset + privateLength(sources) <= endOffset;
  const parts = privateParts(sources, 0, isOverwrite ? OVERWRITE_BYTES_MAX : writeBytesMax(offset));
  return new Promise((resolve, reject) => {
    fs.writev(descriptor, parts, offset, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

/** Whether this is a file that only its owner, who is us, has under one name. */
function isOwnFile(found: fs.Stats): boolean {
  const isOurs = process.geteuid === undefined || found.uid === process.geteuid();
  return found.isFile() && found.nlink === 1 && isOurs;
}

/** null for nothing, and for a link that is not followed. */
async function openRegular(path: string): Promise<number | null> {
  try {
    return await open(path, READ_FLAGS);
  } catch (error) {
    if (NOT_REGULAR_CODES.has(errorCode(error))) return null;
    throw error;
  }
}

async function syncEntries(path: string): Promise<void> {
  const descriptor = await open(path, constants.O_RDONLY);
  try {
    await syncAll(descriptor);
  } finally {
    await close(descriptor);
  }
}

/** Names a process beyond its number: numbers are used again. */
async function processIdentity(pid: number): Promise<string | null> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) === "ESRCH") return null;
  }
  try {
    const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const status = await readFile(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses and may hold anything.
    const startTicks = status.slice(status.lastIndexOf(")") + 2).split(" ")[19];
    return `${pid} ${bootId} ${startTicks}`;
  } catch {
    // Not Linux: the number alone must do.
    return `${pid}`;
  }
}

/** Content of a lock that its owner has given back. */
const RELEASED = "released\n";

/** The highest number among the files `<path>.<number>`, or 0. */
async function highestLock(path: string): Promise<number> {
  let highest = 0;
  const prefix = `${basename(path)}.`;
  for (const name of await readdir(dirname(path))) {
    if (!name.startsWith(prefix)) continue;
    const number = name.slice(prefix.length);
    if (/^[0-9]{1,15}$/.test(number)) highest = Math.max(highest, Number(number));
  }
  return highest;
}

/** No content of a lock is longer. */
const LOCK_BYTES_MAX = 256;
/** Locks that are tried one after the other before it is given up. */
const LOCK_ATTEMPTS_MAX = 1000;

/**
 * What a lock says: null when there is none, nothing when it is no file. Follows no link and waits for
 * nobody.
 */
async function lockContent(path: string): Promise<string | null> {
  let descriptor: number;
  try {
    descriptor = await open(path, READ_FLAGS);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    if (NOT_REGULAR_CODES.has(errorCode(error))) return "";
    throw error;
  }
  try {
    if (!(await stat(descriptor)).isFile()) return "";
    const bytes = privateBytes(LOCK_BYTES_MAX);
    const count = await read(descriptor, [bytes], 0);
    return Buffer.from(bytes.buffer, 0, count).toString();
  } finally {
    await close(descriptor);
  }
}

/** Who holds a lock, without an attempt to take it. */
export interface LockState {
  /** Its owner is alive, and has not given it back. */
  readonly isHeld: boolean;
  /** Differs whenever the lock was taken or given back in between. */
  readonly mark: string;
}

/** Looks at a lock and changes nothing. @throws The file system's own error. */
export async function lockState(path: string): Promise<LockState> {
  const highest = await highestLock(path);
  const content = highest === 0 ? null : await lockContent(`${path}.${highest}`);
  return { isHeld: content !== null && (await isHeld(content)), mark: `${highest} ${content}` };
}

/** Whether whoever wrote this lock is alive and has not given it back. */
async function isHeld(content: string): Promise<boolean> {
  if (content === RELEASED) return false;
  const pid = Number.parseInt(content, 10);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  return `${await processIdentity(pid)}\n` === content;
}

/**
 * Locks are numbered, and only the highest counts. A lock that is dead or given back is never
 * removed before a higher one exists, so the next number can be had by exactly one process: whoever
 * links it first.
 */
async function tryLock(path: string): Promise<FileLock | null> {
  const identity = `${await processIdentity(process.pid)}\n`;
  const ticket = `${path}.${process.pid}.${randomName(systemRandom)}`;
  const writeTicket = (content: string) => writeFile(ticket, content, { flag: "wx", mode: 0o600 });
  // The content must be there before the name is: write a ticket, then link it.
  await writeTicket(identity);
  try {
    for (let attempt = 0; attempt < LOCK_ATTEMPTS_MAX; attempt++) {
      const highest = await highestLock(path);
      const content = await lockContent(`${path}.${highest}`);
      if (highest > 0 && content === null) continue;
      if (content !== null && (await isHeld(content))) return null;
      const number = highest + 1;
      const own = `${path}.${number}`;
      try {
        await link(ticket, own);
      } catch (error) {
        if (errorCode(error) === "EEXIST") continue;
        throw error;
      }
      // The directory may have been read before others came and went.
      if ((await highestLock(path)) > number) {
        await rm(own, { force: true });
        continue;
      }
      await rm(ticket, { force: true });
      for (let lower = highest; lower > 0; lower--) {
        // One that stays does no harm: it is not the highest.
        const isGone = await unlink(`${path}.${lower}`).then(
          () => true,
          () => false,
        );
        if (!isGone) break;
      }
      return {
        release: async () => {
          await writeTicket(RELEASED);
          await rename(ticket, own);
        },
      };
    }
    throw Object.assign(new Error(`no lock can be had at ${path}`), { code: "EBUSY" });
  } finally {
    await rm(ticket, { force: true });
  }
}

export const nodeFileSystem: FileSystem = {
  join,
  makeDirectory: async (path) => {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    // Each new directory is an entry of its parent, which a power cut could take with all in it.
    const top = dirname(resolve(first));
    let created = resolve(path);
    while (created !== top) {
      created = dirname(created);
      await syncEntries(created);
    }
  },
  list: async (path) => {
    const names = (await readdir(path, { withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map(({ name }) => name);
    const files = [];
    for (let start = 0; start < names.length; start += STAT_COUNT_MAX) {
      const part = names.slice(start, start + STAT_COUNT_MAX);
      const found = await Promise.all(
        part.map((name) => orIfMissing(lstat(join(path, name)), null)),
      );
      for (const [index, stats] of found.entries()) {
        if (stats?.isFile() !== true) continue;
        files.push({ name: part[index] as string, byteLength: stats.size });
      }
    }
    return files;
  },
  create: async (path) => {
    const descriptor = await open(path, "wx+", 0o600);
    let endOffset = 0;
    return {
      write: async (sources, offset) => {
        const count = await write(descriptor, sources, offset, endOffset);
        endOffset = Math.max(endOffset, offset + count);
        return count;
      },
      read: (targets, offset) => read(descriptor, targets, offset),
      // The length is flushed too: it is needed to find the data.
      sync: () => sync(descriptor),
      close: () => close(descriptor),
    };
  },
  openRead: async (path) => {
    const descriptor = await openRegular(path);
    if (descriptor === null) return null;
    // Neither call waits for the device: the system has the answer, and nothing is left to be written.
    // Through the pool of threads each would take longer than it takes to read a short tensor.
    const closeRead = async () => fs.closeSync(descriptor);
    let found: fs.Stats;
    try {
      found = fs.fstatSync(descriptor);
    } catch (error) {
      await closeRead();
      throw error;
    }
    if (!isOwnFile(found)) {
      await closeRead();
      return null;
    }
    return {
      byteLength: found.size,
      read: (targets, offset) => read(descriptor, targets, offset),
      close: closeRead,
    };
  },
  rename,
  remove: (path) =>
    orIfMissing(
      unlink(path).then(() => true),
      false,
    ),
  syncDirectory: syncEntries,
  tryLock,
};
