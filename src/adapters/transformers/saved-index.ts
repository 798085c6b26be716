// What of a cache outlives the process: its tensors, and beside them an index that says whose they are, of
// which tokens, and which. The index is replaced as a whole, after the tensors that it names were written,
// and tensors that it names are not written again; so what it says holds at every moment.
import { CorruptionError } from "../../errors.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { type CacheEntry, type EntryDescription, tensorIdOf } from "./cache-entry.js";

const FORMAT = 1;

export interface SavedIndex {
  readonly fingerprint: string;
  /** Those whose rows are in the tensors, as far as they are known. */
  readonly tokens: readonly number[];
  /** Tokens whose rows are in the tensors. */
  readonly rowCount: number;
  readonly entries: readonly EntryDescription[];
}

/** As of `TensorMemory.save`. */
export interface SaveOptions {
  readonly mode?: "cache" | "durable";
  readonly ttlMs?: number;
}

function isLengths(value: unknown): boolean {
  return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

/** @returns null for what this version does not write: it is as good as none. */
function parseIndex(bytes: Uint8Array): SavedIndex | null {
  let index: Partial<SavedIndex> & { readonly format?: unknown };
  try {
    index = JSON.parse(new TextDecoder().decode(bytes.slice()));
  } catch {
    return null;
  }
  const isWhole =
    index.format === FORMAT &&
    typeof index.fingerprint === "string" &&
    isLengths(index.tokens) &&
    Number.isSafeInteger(index.rowCount) &&
    Array.isArray(index.entries) &&
    index.entries.every(
      ({ name, type, dims, generation }: Partial<EntryDescription>) =>
        typeof name === "string" &&
        typeof type === "string" &&
        isLengths(dims) &&
        Number.isSafeInteger(generation),
    );
  return isWhole ? (index as SavedIndex) : null;
}

/** The saved records of one cache. */
export class SavedState {
  readonly #memory: TensorMemory;
  readonly #id: string;
  readonly #indexId: string;
  /** Of the tensors that the index names. */
  #tensorIds: readonly string[] = [];

  constructor(memory: TensorMemory, id: string) {
    this.#memory = memory;
    this.#id = id;
    this.#indexId = `${id}/index`;
  }

  /** Of the tensors that the index names, in its order. */
  get tensorIds(): readonly string[] {
    return this.#tensorIds;
  }

  /** @returns null when nothing was saved under that id, or nothing that can be used. */
  async read(): Promise<SavedIndex | null> {
    const index = await this.#readIndex();
    if (index === null) return null;
    this.#tensorIds = this.#idsOf(index.entries);
    // Left by a process that ended between two steps of `write`.
    const outdated = index.entries
      .filter(({ generation }) => generation > 0)
      .map((entry) => ({ ...entry, generation: entry.generation - 1 }));
    await this.#deleteTensors(this.#idsOf(outdated));
    return index;
  }

  /**
   * @param entries The cache's, none of them held.
   * @returns `"no-space"`: what was saved before is still valid.
   * @throws {OutOfMemoryError} There is no room for the index on its way.
   */
  async write(
    index: Omit<SavedIndex, "entries">,
    entries: readonly CacheEntry[],
    options: SaveOptions,
  ): Promise<"stored" | "no-space"> {
    for (const { isSaved, tensorId } of entries) {
      if (isSaved || tensorId === null) continue;
      if ((await this.#memory.save(tensorId, options)) === "no-space") return "no-space";
    }
    const described = entries.map((entry) => entry.describe());
    const outcome = await this.#writeIndex({ ...index, entries: described }, options);
    if (outcome === "no-space") return outcome;
    for (const entry of entries) entry.isSaved = true;
    const outdated = this.#tensorIds;
    this.#tensorIds = this.#idsOf(described);
    await this.#deleteTensors(outdated.filter((each) => !this.#tensorIds.includes(each)));
    return "stored";
  }

  /** @returns Whether there was anything. */
  async delete(): Promise<boolean> {
    const existed = await this.#memory.delete(this.#indexId);
    await this.#deleteTensors(this.#tensorIds);
    this.#tensorIds = [];
    return existed;
  }

  // --- Inside ----------------------------------------------------------------------------------------

  #idsOf(entries: readonly EntryDescription[]): string[] {
    return entries.map(({ generation, name }) => tensorIdOf(this.#id, generation, name));
  }

  async #deleteTensors(ids: readonly string[]): Promise<void> {
    await Promise.all(ids.map((id) => this.#memory.delete(id)));
  }

  async #readIndex(): Promise<SavedIndex | null> {
    try {
      const lease = await this.#memory.acquire(this.#indexId, { access: "read" });
      if (lease === null) return null;
      const index = parseIndex(lease.bytes);
      lease[Symbol.dispose]();
      return index;
    } catch (error) {
      if (error instanceof CorruptionError) return null;
      throw error;
    } finally {
      this.#memory.tensor(this.#indexId)?.[Symbol.dispose]();
    }
  }

  async #writeIndex(index: SavedIndex, options: SaveOptions): Promise<"stored" | "no-space"> {
    const bytes = new TextEncoder().encode(JSON.stringify({ format: FORMAT, ...index }));
    const { byteLength } = bytes;
    await this.#memory.reserve({ kind: "KV_CACHE", bytes: byteLength });
    const tensor = this.#memory.allocate({
      kind: "KV_CACHE",
      id: this.#indexId,
      byteLength,
      budget: "exact",
    });
    const pin = tensor.pin();
    pin.bytes.set(bytes);
    pin[Symbol.dispose]();
    try {
      return await this.#memory.save(this.#indexId, options);
    } finally {
      tensor[Symbol.dispose]();
    }
  }
}
