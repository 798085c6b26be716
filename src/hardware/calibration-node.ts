// Where Node keeps a calibration: in a file beside the store's directory, under its name.
import { rmdir } from "node:fs/promises";
import { arch, cpus, platform, release } from "node:os";
import { resolve } from "node:path";
import { type Random, randomName, systemRandom } from "../random.js";
import type { FileReader, FileSystem } from "../tier/file-system.js";
import { nodeFileSystem } from "../tier/file-system-node.js";
import { FsTier } from "../tier/fs.js";
import { privateBytes, privateCopy, privatePart } from "../util/private-bytes.js";
import type { CalibrationPlace } from "./calibration.js";
import { detectHardware } from "./detect-node.js";

/** A longer file is none of ours. */
const FILE_BYTES_MAX = 65_536;
const CAPACITY_BYTES = 64 * 2 ** 20;

/** The file that belongs to a store's directory. */
export function calibrationPath(directory: string): string {
  return `${resolve(directory)}-calibration.json`;
}

/** Changes with the processor, the memory, what a container may use, the system and Node's version. */
export function describeMachine(): string {
  const { machine = {} } = detectHardware();
  const model = cpus()[0]?.model.trim() ?? "unknown processor";
  const memoryGib = Math.round((machine.memoryBytes ?? 0) / 2 ** 30);
  const system = `${platform()} ${release()} ${arch()}`;
  const version = process.versions.node.split(".")[0];
  return `${model} x ${machine.threadCount ?? 1}, ${memoryGib} GiB, ${system}, Node ${version}`;
}

export function nodeCalibrationPlace(parts: {
  readonly directory: string;
  readonly fileSystem?: FileSystem | undefined;
  readonly random?: Random | undefined;
}): CalibrationPlace {
  const { directory, fileSystem = nodeFileSystem, random = systemRandom } = parts;
  const path = calibrationPath(directory);
  const measuringPath = `${resolve(directory)}-calibrating-${randomName(random)}`;
  return {
    machine: describeMachine(),
    read: async () => {
      const file = await fileSystem.openRead(path);
      if (file === null) return null;
      try {
        return await readText(file);
      } finally {
        await file.close();
      }
    },
    write: async (text) => {
      const temporaryPath = `${path}.${randomName(random)}`;
      const bytes = privateCopy(new TextEncoder().encode(text));
      const file = await fileSystem.create(temporaryPath);
      try {
        for (let offset = 0; offset < bytes.byteLength; ) {
          const rest = privatePart(bytes, offset, bytes.byteLength);
          const count = await file.write([rest], offset);
          if (count === 0) throw new Error("the file takes no bytes");
          offset += count;
        }
        await file.close();
        await fileSystem.rename(temporaryPath, path);
      } catch (error) {
        await file.close().catch(() => {});
        await fileSystem.remove(temporaryPath).catch(() => {});
        throw error;
      }
    },
    makeTier: () =>
      new FsTier({
        ...{ name: "calibration", directory: measuringPath, fileSystem },
        ...{ capacityBytes: CAPACITY_BYTES, random },
      }),
    removeTier: async () => {
      const files = await fileSystem.list(measuringPath);
      for (const { name } of files) await fileSystem.remove(fileSystem.join(measuringPath, name));
      // A directory that was never made, or that somebody put something into, is left alone.
      await rmdir(measuringPath).catch(() => {});
    },
  };
}

async function readText(file: FileReader): Promise<string> {
  const bytes = privateBytes(Math.min(file.byteLength, FILE_BYTES_MAX));
  let count = 0;
  while (count < bytes.byteLength) {
    const more = await file.read([privatePart(bytes, count, bytes.byteLength)], count);
    if (more === 0) break;
    count += more;
  }
  return new TextDecoder().decode(bytes.subarray(0, count));
}
