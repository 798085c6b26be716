// A file system in memory that logs every change, so that a test can rebuild each state in which a
// power cut may leave a disk: what is not synced may be lost. Locks are not part of the disk.
import type { FileSystem } from "../tier/file-system.js";

/** One change, as the device would see it. `file` numbers files; a name may pass between them. */
export type FileOperation =
  | { readonly type: "create"; readonly path: string; readonly file: number }
  | {
      readonly type: "write";
      readonly file: number;
      readonly offset: number;
      readonly bytes: Uint8Array;
    }
  | { readonly type: "sync"; readonly file: number }
  | { readonly type: "rename"; readonly source: string; readonly target: string }
  | { readonly type: "remove"; readonly path: string }
  | { readonly type: "sync-directory"; readonly path: string };

export interface MemoryFileSystem extends FileSystem {
  /** Every change since the start, in order. */
  readonly operations: readonly FileOperation[];
  /** Paths and bytes of all files; the bytes may be changed to damage them. */
  files(): Map<string, Uint8Array>;
  /** Puts a file there, as an earlier process would have left it. Not logged. */
  plant(path: string, bytes: Uint8Array): void;
}

interface Inode {
  readonly file: number;
  bytes: Uint8Array;
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

function joined(sources: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(sources.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let offset = 0;
  for (const source of sources) {
    bytes.set(source, offset);
    offset += source.byteLength;
  }
  return bytes;
}

function readInode(inode: Inode, targets: readonly Uint8Array[], offset: number): number {
  let count = 0;
  for (const target of targets) {
    const start = offset + count;
    const part = inode.bytes.subarray(start, start + target.byteLength);
    target.set(part);
    count += part.byteLength;
  }
  return count;
}

export function memoryFileSystem(): MemoryFileSystem {
  const inodes = new Map<string, Inode>();
  const directories = new Set<string>();
  const locks = new Set<string>();
  const operations: FileOperation[] = [];
  let fileCount = 0;

  const parentOf = (path: string) => path.slice(0, path.lastIndexOf("/"));
  const checkParent = (path: string) => {
    if (!directories.has(parentOf(path))) throw systemError("ENOENT", path);
  };

  return {
    operations,
    files: () => new Map([...inodes].map(([path, { bytes }]) => [path, bytes])),
    plant: (path, bytes) => {
      directories.add(parentOf(path));
      inodes.set(path, { file: ++fileCount, bytes });
    },
    join: (directory, name) => `${directory}/${name}`,
    makeDirectory: async (path) => {
      let parent = path;
      while (parent !== "") {
        if (inodes.has(parent)) throw systemError("ENOTDIR", path);
        directories.add(parent);
        parent = parentOf(parent);
      }
    },
    list: async (path) => {
      if (!directories.has(path)) throw systemError("ENOENT", path);
      return [...inodes]
        .filter(([file]) => parentOf(file) === path)
        .map(([file, { bytes }]) => ({
          name: file.slice(path.length + 1),
          byteLength: bytes.byteLength,
        }));
    },
    create: async (path) => {
      checkParent(path);
      if (inodes.has(path) || directories.has(path)) throw systemError("EEXIST", path);
      const inode: Inode = { file: ++fileCount, bytes: new Uint8Array(0) };
      inodes.set(path, inode);
      operations.push({ type: "create", path, file: inode.file });
      let isOpen = true;
      const checkOpen = () => {
        if (!isOpen) throw systemError("EBADF", path);
      };
      return {
        write: async (sources, offset) => {
          checkOpen();
          const source = joined(sources);
          const endOffset = offset + source.byteLength;
          if (endOffset > inode.bytes.byteLength) {
            const longer = new Uint8Array(endOffset);
            longer.set(inode.bytes);
            inode.bytes = longer;
          }
          inode.bytes.set(source, offset);
          operations.push({ type: "write", file: inode.file, offset, bytes: source });
          return source.byteLength;
        },
        read: async (targets, offset) => {
          checkOpen();
          return readInode(inode, targets, offset);
        },
        sync: async () => {
          checkOpen();
          operations.push({ type: "sync", file: inode.file });
        },
        close: async () => {
          checkOpen();
          isOpen = false;
        },
      };
    },
    openRead: async (path) => {
      const inode = inodes.get(path);
      if (inode === undefined) return null;
      return {
        byteLength: inode.bytes.byteLength,
        read: async (targets, offset) => readInode(inode, targets, offset),
        close: async () => {},
      };
    },
    rename: async (sourcePath, targetPath) => {
      const inode = inodes.get(sourcePath);
      if (inode === undefined) throw systemError("ENOENT", sourcePath);
      checkParent(targetPath);
      if (directories.has(targetPath)) throw systemError("EISDIR", targetPath);
      inodes.delete(sourcePath);
      inodes.set(targetPath, inode);
      operations.push({ type: "rename", source: sourcePath, target: targetPath });
    },
    remove: async (path) => {
      const existed = inodes.delete(path);
      if (existed) operations.push({ type: "remove", path });
      return existed;
    },
    syncDirectory: async (path) => {
      if (!directories.has(path)) throw systemError("ENOENT", path);
      operations.push({ type: "sync-directory", path });
    },
    tryLock: async (path) => {
      if (locks.has(path)) return null;
      locks.add(path);
      return {
        release: async () => {
          locks.delete(path);
        },
      };
    },
  };
}
