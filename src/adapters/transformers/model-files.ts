// Files as records of the SSD tier: chunks of equal length, and a head that says which file they are of and
// whether all of them are there. A chunk's id carries the version of its file, so chunks of two versions
// never meet; what is damaged is found by the record's digest and is as good as missing.
import { CorruptionError, MisuseError, TierheapError } from "../../errors.js";
import type { Pin } from "../../memory/pin.js";
import type { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";

const FORMAT = 1;
/** What of a response is kept; the rest is about its transfer. */
const KEPT_HEADERS = ["content-type", "etag", "last-modified"];

/** A file, or the beginning of one. */
export interface FileHead {
  readonly key: string;
  readonly headers: Readonly<Record<string, string>>;
  /** As the server says, until it is whole; null: it does not say. */
  readonly byteLength: number | null;
  readonly chunkBytes: number;
  readonly isWhole: boolean;
  /** How often the file was begun. */
  readonly beginning: number;
}

/** The head of a download that begins. */
export function headOf(key: string, response: Response, chunkBytes: number): FileHead {
  const headers = Object.fromEntries(
    KEPT_HEADERS.map((name) => [name, response.headers.get(name)] as const).filter(
      (pair): pair is [string, string] => pair[1] !== null,
    ),
  );
  // A coded body has another length when it arrives.
  const isCoded = response.headers.has("content-encoding");
  const length = response.headers.get("content-length");
  const byteLength = length === null || isCoded ? null : Number(length);
  return { key, headers, byteLength, chunkBytes, isWhole: false, beginning: 0 };
}

/**
 * What two responses of equal bytes have in common: a strong entity tag, or a date.
 *
 * @returns null when the server says nothing of the kind.
 */
export function versionOf({ headers }: Pick<FileHead, "headers">): string | null {
  const { etag, "last-modified": date } = headers;
  if (etag !== undefined && !etag.startsWith("W/")) return etag;
  return date ?? null;
}

/** Reads and writes the records of files. */
export class ModelFiles {
  readonly #memory: TensorMemory;
  readonly #prefix: string;

  constructor(memory: TensorMemory, prefix: string) {
    this.#memory = memory;
    this.#prefix = prefix;
  }

  chunkId(head: FileHead, index: number): string {
    const { key, beginning } = head;
    return `${this.#prefix}${key}/${beginning} ${versionOf(head) ?? ""}/${index}`;
  }

  /** @returns null when there is none, or none that can be used. */
  async readHead(key: string): Promise<FileHead | null> {
    const bytes = await this.#read(this.#headId(key));
    if (bytes === null) return null;
    let head: (Partial<FileHead> & { readonly format?: unknown }) | null;
    try {
      head = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      return null;
    }
    return head?.format === FORMAT && head.key === key ? (head as FileHead) : null;
  }

  async writeHead(head: FileHead): Promise<"stored" | "no-space"> {
    const bytes = new TextEncoder().encode(JSON.stringify({ format: FORMAT, ...head }));
    const chunk = await this.beginChunk(this.#headId(head.key), bytes.byteLength);
    try {
      chunk.append(bytes);
      return (await chunk.save()) === null ? "stored" : "no-space";
    } finally {
      chunk.free();
    }
  }

  /** @returns null when it is missing or damaged. */
  readChunk(head: FileHead, index: number): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#read(this.chunkId(head, index));
  }

  /** How many chunks are there from the first on, without a gap. Reads no content. */
  async countChunks(head: FileHead): Promise<number> {
    let count = 0;
    while ((await this.#memory.estimateRestore(this.chunkId(head, count))) !== null) {
      this.#drop(this.chunkId(head, count));
      count += 1;
    }
    return count;
  }

  /** @throws {OutOfMemoryError} There is no room for a chunk on its way. */
  async beginChunk(id: string, byteLength: number): Promise<Chunk> {
    await this.#memory.reserve({ kind: "PARAMETERS", bytes: byteLength });
    const options = { kind: "PARAMETERS", id, byteLength, budget: "exact" } as const;
    this.#drop(id);
    return new Chunk(this.#memory, this.#memory.allocate(options));
  }

  /** @returns Whether there was anything. */
  async delete(head: FileHead): Promise<boolean> {
    const { byteLength, chunkBytes } = head;
    const expectedCount = head.isWhole ? Math.ceil((byteLength ?? 0) / chunkBytes) : 0;
    const count = Math.max(expectedCount, await this.countChunks(head));
    for (let index = 0; index < count; index++) {
      await this.#memory.delete(this.chunkId(head, index));
    }
    return this.#memory.delete(this.#headId(head.key));
  }

  // --- Inside ----------------------------------------------------------------------------------------

  #headId(key: string): string {
    return `${this.#prefix}${key}/head`;
  }

  async #read(id: string): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      const lease = await this.#memory.acquire(id, { access: "read" });
      const bytes = lease?.bytes.slice() ?? null;
      lease?.[Symbol.dispose]();
      return bytes;
    } catch (error) {
      if (error instanceof CorruptionError) return null;
      throw error;
    } finally {
      this.#drop(id);
    }
  }

  /** What lies in the tier need not lie in RAM as well, unless somebody else is reading it. */
  #drop(id: string): void {
    try {
      this.#memory.tensor(id)?.[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof MisuseError) || error.code !== "pinned") throw error;
    }
  }
}

/** A record that is being filled in RAM. */
export class Chunk {
  readonly #memory: TensorMemory;
  readonly #tensor: Tensor<"u8">;
  #pin: Pin<"u8">;
  #usedBytes = 0;

  constructor(memory: TensorMemory, tensor: Tensor<"u8">) {
    this.#memory = memory;
    this.#tensor = tensor;
    this.#pin = tensor.pin();
  }

  /** Appends as many of the bytes as it has room for. @returns How many. */
  append(bytes: Uint8Array): number {
    const count = Math.min(bytes.byteLength, this.#tensor.byteLength - this.#usedBytes);
    this.#pin.bytes.set(bytes.subarray(0, count), this.#usedBytes);
    this.#usedBytes += count;
    return count;
  }

  get isFull(): boolean {
    return this.#usedBytes === this.#tensor.byteLength;
  }

  /**
   * Writes what was appended, a byte or more, and gives the RAM back.
   *
   * @returns null when it is stored; else its bytes, which are nowhere else.
   */
  async save(): Promise<Uint8Array<ArrayBuffer> | null> {
    const id = this.#tensor.id as string;
    this.#pin[Symbol.dispose]();
    try {
      if (!this.isFull) this.#tensor.resize({ shape: [this.#usedBytes] });
      if ((await this.#memory.save(id)) === "stored") return null;
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
    }
    this.#pin = this.#tensor.pin({ access: "read" });
    return this.#pin.bytes.slice(0, this.#usedBytes);
  }

  /** Gives the RAM back. May be called again. */
  free(): void {
    this.#pin[Symbol.dispose]();
    this.#tensor[Symbol.dispose]();
  }
}
