// `env.customCache` for transformers.js: model files in the SSD tier of a memory.
//
// The library asks `match` with a local path and then with a URL, and calls `put` after a download: in
// browsers with the whole body, in Node for a model file with a stream that nobody has read, which it then
// asks for again. So in Node a file without room has to be given back once, from what has not been read.
import { MisuseError, TierheapError } from "../../errors.js";
import { checkId, checkObject } from "../../memory/checks.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { type ByteSize, parseByteSize } from "../../types.js";
import { Download, type Fetch, type Piece } from "./download.js";
import { type FileHead, headOf, ModelFiles, versionOf } from "./model-files.js";

export interface ModelCacheOptions {
  /** Begins the ids of the records. Default: `"model-files/"`. */
  readonly prefix?: string;
  /**
   * Bytes per record, and in RAM per download. Default: 4 MiB. What a download that was interrupted has to
   * fetch again is less than one.
   */
  readonly chunkBytes?: ByteSize;
  /**
   * Fetches the rest of what is there in part, with `Range`; false: nothing is fetched, and what is there
   * in part is a miss. Default: the platform's.
   */
  readonly fetch?: Fetch | false;
}

export interface ModelCacheStats {
  readonly hitCount: number;
  readonly missCount: number;
  /** Bytes that did not have to be fetched again after an interruption. */
  readonly resumedBytes: number;
  /** Chunks that were damaged or gone. */
  readonly damagedCount: number;
  /** Downloads that found no room and were passed through. */
  readonly passedCount: number;
}

/** As the library's callback wants it; `total` is 0 when the server does not say. */
export type PutProgress = (state: {
  /** From 0 to 100. */
  readonly progress: number;
  readonly loaded: number;
  readonly total: number;
}) => void;

const CHUNK_BYTES = 4 * 2 ** 20;

function streamOf(pieces: AsyncGenerator<Piece>): ReadableStream<Piece> {
  return new ReadableStream<Piece>(
    {
      pull: async (controller) => {
        const { done, value } = await pieces.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => {
        await pieces.return(undefined);
      },
    },
    // Nothing begins before somebody reads.
    { highWaterMark: 0 },
  );
}

/** A download as it was handed out, for when it comes back by {@link ModelCache.put}. */
interface Recording {
  readonly download: Download;
  readonly pieces: AsyncGenerator<Piece>;
}

/** Its pieces; what was stored before there was no room is deleted behind them. */
async function* dropUnlessStored({ download, pieces }: Recording): AsyncGenerator<Piece> {
  yield* pieces;
  if (download.overflow !== null) await download.discard(pieces);
}

/**
 * A cache for model files. Made by {@link createModelCache}.
 *
 * @remarks Its records are saved ones: no pressure deletes them, so they take room in the SSD tier until
 *   {@link delete}. Each goes through RAM, chunk by chunk, inside the budget.
 */
export class ModelCache {
  readonly #files: ModelFiles;
  readonly #chunkBytes: number;
  readonly #fetch: Fetch | null;
  /** Files whose bytes are arriving. */
  readonly #arriving = new Set<string>();
  /** Files without room: for the library's next question, once. */
  readonly #passing = new Map<string, Response>();
  readonly #recordings = new WeakMap<Response, Recording>();
  readonly #counts = {
    hitCount: 0,
    missCount: 0,
    resumedBytes: 0,
    damagedCount: 0,
    passedCount: 0,
  };

  /** @internal */
  constructor(memory: TensorMemory, options: Required<ModelCacheOptions>) {
    this.#files = new ModelFiles(memory, options.prefix);
    this.#chunkBytes = options.chunkBytes as number;
    this.#fetch = options.fetch === false ? null : options.fetch;
  }

  /**
   * The file of that URL or path, or what is there of it and the rest from the network.
   *
   * @returns undefined when it is not there, or not all of it and the rest cannot be fetched.
   * @remarks The body is read, and fetched, as it is consumed. It ends with an error where bytes are
   *   damaged and cannot be fetched again; the next `match` is then a miss.
   */
  async match(request: string): Promise<Response | undefined> {
    const key = checkId(request);
    const passing = this.#passing.get(key);
    if (passing !== undefined) {
      this.#passing.delete(key);
      return passing;
    }
    const head = this.#arriving.has(key) ? null : await this.#readHead(key);
    const canResume = this.#fetch !== null && head !== null && versionOf(head) !== null;
    if (head === null || !(head.isWhole || canResume)) {
      this.#counts.missCount += 1;
      return undefined;
    }
    this.#counts.hitCount += 1;
    const download = new Download(this.#files, head, this.#counts);
    const resumed = download.resume(this.#fetch);
    const pieces = head.isWhole ? resumed : this.#arrive(key, resumed);
    const headers = new Headers(head.headers);
    if (head.byteLength !== null) headers.set("content-length", String(head.byteLength));
    return new Response(streamOf(pieces), { status: 200, headers });
  }

  /**
   * Stores a file. Without room it stores nothing, and does not throw.
   *
   * @param progress Called for each piece. Whoever passes it, even as undefined, as the library does in
   *   Node, may ask for a file that found no room by one `match`, and gets it from what is not read yet.
   * @throws What the body throws: the download was interrupted. What has arrived is kept, for `match`.
   */
  async put(request: string, response: Response, ...progress: [PutProgress?]): Promise<void> {
    const key = checkId(request);
    const isAskedAgain = progress.length > 0;
    const recording = this.#recordings.get(response);
    if (recording === undefined && this.#arriving.has(key)) {
      if (isAskedAgain) this.#passing.set(key, response);
      return;
    }
    const { download, pieces } = recording ?? this.#record(key, response);
    const total = Number(response.headers.get("content-length") ?? 0);
    let loaded = 0;
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) break;
      loaded += value.byteLength;
      progress[0]?.({ progress: total === 0 ? 0 : (loaded / total) * 100, loaded, total });
      if (download.overflow !== null) break;
    }
    if (download.overflow === null) return;
    if (isAskedAgain) {
      const { headers } = response;
      const replay = streamOf(download.replay(pieces));
      this.#passing.set(key, new Response(replay, { status: 200, headers }));
    } else {
      await download.discard(pieces);
    }
  }

  /** @returns Whether there was anything of that file. */
  async delete(request: string): Promise<boolean> {
    const key = checkId(request);
    const head = await this.#files.readHead(key);
    return head !== null && (await this.#files.delete(head));
  }

  /**
   * For `env.fetch`: as the platform's, but what is fetched as a whole is stored on its way. In browsers
   * that is what makes a download resumable, since the library calls {@link put} only when it is complete.
   */
  readonly fetch = async (input: string | URL, init?: RequestInit): Promise<Response> => {
    if (this.#fetch === null)
      throw new MisuseError("unsupported", "the cache was made without fetch");
    const key = String(input);
    const response = await this.#fetch(key, init);
    const isWhole =
      response.status === 200 &&
      (init?.method ?? "GET") === "GET" &&
      !new Headers(init?.headers).has("range");
    if (!isWhole || this.#arriving.has(key)) return response;
    const { status, headers } = response;
    const recording = this.#record(key, response);
    const recorded = new Response(streamOf(dropUnlessStored(recording)), { status, headers });
    this.#recordings.set(recorded, recording);
    return recorded;
  };

  stats(): ModelCacheStats {
    return { ...this.#counts };
  }

  // --- Inside ----------------------------------------------------------------------------------------

  async #readHead(key: string): Promise<FileHead | null> {
    try {
      return await this.#files.readHead(key);
    } catch (error) {
      // The library goes on without a cache, rather than not at all.
      if (error instanceof TierheapError) return null;
      throw error;
    }
  }

  #record(key: string, response: Response): Recording {
    const head = headOf(key, response, this.#chunkBytes);
    const download = new Download(this.#files, head, this.#counts);
    return { download, pieces: this.#arrive(key, download.record(response.body)) };
  }

  /** While its pieces arrive, a file is neither a hit nor recorded a second time. */
  async *#arrive(key: string, pieces: AsyncGenerator<Piece>): AsyncGenerator<Piece> {
    this.#arriving.add(key);
    try {
      yield* pieces;
    } finally {
      this.#arriving.delete(key);
    }
  }
}

/**
 * A cache for `env.customCache` of transformers.js, in the SSD tier: `env.useCustomCache = true`. Chunks are
 * checked by their digests, a download that was interrupted goes on where it ended, and what is torn or
 * damaged is never given out as a whole.
 *
 * @throws {MisuseError} `bad-option`, `bad-size`, `bad-id`.
 * @remarks In browsers set `env.fetch` to the cache's `fetch` as well.
 * @see https://github.com/huggingface/transformers.js, `src/utils/hub.js`: how it is called.
 */
export function createModelCache(
  memory: TensorMemory,
  options: ModelCacheOptions = {},
): ModelCache {
  checkObject(options, "createModelCache", ["prefix", "chunkBytes", "fetch"]);
  const { prefix = "model-files/", chunkBytes = CHUNK_BYTES } = options;
  const { fetch = (input, init) => globalThis.fetch(input, init) } = options;
  if (fetch !== false && typeof fetch !== "function") {
    throw new MisuseError("bad-option", "fetch is a function or false");
  }
  return new ModelCache(memory, {
    prefix: checkId(prefix),
    chunkBytes: parseByteSize(chunkBytes, "chunkBytes"),
    fetch,
  });
}
