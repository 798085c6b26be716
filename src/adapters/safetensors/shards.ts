// The index of a model in several files: which tensor is in which of them.
//
// Source: Hugging Face Hub documentation, "Safetensors: sharded models" — `weight_map`.
import { describe } from "../../types.js";
import { privateBytes } from "../../util/private-bytes.js";
import { isJsonObject, parseStrictJson } from "./json-tokens.js";
import { SafetensorsError } from "./safetensors-error.js";
import { type ByteRangeReader, readFully } from "./source.js";

/** Letters, digits, dots, dashes, underscores and blanks; not only dots. */
const FILE_NAME = /^(?!\.+$)[\p{L}\p{N}._ -]+$/u;

function refuse(problem: string, cause?: unknown): SafetensorsError {
  return new SafetensorsError("bad-index", `the index ${problem}`, { cause });
}

/**
 * Names of tensors by the name of their file, in the order in which the index first names the files.
 *
 * @throws {SafetensorsError} `bad-index`; `truncated`.
 */
export async function parseIndex(
  reader: ByteRangeReader,
  bytesMax: number,
  signal: AbortSignal | undefined,
): Promise<Map<string, Set<string>>> {
  if (reader.byteLength > bytesMax) throw refuse(`is longer than ${bytesMax} bytes`);
  const bytes = privateBytes(reader.byteLength);
  await readFully(reader, bytes, 0, signal);
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = parseStrictJson(text, { numbers: "any" });
  } catch (error) {
    throw refuse("is not JSON with each name once", error);
  }
  const map = isJsonObject(value) ? value["weight_map"] : undefined;
  if (!isJsonObject(map)) throw refuse("has no weight_map");
  const shards = new Map<string, Set<string>>();
  for (const [name, fileName] of Object.entries(map)) {
    if (typeof fileName !== "string" || !FILE_NAME.test(fileName)) {
      throw refuse(`names ${describe(fileName)}, which is not a plain file name`);
    }
    const names = shards.get(fileName) ?? new Set();
    shards.set(fileName, names.add(name));
  }
  if (shards.size === 0) throw refuse("names no tensor");
  return shards;
}
