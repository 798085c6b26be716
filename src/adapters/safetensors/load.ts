// Puts the tensors of safetensors files into the heap: everything is judged first, then each tensor gets
// its block, and the bytes are read into it. No copy is made on the way, and no file is held in memory.
import { MisuseError } from "../../errors.js";
import { TENSOR_BYTES_MAX } from "../../limits.js";
import { checkFlag, checkId, checkObject, checkSignal } from "../../memory/checks.js";
import type { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import {
  checkBytes,
  checkKind,
  type Dtype,
  describe,
  RANK_MAX,
  type TensorKind,
} from "../../types.js";
import { ownDtypeOf } from "./dtypes.js";
import { HEADER_BYTES_MAX, type PlacedEntry, readHeader, type SafetensorsEntry } from "./header.js";
import { SafetensorsError } from "./safetensors-error.js";
import { parseIndex } from "./shards.js";
import { type ByteRangeReader, readerOf, readFully, type SafetensorsSource } from "./source.js";

export interface LoadSafetensorsOptions {
  /**
   * The id of a tensor, or null for an anonymous one, which stays resident. Default: its name in the file.
   */
  readonly ids?: ((name: string) => string | null) | undefined;
  /** Default: `PARAMETERS` for all. */
  readonly kinds?: ((name: string) => TensorKind) | undefined;
  /** Which tensors to load. The others are judged with the rest of the header. Default: all. */
  readonly filter?: ((entry: SafetensorsEntry) => boolean) | undefined;
  /**
   * Whether tensors of equal content share one block; see `TensorMemory.intern`. Each then takes room for a
   * second one while it is loaded. Default: false.
   */
  readonly share?: boolean | undefined;
  /**
   * Whether pressure may drop them instead of writing them to a colder tier, since the file has them.
   * Default: false.
   */
  readonly disposable?: boolean | undefined;
  /**
   * What to do with element types that tensors do not have, such as `F8_E4M3`: refuse the file, or load
   * their bytes as `u8`. Default: `"refuse"`.
   */
  readonly foreign?: "refuse" | "bytes" | undefined;
  /** Longest header that is read. Default: 100,000,000, the format's own limit. */
  readonly headerBytesMax?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A tensor of a file, in the heap. What `saveSafetensors` takes. */
export interface LoadedTensor extends SafetensorsEntry {
  /** As the file says; a single value has the shape `[1]`. null: it has no elements. */
  readonly tensor: Tensor | null;
}

export interface LoadedSafetensors {
  /** What the file says about itself; of several files, all that they say, the last one's word counting. */
  readonly metadata: Readonly<Record<string, string>>;
  /** By name, in the order of the file. */
  readonly tensors: ReadonlyMap<string, LoadedTensor>;
  /** Of the tensors that were loaded. */
  readonly byteLength: number;
}

/** A model in several files. */
export interface ShardedSource {
  /** The file that says which tensor is where: usually `model.safetensors.index.json`. */
  readonly index: SafetensorsSource;
  /** Opens a file by the name that the index gives it: a plain name, without folders. */
  readonly open: (fileName: string) => SafetensorsSource | Promise<SafetensorsSource>;
}

/** One tensor that is to be loaded, all of it checked. */
interface Planned {
  readonly reader: ByteRangeReader;
  readonly entry: PlacedEntry;
  readonly id: string | null;
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

interface OpenedFile {
  readonly reader: ByteRangeReader;
  readonly entries: readonly PlacedEntry[];
}

/** @throws {MisuseError} `bad-option`, `bad-size`. */
function checkOptions(options: LoadSafetensorsOptions) {
  const known = ["ids", "kinds", "filter", "share", "disposable", "foreign", "headerBytesMax"];
  checkObject(options, "loadSafetensors", [...known, "signal"]);
  for (const name of ["ids", "kinds", "filter"] as const) {
    if (options[name] === undefined || typeof options[name] === "function") continue;
    throw new MisuseError("bad-option", `${name} is a function`);
  }
  const { foreign = "refuse", headerBytesMax = HEADER_BYTES_MAX } = options;
  if (foreign !== "refuse" && foreign !== "bytes") {
    throw new MisuseError("bad-option", 'foreign is "refuse" or "bytes"');
  }
  const isShared = checkFlag(options.share, "share");
  const isDisposable = checkFlag(options.disposable, "disposable");
  if (isShared && isDisposable) {
    throw new MisuseError("bad-option", "shared tensors are not disposable");
  }
  checkBytes(headerBytesMax, "headerBytesMax", HEADER_BYTES_MAX);
  const { ids = (name: string) => name, kinds = () => "PARAMETERS", filter = () => true } = options;
  const signal = checkSignal(options.signal);
  return { ids, kinds, filter, isShared, isDisposable, foreign, headerBytesMax, signal };
}

type CheckedOptions = ReturnType<typeof checkOptions>;

/** @throws {SafetensorsError} `unsupported` — no tensor of this package can hold it. */
function heapFormOf({ name, dtype, shape, byteLength }: SafetensorsEntry, options: CheckedOptions) {
  const own = ownDtypeOf(dtype);
  const refuse = (why: string) => new SafetensorsError("unsupported", `${describe(name)} ${why}`);
  if (own === undefined && options.foreign === "refuse") {
    throw refuse(`is ${dtype}: load its bytes with foreign: "bytes"`);
  }
  if (byteLength > TENSOR_BYTES_MAX) throw refuse(`is longer than ${TENSOR_BYTES_MAX} bytes`);
  if (own === undefined) return { dtype: "u8" as const, shape: [byteLength] };
  if (shape.length > RANK_MAX) throw refuse(`has more than ${RANK_MAX} dimensions`);
  return { dtype: own, shape: shape.length === 0 ? [1] : shape };
}

/** Everything that can be known to be wrong before the first allocation. */
function planTensors(
  memory: TensorMemory,
  files: readonly OpenedFile[],
  options: CheckedOptions,
): Planned[] {
  const used = new Set<string>();
  return files.flatMap(({ reader, entries }) =>
    entries.filter(options.filter).map((entry) => {
      const form = heapFormOf(entry, options);
      const kind = checkKind(options.kinds(entry.name));
      const given = options.ids(entry.name);
      const id = given === null ? null : checkId(given);
      if (id === null && (options.isShared || options.isDisposable)) {
        throw new MisuseError("bad-id", "shared and disposable tensors need ids");
      }
      if (id !== null && (used.has(id) || memory.tensor(id) !== null)) {
        throw new MisuseError("duplicate-id", `the id ${describe(id)} is in use`);
      }
      if (id !== null) used.add(id);
      return { reader, entry, id, kind, ...form };
    }),
  );
}

/** A new tensor with the bytes of the file. It belongs to nobody when this throws. */
async function readTensor(
  memory: TensorMemory,
  { reader, entry, kind, dtype, shape }: Planned,
  id: string | null,
  { isDisposable, signal }: Pick<CheckedOptions, "isDisposable" | "signal">,
): Promise<Tensor> {
  await memory.reserve({ kind, bytes: entry.byteLength, signal });
  const named = id === null ? {} : { id };
  const tensor = memory.allocate({ kind, dtype, shape, ...named, disposable: isDisposable });
  const pin = tensor.pin();
  try {
    await readFully(reader, pin.bytes, entry.fileOffset, signal);
  } catch (error) {
    pin[Symbol.dispose]();
    tensor.free();
    throw error;
  }
  pin[Symbol.dispose]();
  return tensor;
}

async function internTensor(
  memory: TensorMemory,
  planned: Planned,
  { signal }: CheckedOptions,
): Promise<Tensor> {
  const read = await readTensor(memory, planned, null, { isDisposable: false, signal });
  const pin = read.pin({ access: "read" });
  try {
    const { kind, dtype, shape, id } = planned;
    const bytes = pin.bytes;
    return await memory.intern({ kind, dtype, shape, id: id as string, bytes, signal });
  } finally {
    pin[Symbol.dispose]();
    read.free();
  }
}

async function loadAll(
  memory: TensorMemory,
  files: readonly OpenedFile[],
  options: CheckedOptions,
): Promise<Pick<LoadedSafetensors, "tensors" | "byteLength">> {
  const tensors = new Map<string, LoadedTensor>();
  let byteLength = 0;
  try {
    for (const planned of planTensors(memory, files, options)) {
      const { fileOffset: _, ...entry } = planned.entry;
      let tensor: Tensor | null = null;
      if (entry.byteLength > 0) {
        tensor = options.isShared
          ? await internTensor(memory, planned, options)
          : await readTensor(memory, planned, planned.id, options);
      }
      tensors.set(entry.name, { ...entry, tensor });
      byteLength += entry.byteLength;
    }
  } catch (error) {
    for (const { tensor } of tensors.values()) tensor?.[Symbol.dispose]();
    throw error;
  }
  return { tensors, byteLength };
}

/**
 * Loads a safetensors file into the heap.
 *
 * @param source The file's bytes, a `Blob` or `File`, or a reader of ranges; in Node also its path.
 * @returns The tensors; they belong to the caller. Those with ids may leave RAM while later ones are
 *   loaded, so a file may be longer than the budget.
 * @throws {SafetensorsError} The file is damaged, or holds what tensors cannot; nothing was allocated.
 *   `truncated` — it got shorter while it was read.
 * @throws {MisuseError} `duplicate-id`, `bad-*`, `closed`.
 * @throws {OutOfMemoryError} There is no room for the tensors.
 * @throws {TierError} `aborted`, `io`, `busy`.
 * @throws What a reader throws.
 * @remarks All or nothing: when it throws, what was loaded until then is freed. Reads the header first,
 *   then each tensor's bytes in chunks into its block, which is pinned meanwhile. Until the call resolves, a
 *   tensor may be found by its id with half of its bytes.
 */
export async function loadSafetensors(
  memory: TensorMemory,
  source: SafetensorsSource,
  options: LoadSafetensorsOptions = {},
): Promise<LoadedSafetensors> {
  const checked = checkOptions(options);
  const reader = readerOf(source);
  const header = await readHeader(reader, checked.headerBytesMax, checked.signal);
  const files = [{ reader, entries: header.entries }];
  return { metadata: header.metadata, ...(await loadAll(memory, files, checked)) };
}

/**
 * Loads a model that is cut into several files. All headers are judged before anything is allocated.
 *
 * @throws {SafetensorsError} As {@link loadSafetensors}; `bad-index` — the index is none, names a file
 *   with a folder, or does not agree with the files.
 * @throws As {@link loadSafetensors}, and what `open` throws.
 */
export async function loadShardedSafetensors(
  memory: TensorMemory,
  { index, open }: ShardedSource,
  options: LoadSafetensorsOptions = {},
): Promise<LoadedSafetensors> {
  const checked = checkOptions(options);
  const { headerBytesMax, signal } = checked;
  const shards = await parseIndex(readerOf(index), headerBytesMax, signal);
  const files: OpenedFile[] = [];
  const metadata: Record<string, string> = {};
  for (const [fileName, names] of shards) {
    const reader = readerOf(await open(fileName));
    const header = await readHeader(reader, headerBytesMax, signal);
    const found = new Set(header.entries.map(({ name }) => name));
    const problem = [...names].find((name) => !found.has(name));
    const unlisted = [...found].find((name) => !names.has(name));
    if (problem !== undefined || unlisted !== undefined) {
      const which = describe(problem ?? unlisted);
      const message = `the index and ${describe(fileName)} do not agree about ${which}`;
      throw new SafetensorsError("bad-index", message);
    }
    Object.assign(metadata, header.metadata);
    files.push({ reader, entries: header.entries });
  }
  return { metadata, ...(await loadAll(memory, files, checked)) };
}
