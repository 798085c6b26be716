// Writes tensors as a safetensors file: a stream of chunks, the same for the same tensors.
import { MisuseError, throwIfAborted } from "../../errors.js";
import { checkObject, checkSignal } from "../../memory/checks.js";
import type { Pin } from "../../memory/pin.js";
import { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import { privateCopy } from "../../util/private-bytes.js";
import { formatDtypeOf, rankOf } from "./dtypes.js";
import {
  checkMetadata,
  checkName,
  denseBytes,
  formatHeader,
  HEADER_BYTES_MAX,
  type SafetensorsEntry,
} from "./header.js";
import { SafetensorsError } from "./safetensors-error.js";

/** A tensor that is to be written. What `loadSafetensors` gives is one. */
export interface SavedTensor {
  readonly name: string;
  /** null: without elements; `dtype` and `shape` then say which. */
  readonly tensor: Tensor | null;
  /** The format's name of the element type. Default: the tensor's own. */
  readonly dtype?: string | undefined;
  /** Default: the tensor's own. */
  readonly shape?: readonly number[] | undefined;
}

export interface SaveSafetensorsOptions {
  /** What the file says about itself. Default: nothing. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface CheckedTensor extends SafetensorsEntry {
  readonly tensor: Tensor | null;
}

/** Copied and given to the caller at once. */
const CHUNK_BYTES = 2 ** 20;

function checkSaved(memory: TensorMemory, saved: SavedTensor): CheckedTensor {
  checkObject(saved, "saveSafetensors", ["name", "tensor", "dtype", "shape", "byteLength"]);
  const { tensor } = saved;
  const name = checkName(saved.name);
  if (tensor !== null) {
    if (tensor.isFreed) throw new MisuseError("freed", `${describe(name)} was freed`);
    const held = tensor.id === null ? tensor : memory.tensor(tensor.id);
    if (held === null || Tensor.recordOf(held) !== Tensor.recordOf(tensor)) {
      throw new MisuseError("foreign-handle", `${describe(name)} is of another memory`);
    }
  }
  const dtype = saved.dtype ?? (tensor === null ? undefined : formatDtypeOf(tensor.dtype));
  const shape = saved.shape ?? tensor?.shape;
  const byteLength = denseBytes(name, dtype, shape);
  if (byteLength !== (tensor?.byteLength ?? 0)) {
    const problem = `${describe(name)} has ${tensor?.byteLength ?? 0} bytes`;
    throw new SafetensorsError("size-mismatch", `${problem} instead of ${byteLength}`);
  }
  return { name, dtype: dtype as string, shape: [...(shape as number[])], byteLength, tensor };
}

/** By the order of element types, so that each tensor lies at a multiple of its element; then by name. */
function compareSaved(one: CheckedTensor, other: CheckedTensor): number {
  return rankOf(one.dtype) - rankOf(other.dtype) || (one.name < other.name ? -1 : 1);
}

async function pinForReading(
  memory: TensorMemory,
  tensor: Tensor,
  signal: AbortSignal | undefined,
): Promise<Pin> {
  if (tensor.id === null || tensor.isFreed) return tensor.pin({ access: "read" });
  const lease = await memory.acquire(tensor.id, { access: "read", signal });
  if (lease !== null) return lease;
  throw new MisuseError("freed", `${describe(tensor.id)} was freed, or dropped under pressure`);
}

async function* chunksOf(
  memory: TensorMemory,
  header: Uint8Array<ArrayBuffer>,
  tensors: readonly CheckedTensor[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  throwIfAborted(signal, "safetensors");
  yield header;
  for (const { name, tensor } of tensors) {
    if (tensor === null) continue;
    const pin = await pinForReading(memory, tensor, signal);
    try {
      const record = Tensor.recordOf(tensor);
      const { version } = record;
      const { bytes } = pin;
      for (let start = 0; start < bytes.byteLength; start += CHUNK_BYTES) {
        throwIfAborted(signal, "safetensors");
        if (record.version !== version || record.writePinCount > 0) {
          throw new MisuseError("overwritten", `${describe(name)} is written while it is saved`);
        }
        yield privateCopy(bytes.subarray(start, start + CHUNK_BYTES));
      }
    } finally {
      pin[Symbol.dispose]();
    }
  }
}

/**
 * The bytes of a safetensors file with these tensors, in chunks of at most a mebibyte but for the header.
 *
 * @param tensors With different names, in any order: the file has an order of its own.
 * @returns Chunks, which belong to the caller. Node writes them with `writeFile(path, chunks)`; in a
 *   browser they make a stream.
 * @throws {SafetensorsError} At once: `bad-name`, `duplicate-name`, `bad-dtype`, `bad-shape`,
 *   `size-mismatch`, `bad-metadata`; `header-length` — the header is longer than readers allow.
 * @throws {MisuseError} At once: `freed`, `foreign-handle`, `bad-option`. While chunks are taken:
 *   `overwritten` — a tensor is open for writing, or was since its first chunk; `freed`.
 * @throws {TierError} `aborted`, and as `TensorMemory.acquire`, while chunks are taken.
 * @remarks Equal tensors and metadata give equal bytes. One tensor is pinned at a time, until its last
 *   chunk is taken or the iteration ends.
 */
export function saveSafetensors(
  memory: TensorMemory,
  tensors: Iterable<SavedTensor>,
  options: SaveSafetensorsOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  checkObject(options, "saveSafetensors", ["metadata", "signal"]);
  const signal = checkSignal(options.signal);
  const metadata = checkMetadata(options.metadata ?? {});
  const checked = Array.from(tensors, (saved) => checkSaved(memory, saved)).sort(compareSaved);
  const names = new Set<string>();
  for (const { name } of checked) {
    if (names.has(name)) throw new SafetensorsError("duplicate-name", `${describe(name)} twice`);
    names.add(name);
  }
  const header = formatHeader(metadata, checked);
  if (header.byteLength > HEADER_BYTES_MAX) {
    throw new SafetensorsError("header-length", `a header of ${header.byteLength} bytes`);
  }
  return chunksOf(memory, header, checked, signal);
}
