// The real file system of Node, behind the seam.
import { constants } from "node:fs";
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  unlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { randomName, systemRandom } from "../random.js";
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

/** null for nothing, and for a link that is not followed. */
async function openRegular(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, READ_FLAGS);
  } catch (error) {
    if (NOT_REGULAR_CODES.has(errorCode(error))) return null;
    throw error;
  }
}

async function syncEntries(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
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

async function tryLock(path: string): Promise<FileLock | null> {
  const identity = `${await processIdentity(process.pid)}\n`;
  const ticket = `${path}.${process.pid}.${randomName(systemRandom)}`;
  // The content must be there before the name is: write a ticket, then link it.
  await writeFile(ticket, identity, { flag: "wx", mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        await link(ticket, path);
        return {
          release: async () => {
            if ((await orIfMissing(readFile(path, "utf8"), "")) === identity) await unlink(path);
          },
        };
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
      }
      const owner = await orIfMissing(readFile(path, "utf8"), null);
      if (owner === null) continue;
      const pid = Number.parseInt(owner, 10);
      const living = Number.isSafeInteger(pid) && pid > 0 ? await processIdentity(pid) : null;
      if (living !== null && `${living}\n` === owner) return null;
      // The owner is dead. Whoever renames the dead lock away may try again; if it was replaced by
      // a living one in the meantime, that one is put back.
      const grave = `${ticket}.dead`;
      await orIfMissing(rename(path, grave), undefined);
      const buried = await orIfMissing(readFile(grave, "utf8"), null);
      if (buried !== null && buried !== owner) {
        await link(grave, path).catch(() => {});
        await unlink(grave);
        return null;
      }
      await rm(grave, { force: true });
    }
    return null;
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
    const files = [];
    for (const entry of await readdir(path, { withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const found = await orIfMissing(stat(join(path, entry.name)), null);
      if (found !== null) files.push({ name: entry.name, byteLength: found.size });
    }
    return files;
  },
  create: async (path) => {
    const handle = await open(path, "wx", 0o600);
    return {
      write: async (source, offset) =>
        (await handle.write(source, 0, source.byteLength, offset)).bytesWritten,
      sync: () => handle.sync(),
      close: () => handle.close(),
    };
  },
  openRead: async (path) => {
    const handle = await openRegular(path);
    if (handle === null) return null;
    const found = await handle.stat();
    if (!found.isFile() || found.nlink !== 1) {
      await handle.close();
      return null;
    }
    return {
      byteLength: found.size,
      read: async (target, offset) =>
        (await handle.read(target, 0, target.byteLength, offset)).bytesRead,
      close: () => handle.close(),
    };
  },
  rename: (sourcePath, targetPath) => rename(sourcePath, targetPath),
  remove: (path) =>
    orIfMissing(
      unlink(path).then(() => true),
      false,
    ),
  syncDirectory: syncEntries,
  tryLock,
};
