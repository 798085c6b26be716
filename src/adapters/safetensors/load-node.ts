// As load.ts, and in Node by path.
import { basename, dirname, join } from "node:path";
import type { TensorMemory } from "../../tensor-memory.js";
import { type FileSource, openFileSource } from "./file-source-node.js";
import {
  type LoadedSafetensors,
  type LoadSafetensorsOptions,
  loadSafetensors as loadFromSource,
  loadShardedSafetensors,
} from "./load.js";
import type { SafetensorsSource } from "./source.js";

const INDEX_END = ".index.json";

/**
 * As the one for browsers; `source` may also be the path of a file, or of the index of a model in several
 * files, which ends in `.index.json` and lies beside them.
 *
 * @throws {TierError} `io` — a file is missing or cannot be read.
 */
export async function loadSafetensors(
  memory: TensorMemory,
  source: SafetensorsSource | string,
  options: LoadSafetensorsOptions = {},
): Promise<LoadedSafetensors> {
  if (typeof source !== "string") return loadFromSource(memory, source, options);
  const files: FileSource[] = [];
  const openAt = async (path: string) => {
    const file = await openFileSource(path);
    files.push(file);
    return file;
  };
  try {
    const first = await openAt(source);
    if (!basename(source).endsWith(INDEX_END)) return await loadFromSource(memory, first, options);
    const open = (fileName: string) => openAt(join(dirname(source), fileName));
    return await loadShardedSafetensors(memory, { index: first, open }, options);
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
}
