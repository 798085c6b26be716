// Safetensors files by path, in Node: each read goes straight into the block of a tensor.
import { open } from "node:fs/promises";
import { TierError } from "../../errors.js";
import { describe } from "../../types.js";
import type { ByteRangeReader } from "./source.js";

/** A file that is open until it is closed. */
export interface FileSource extends ByteRangeReader {
  close(): Promise<void>;
}

async function withIoError<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    const problem = `cannot read ${describe(path)} ${code}`.trim();
    throw new TierError("io", "safetensors", problem, { cause: error });
  }
}

/** @throws {TierError} `io` — there is no such file, or it cannot be read. */
export async function openFileSource(path: string): Promise<FileSource> {
  return withIoError(path, async () => {
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      return {
        byteLength: size,
        readInto: (target, offset) =>
          withIoError(path, async () => {
            const { bytesRead } = await file.read(target, 0, target.byteLength, offset);
            return bytesRead;
          }),
        close: () => file.close(),
      };
    } catch (error) {
      await file.close();
      throw error;
    }
  });
}
