// A decorator that makes one operation of a file system fail, once or from then on.
import type { FileReader, FileSystem, FileWriter } from "../tier/file-system.js";
import { privateLength, privateParts } from "../util/private-bytes.js";

/** Codes of the faults that a device or a system shows. */
export type FaultCode = "EIO" | "ENOSPC" | "EDQUOT" | "EMFILE" | "EACCES";

export interface FaultPlan {
  /** Number of the operation that fails; the first is 1. 0: none, to count them. */
  readonly at: number;
  readonly code: FaultCode;
  /** `"for-ever"`: every later operation fails too. Default: `"once"`. */
  readonly lasts?: "once" | "for-ever";
  /**
   * What a write does. `"fail"`: nothing is written. `"short"`: half is written and said so, no
   * error. `"short-then-fail"`: half is written and said so, and the next operation fails.
   * `"torn-then-stop"`: half is written, and no operation works any more. Operations other than
   * writes fail in every case but `"short"`. Default: `"fail"`.
   */
  readonly write?: "fail" | "short" | "short-then-fail" | "torn-then-stop";
}

export interface FaultyFileSystem extends FileSystem {
  /** Operations so far. */
  readonly operationCount: number;
  /** Faults so far. */
  readonly faultCount: number;
  /** Name of the first operation that failed, such as `"rename"`; empty before. */
  readonly faultyOperation: string;
}

export function faultyFileSystem(inner: FileSystem, plan: FaultPlan): FaultyFileSystem {
  const mode = plan.write ?? "fail";
  let operationCount = 0;
  let faultCount = 0;
  let faultyOperation = "";
  let failsNext = false;
  let isStopped = false;

  const fail = (operation: string): never => {
    faultCount += 1;
    faultyOperation ||= operation;
    throw Object.assign(new Error(`${plan.code} (injected into ${operation})`), {
      code: plan.code,
    });
  };
  /** @returns Whether the plan is about this operation. */
  const isDue = (operation: string): boolean => {
    operationCount += 1;
    if (isStopped || failsNext) {
      failsNext = false;
      fail(operation);
    }
    if (plan.at === 0) return false;
    return plan.lasts === "for-ever" ? operationCount >= plan.at : operationCount === plan.at;
  };
  const pass = (operation: string) => {
    if (isDue(operation) && mode !== "short") fail(operation);
  };

  const faultyRead: (
    reader: Pick<FileReader, "read">,
    ...at: Parameters<FileReader["read"]>
  ) => Promise<number> = async (reader, targets, offset) => {
    if (!isDue("read")) return reader.read(targets, offset);
    if (mode !== "short") return fail("read");
    const byteLength = privateLength(targets);
    if (byteLength < 2) return reader.read(targets, offset);
    faultCount += 1;
    faultyOperation ||= "read";
    return reader.read(privateParts(targets, 0, byteLength >> 1), offset);
  };

  const faultyWriter = (writer: FileWriter): FileWriter => ({
    write: async (sources, offset) => {
      if (!isDue("write")) return writer.write(sources, offset);
      if (mode === "fail") return fail("write");
      const byteLength = privateLength(sources);
      if (byteLength < 2) return mode === "short" ? writer.write(sources, offset) : fail("write");
      const count = await writer.write(privateParts(sources, 0, byteLength >> 1), offset);
      faultyOperation ||= "write";
      if (mode === "short-then-fail") failsNext = true;
      else faultCount += 1;
      if (mode !== "torn-then-stop") return count;
      isStopped = true;
      return fail("write");
    },
    read: (targets, offset) => faultyRead(writer, targets, offset),
    sync: async () => {
      pass("sync");
      await writer.sync();
    },
    close: async () => {
      // The descriptor is given back, whatever close says.
      await writer.close();
      pass("close");
    },
  });
  const faultyReader = (reader: FileReader): FileReader => ({
    byteLength: reader.byteLength,
    read: (targets, offset) => faultyRead(reader, targets, offset),
    close: async () => {
      await reader.close();
      pass("close");
    },
  });

  return {
    get operationCount() {
      return operationCount;
    },
    get faultCount() {
      return faultCount;
    },
    get faultyOperation() {
      return faultyOperation;
    },
    join: (directory, name) => inner.join(directory, name),
    makeDirectory: async (path) => {
      pass("makeDirectory");
      await inner.makeDirectory(path);
    },
    list: async (path) => {
      pass("list");
      return inner.list(path);
    },
    create: async (path) => {
      pass("create");
      return faultyWriter(await inner.create(path));
    },
    openRead: async (path) => {
      pass("openRead");
      const reader = await inner.openRead(path);
      return reader === null ? null : faultyReader(reader);
    },
    rename: async (sourcePath, targetPath) => {
      pass("rename");
      await inner.rename(sourcePath, targetPath);
    },
    remove: async (path) => {
      pass("remove");
      return inner.remove(path);
    },
    syncDirectory: async (path) => {
      pass("syncDirectory");
      await inner.syncDirectory(path);
    },
    tryLock: async (path) => {
      pass("tryLock");
      return inner.tryLock(path);
    },
  };
}
