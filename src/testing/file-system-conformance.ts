// Conformance suite of the seam `tier/file-system.ts`.
import type { FileSystem } from "../tier/file-system.js";
import {
  type PrivateBytes,
  privateBytes,
  privateCopy,
  privatePart,
} from "../util/private-bytes.js";
import {
  assert,
  assertBytes,
  assertEqual,
  assertRejects,
  type ConformanceCase,
} from "./conformance.js";

/** A file system to test, and a directory in it that does not exist yet. */
export interface FileSystemFixture {
  readonly fileSystem: FileSystem;
  readonly directory: string;
  dispose(): Promise<void>;
}

const text = (value: string) => privateCopy(new TextEncoder().encode(value));

async function put(fileSystem: FileSystem, path: string, bytes: PrivateBytes): Promise<void> {
  const writer = await fileSystem.create(path);
  for (let done = 0; done < bytes.byteLength; ) {
    const count = await writer.write([privatePart(bytes, done, bytes.byteLength)], done);
    assert(count > 0, "a write takes nothing");
    done += count;
  }
  await writer.sync();
  await writer.close();
}

async function get(fileSystem: FileSystem, path: string): Promise<PrivateBytes | null> {
  const reader = await fileSystem.openRead(path);
  if (reader === null) return null;
  const bytes = privateBytes(reader.byteLength);
  assertEqual(await reader.read([bytes], 0), bytes.byteLength, "bytes read");
  assertEqual(await reader.read([privateBytes(4)], bytes.byteLength), 0, "bytes read at the end");
  await reader.close();
  return bytes;
}

/** What some file systems do not offer, each with the reason that its cases are skipped for. */
export interface FileSystemLacks {
  /** Writes behind their caller. */
  readonly writesBehind?: string;
}

/**
 * @param make Gives a file system and a fresh directory's name.
 * @param lacks What this file system does not offer.
 */
export function fileSystemConformance(
  make: () => Promise<FileSystemFixture>,
  lacks: FileSystemLacks = {},
): ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    run: (
      fileSystem: FileSystem,
      path: (name: string) => string,
      directory: string,
    ) => Promise<void>,
    skip?: string,
  ) => {
    cases.push({
      name,
      skip,
      run: async () => {
        const { fileSystem, directory, dispose } = await make();
        try {
          await fileSystem.makeDirectory(directory);
          await run(fileSystem, (name) => fileSystem.join(directory, name), directory);
        } finally {
          await dispose();
        }
      },
    });
  };

  add("makes a directory again without harm", async (files, path, directory) => {
    await put(files, path("a"), text("one"));
    await files.makeDirectory(directory);
    assertEqual((await files.list(directory)).length, 1, "number of files");
  });
  add("reads back what was written", async (files, path) => {
    await put(files, path("a"), text("some bytes"));
    assertBytes((await get(files, path("a"))) ?? privateBytes(0), text("some bytes"), "the file");
  });
  add("writes at an offset", async (files, path) => {
    const writer = await files.create(path("a"));
    await writer.write([text("abc"), text("def")], 0);
    await writer.write([text("XY")], 2);
    await writer.write([text("gh")], 6);
    await writer.close();
    assertBytes((await get(files, path("a"))) ?? privateBytes(0), text("abXYefgh"), "the file");
  });
  add("reads into several targets, also what is still being written", async (files, path) => {
    const writer = await files.create(path("a"));
    await writer.write([text("abcdef")], 0);
    const parts = [privateBytes(2), privateBytes(3)];
    assertEqual(await writer.read(parts, 1), 5, "bytes read by the writer");
    await writer.close();
    const reader = await files.openRead(path("a"));
    assert(reader !== null, "the file is missing");
    const others = [privateBytes(4), privateBytes(9)];
    assertEqual(await reader.read(others, 0), 6, "bytes read by the reader");
    await reader.close();
    for (const [index, expected] of ["bc", "def", "abcd", "ef\0\0\0\0\0\0\0"].entries()) {
      const bytes = [...parts, ...others][index] ?? privateBytes(0);
      assertBytes(bytes, text(expected), `target ${index}`);
    }
  });
  const writeBehind = async (files: FileSystem, path: (name: string) => string) => {
    const writer = await files.create(path("a"));
    assert(writer.writeBehind !== undefined, "the file system does not write behind its caller");
    const piece = text("abcd");
    for (let offset = 0; offset < 40; offset += 4) {
      piece.fill(97 + offset);
      await writer.writeBehind(piece, offset);
    }
    piece.fill(0);
    await writer.settle?.();
    await writer.close();
    const found = (await get(files, path("a"))) ?? privateBytes(0);
    assertEqual(found.byteLength, 40, "length");
    for (const [offset, byte] of found.entries())
      assertEqual(byte, 97 + offset - (offset % 4), `byte ${offset}`);
  };
  add("writes copies behind its caller", writeBehind, lacks.writesBehind);
  add("refuses to create a file that exists", async (files, path) => {
    await put(files, path("a"), text("one"));
    await assertRejects(() => files.create(path("a")), ["EEXIST"], "create");
  });
  add("opens nothing where no regular file is", async (files, path) => {
    assertEqual(await files.openRead(path("missing")), null, "a missing file");
    await files.makeDirectory(path("directory"));
    assertEqual(await files.openRead(path("directory")), null, "a directory");
  });
  add("lists regular files with their sizes", async (files, path, directory) => {
    await put(files, path("a"), text("1"));
    await put(files, path("b"), text("22"));
    await files.makeDirectory(path("directory"));
    const found = (await files.list(directory)).map((file) => `${file.name}:${file.byteLength}`);
    assertEqual(found.sort().join(" "), "a:1 b:2", "the list");
  });
  add("renames over an existing file", async (files, path, directory) => {
    await put(files, path("a"), text("new"));
    await put(files, path("b"), text("old"));
    await files.rename(path("a"), path("b"));
    await files.syncDirectory(directory);
    assertEqual(await files.openRead(path("a")), null, "the old name");
    assertBytes((await get(files, path("b"))) ?? privateBytes(0), text("new"), "the new name");
  });
  add("keeps the file of an open reader when the name is replaced", async (files, path) => {
    await put(files, path("a"), text("old"));
    const reader = await files.openRead(path("a"));
    assert(reader !== null, "the file is missing");
    await put(files, path("b"), text("new"));
    await files.rename(path("b"), path("a"));
    const bytes = privateBytes(3);
    await reader.read([bytes], 0);
    await reader.close();
    assertBytes(bytes, text("old"), "what the open reader sees");
  });
  add("rejects a rename of nothing", async (files, path) => {
    await assertRejects(() => files.rename(path("a"), path("b")), ["ENOENT"], "rename");
  });
  add("removes a file once", async (files, path) => {
    await put(files, path("a"), text("1"));
    assertEqual(await files.remove(path("a")), true, "the first remove");
    assertEqual(await files.remove(path("a")), false, "the second remove");
    assertEqual(await files.openRead(path("a")), null, "the removed file");
  });
  add("gives a lock to one holder at a time", async (files, path) => {
    const lock = await files.tryLock(path("lock"));
    assert(lock !== null, "the first lock is refused");
    assertEqual(await files.tryLock(path("lock")), null, "the second lock");
    await lock.release();
    const again = await files.tryLock(path("lock"));
    assert(again !== null, "the lock is refused after its release");
    await again.release();
  });
  add(
    "leaves at most one file of a lock behind, however often it is taken",
    async (files, path, directory) => {
      for (let round = 0; round < 3; round++) {
        const lock = await files.tryLock(path("lock"));
        await files.tryLock(path("lock"));
        await lock?.release();
      }
      assert((await files.list(directory)).length <= 1, "too many files are left");
    },
  );
  return cases;
}
