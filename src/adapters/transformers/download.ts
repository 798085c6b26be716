// One pass of a file through the cache: what is stored of it comes first, the rest from the network, and is
// stored on its way. Without room it only passes through.
import { TierError, TierheapError } from "../../errors.js";
import { type Chunk, type FileHead, headOf, type ModelFiles, versionOf } from "./model-files.js";

export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

export type Piece = Uint8Array<ArrayBuffer>;

/** Chunks that are stored, and what was given out behind them and found no room. */
interface Overflow {
  readonly storedCount: number;
  readonly bytes: Piece;
}

export interface DownloadCounts {
  resumedBytes: number;
  damagedCount: number;
  passedCount: number;
}

const CONTENT_RANGE = /^bytes (\d+)-\d+\/(\d+|\*)$/;

/** The rest of a file from an offset on, or null when the server has another version or no ranges. */
async function fetchRest(fetch: Fetch, head: FileHead, offset: number): Promise<Response | null> {
  const response = await fetch(head.key, { headers: { Range: `bytes=${offset}-` } });
  const range = CONTENT_RANGE.exec(response.headers.get("content-range") ?? "");
  const version = versionOf(headOf(head.key, response, head.chunkBytes));
  const isRest =
    response.status === 206 &&
    Number(range?.[1]) === offset &&
    (head.byteLength === null || range?.[2] === "*" || Number(range?.[2]) === head.byteLength) &&
    version === versionOf(head);
  if (isRest) return response;
  await response.body?.cancel();
  return null;
}

async function* piecesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  let isDone = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      isDone = done;
      if (done) return;
      yield value;
    }
  } finally {
    if (!isDone) await reader.cancel();
  }
}

/** A file on its way. */
export class Download {
  readonly #files: ModelFiles;
  readonly #counts: DownloadCounts;
  #head: FileHead;
  #overflow: Overflow | null = null;
  #canStore = true;

  constructor(files: ModelFiles, head: FileHead, counts: DownloadCounts) {
    this.#files = files;
    this.#head = head;
    this.#counts = counts;
  }

  /** Where storing ended for want of room; null while it goes on. */
  get overflow(): Overflow | null {
    return this.#overflow;
  }

  /** All of a body, in pieces, stored on their way. */
  async *record(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Piece> {
    const outcome = await this.#attempt(async () => {
      const previous = await this.#files.readHead(this.#head.key);
      if (previous !== null) await this.#files.delete(previous);
      this.#head = { ...this.#head, beginning: (previous?.beginning ?? 0) + 1 };
      return this.#files.writeHead(this.#head);
    });
    this.#canStore = outcome === "stored";
    yield* this.#store(body, 0);
  }

  /**
   * What is stored, and then the rest.
   *
   * @throws {TierError} `io` — the rest is not to be had; what is stored is then deleted, if it is of a
   *   file that was whole.
   */
  async *resume(fetch: Fetch | null): AsyncGenerator<Piece> {
    const { byteLength, chunkBytes, isWhole } = this.#head;
    let storedCount = 0;
    let rest: Response | null = null;
    if (!isWhole) {
      // Before anything is given out: the file may be another one by now.
      storedCount = await this.#files.countChunks(this.#head);
      const offset = storedCount * chunkBytes;
      if (fetch !== null && (byteLength === null || offset < byteLength)) {
        rest = await fetchRest(fetch, this.#head, offset);
        if (rest === null) return yield* this.#beginAgain(fetch);
      }
    }
    const expectedCount = isWhole ? Math.ceil((byteLength ?? 0) / chunkBytes) : storedCount;
    for (let index = 0; index < expectedCount; index++) {
      const bytes = await this.#files.readChunk(this.#head, index);
      if (bytes === null) {
        this.#counts.damagedCount += 1;
        await rest?.body?.cancel();
        return yield* this.#repair(fetch, index);
      }
      if (!isWhole) this.#counts.resumedBytes += bytes.byteLength;
      yield bytes;
    }
    if (!isWhole) yield* this.#store(rest?.body ?? null, storedCount);
  }

  /** After an overflow: everything from the beginning, while `source` still has the rest. */
  async *replay(source: AsyncGenerator<Piece>): AsyncGenerator<Piece> {
    const { storedCount, bytes } = this.#overflow as Overflow;
    for (let index = 0; index < storedCount; index++) {
      const stored = await this.#files.readChunk(this.#head, index);
      if (stored === null) throw this.#failure("a chunk is gone");
      yield stored;
    }
    yield bytes;
    yield* source;
    await this.#attempt(() => this.#files.delete(this.#head));
  }

  /** After an overflow: nothing is kept. */
  async discard(source: AsyncGenerator<Piece>): Promise<void> {
    await source.return(undefined);
    await this.#attempt(() => this.#files.delete(this.#head));
  }

  // --- Inside ----------------------------------------------------------------------------------------

  #failure(problem: string): TierError {
    return new TierError("io", "ssd", `${this.#head.key}: ${problem}`);
  }

  async *#beginAgain(fetch: Fetch): AsyncGenerator<Piece> {
    const previous = this.#head;
    const response = await fetch(previous.key);
    if (response.status !== 200) {
      await response.body?.cancel();
      throw this.#failure(`the server says ${response.status}`);
    }
    this.#head = headOf(previous.key, response, previous.chunkBytes);
    yield* this.record(response.body);
  }

  /** The rest of a file of which some chunk is missing, from that one on. */
  async *#repair(fetch: Fetch | null, index: number): AsyncGenerator<Piece> {
    const offset = index * this.#head.chunkBytes;
    const canAsk = fetch !== null && versionOf(this.#head) !== null;
    const rest = canAsk ? await fetchRest(fetch, this.#head, offset) : null;
    if (rest === null) {
      await this.#files.delete(this.#head);
      throw this.#failure(`a chunk is damaged at ${offset}; what was stored is deleted`);
    }
    yield* this.#store(rest.body, index);
  }

  /** Gives out a body's pieces once they are stored in chunks from `index` on. */
  async *#store(body: ReadableStream<Uint8Array> | null, from: number): AsyncGenerator<Piece> {
    const { chunkBytes } = this.#head;
    let index = from;
    let chunk: Chunk | null = null;
    let usedBytes = 0;
    try {
      for await (const piece of piecesOf(body)) {
        for (let at = 0; at < piece.byteLength; ) {
          if (this.#overflow !== null) {
            yield piece.slice(at);
            break;
          }
          chunk ??= await this.#beginChunk(index);
          if (chunk === null) {
            const bytes = piece.slice(at);
            this.#giveUp(index, bytes);
            yield bytes;
            break;
          }
          const count = chunk.append(piece.subarray(at));
          usedBytes += count;
          if (chunk.isFull) {
            await this.#saveChunk(chunk, index);
            chunk = null;
            index += 1;
          }
          yield piece.slice(at, at + count);
          at += count;
        }
      }
      if (chunk !== null) await this.#saveChunk(chunk, index++);
      chunk = null;
    } finally {
      chunk?.free();
    }
    if (this.#overflow !== null) return;
    const byteLength = from * chunkBytes + usedBytes;
    const isWhole = this.#head.byteLength === null || this.#head.byteLength === byteLength;
    if (!isWhole) throw this.#failure(`${byteLength} of ${this.#head.byteLength} bytes arrived`);
    this.#head = { ...this.#head, byteLength, isWhole };
    const outcome = await this.#attempt(() => this.#files.writeHead(this.#head));
    if (outcome !== "stored") this.#giveUp(index, new Uint8Array(0));
  }

  async #beginChunk(index: number): Promise<Chunk | null> {
    if (!this.#canStore) return null;
    const id = this.#files.chunkId(this.#head, index);
    return this.#attempt(() => this.#files.beginChunk(id, this.#head.chunkBytes));
  }

  async #saveChunk(chunk: Chunk, index: number): Promise<void> {
    try {
      const bytes = await chunk.save();
      if (bytes !== null) this.#giveUp(index, bytes);
    } finally {
      chunk.free();
    }
  }

  #giveUp(storedCount: number, bytes: Piece): void {
    this.#counts.passedCount += 1;
    this.#overflow = { storedCount, bytes };
  }

  /** @returns null when the memory or its tier could not do it. */
  async #attempt<T>(work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof TierheapError) return null;
      throw error;
    }
  }
}
