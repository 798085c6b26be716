// `past_key_values` for transformers.js: an object that the library takes for its own cache, over KV that
// lies in the heap.
//
// The library reads every enumerable property and feeds it to the model, so those are the KV entries and
// nothing else: accessors, which make a tensor over the heap's bytes each time. It cuts the input at
// `get_seq_length()` and never compares tokens; so `prepare` does that before each call. Copies: what the
// model returns, once per pass. It returns all of its KV, and a caller cannot ask for less.
import { CorruptionError, MisuseError, OutOfMemoryError } from "../../errors.js";
import { checkId, checkObject, checkText } from "../../memory/checks.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import { CacheEntry, type EntryOwner, elementCount } from "./cache-entry.js";
import {
  type LibraryModel,
  type LibraryTensor,
  type LibraryTensorClass,
  type TokenIds,
  tokensOf,
} from "./library.js";
import { type SavedIndex, SavedState, type SaveOptions } from "./saved-index.js";

export interface PastKeyValuesOptions {
  /** `Tensor` of the transformers.js that will call. */
  readonly Tensor: LibraryTensorClass;
  /** Of the model: what was saved with another one is a miss. */
  readonly fingerprint: string;
  /**
   * Begins the ids of its tensors. With one they may be demoted between two calls, and `save` works;
   * what was saved under it is found by the first `prepare`. Default: none; they stay resident.
   */
  readonly id?: string;
}

export interface PastKeyValuesStats {
  /** Tokens that were not computed again, over all calls. */
  readonly reusedTokens: number;
  /** Of those, tokens of an earlier process. */
  readonly restoredTokens: number;
  readonly copiedBytes: number;
  /** Values that stayed in the library's hands until the end of their call. */
  readonly heldCount: number;
  /** How often everything was forgotten: bytes gone or damaged, or no room for them. */
  readonly lostCount: number;
}

/** An encoder's entries come back as they were given. */
function isEncoders(name: string): boolean {
  return name.includes("encoder");
}

/**
 * The KV of one conversation, for `generate({ past_key_values })`. Made by {@link createPastKeyValues}.
 *
 * @remarks A call is `await prepare(ids)`, `generate`, `await commit(ids)`, or {@link generate} for all
 *   three. Its tensors are pinned from `prepare` to `commit`. One sequence at a time, without beams.
 */
export class PastKeyValues {
  readonly #owner: EntryOwner;
  readonly #Tensor: LibraryTensorClass;
  readonly #fingerprint: string;
  readonly #entries = new Map<string, CacheEntry>();
  #state: "idle" | "moving" | "open" | "freed" = "idle";
  /** Tokens whose rows are in the entries, as far as they are known. */
  #tokens: number[] = [];
  /** Tokens whose rows are in the entries. */
  #length = 0;
  /** Of the call under way. */
  #prompt: readonly number[] = [];
  #model: WeakRef<object> | null = null;
  #hasLooked = false;
  /** Somebody else wrote to its tensors. They are freed by the next call: until then he may have pins. */
  #isSpoilt = false;
  /** Of entries that are made anew: above those of what was saved before. */
  #nextGeneration = 0;
  readonly #saved: SavedState | null;
  readonly #stats = {
    reusedTokens: 0,
    restoredTokens: 0,
    copiedBytes: 0,
    heldCount: 0,
    lostCount: 0,
  };

  /** @internal */
  constructor(memory: TensorMemory, options: PastKeyValuesOptions) {
    const { id } = options;
    this.#owner = { memory, id: id ?? null };
    this.#saved = id === undefined ? null : new SavedState(memory, id);
    this.#Tensor = options.Tensor;
    this.#fingerprint = options.fingerprint;
  }

  // --- What the library calls ------------------------------------------------------------------------

  /** Tokens in the cache. @throws {MisuseError} `unpinned` — not between `prepare` and `commit`. */
  get_seq_length(): number {
    this.#checkOpen();
    return this.#length;
  }

  /**
   * Takes over what a pass has returned, or the empty tensors before the first.
   *
   * @throws {MisuseError} `unpinned`; `foreign-cache` — KV of another form: of another model;
   *   `token-mismatch` — the pass was over other tokens than those of `prepare`; `overwritten` — somebody
   *   else wrote to its tensors; `unsupported` — a batch, or memory that is shared.
   */
  update(entries: Readonly<Record<string, LibraryTensor>>): void {
    this.#checkOpen();
    const given = Object.entries(entries).filter(
      ([name]) => !(isEncoders(name) && this.#entries.has(name)),
    );
    const length = this.#checkUpdate(given);
    for (const [name, tensor] of given) {
      let entry = this.#entries.get(name);
      if (entry === undefined) entry = this.#define(name, tensor);
      this.#stats.copiedBytes += entry.take(tensor, length);
      if (entry.isHeld) this.#stats.heldCount += 1;
    }
    this.#length = length;
  }

  /** Gives up its tensors; what was saved stays. May be called again. */
  async dispose(): Promise<void> {
    if (this.#state === "moving") this.#checkIdle();
    this.#forget();
    this.#state = "freed";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  // --- What callers call -----------------------------------------------------------------------------

  /**
   * Prepares a call: compares tokens, forgets those from the first difference on, makes what is left
   * resident and pins it.
   *
   * @param ids All of the call's `input_ids`, from the beginning of the conversation. Of one sequence,
   *   with a mask of ones.
   * @param options.newTokens Tokens that may be generated: room for them is made now. Default: 0.
   * @returns Tokens that need not be computed again, at most all but one.
   * @throws {MisuseError} `bad-option`; `re-entrant` — a call is under way; `freed`; `overwritten`.
   * @throws As `TensorMemory.acquireChain`, except that damage is as a miss.
   */
  async prepare(ids: TokenIds, options: { readonly newTokens?: number } = {}): Promise<number> {
    this.#checkIdle();
    const tokens = tokensOf(ids);
    const { newTokens = 0 } = checkObject(options, "prepare", ["newTokens"]) as typeof options;
    if (!Number.isSafeInteger(newTokens) || newTokens < 0) {
      throw new MisuseError("bad-option", `${describe(newTokens)} is not a number of tokens`);
    }
    this.#state = "moving";
    try {
      if (this.#isSpoilt) this.#lose();
      if (!this.#hasLooked) await this.#lookForSaved(tokens);
      const keptTokens = this.#commonTokens(tokens);
      if (keptTokens === 0) this.#forget();
      else await this.#makeResident(keptTokens, tokens.length + newTokens);
      this.#prompt = tokens;
      this.#stats.reusedTokens += this.#length;
      this.#state = "open";
      return this.#length;
    } catch (error) {
      for (const entry of this.#entries.values()) entry.unpin();
      this.#state = "idle";
      throw error;
    }
  }

  /**
   * Ends a call: its tensors may leave from now on.
   *
   * @param ids What `generate` returned: the prompt and what came after it.
   * @returns `"no-room"` when the KV was on a GPU, or without room, and cannot be kept. It is forgotten
   *   then, and will be computed again.
   * @throws {MisuseError} `token-mismatch` — these are not the tokens of the call, of which the known ones
   *   are kept; `overwritten` — somebody else wrote to its tensors, and nothing is kept; `unpinned`,
   *   `bad-option`.
   */
  async commit(ids: TokenIds): Promise<"kept" | "no-room"> {
    this.#checkOpen();
    const tokens = tokensOf(ids);
    const isContinued =
      tokens.length >= this.#length &&
      this.#prompt.every((token, index) => token === tokens[index]);
    if (!isContinued) {
      this.cancel();
      throw new MisuseError("token-mismatch", "these tokens are not those of the call");
    }
    this.#checkUntouched();
    this.#state = "moving";
    try {
      for (const entry of this.#entries.values()) this.#stats.copiedBytes += await entry.settle();
      this.#end(tokens);
      return "kept";
    } catch (error) {
      this.#lose();
      if (error instanceof OutOfMemoryError) return "no-room";
      throw error;
    } finally {
      this.#state = "idle";
    }
  }

  /** Ends a call that failed: of its tokens only those of the prompt are kept. */
  cancel(): void {
    this.#checkOpen();
    const isWhole = [...this.#entries.values()].every((entry) => !entry.isHeld);
    if (!isWhole) this.#lose();
    else this.#end(this.#prompt);
    this.#state = "idle";
  }

  /**
   * `model.generate` with this cache: `prepare`, the call, `commit`.
   *
   * @param options Of the library's `generate`, with `input_ids`.
   * @returns What it returns.
   * @throws {MisuseError} `foreign-cache` — the KV in it is of another model; as `prepare` and `commit`.
   */
  async generate<T = unknown>(
    model: LibraryModel,
    options: {
      readonly input_ids: LibraryTensor | object;
      readonly max_new_tokens?: number;
      readonly [name: string]: unknown;
    },
  ): Promise<T> {
    this.#checkIdle();
    const known = this.#model?.deref();
    if (this.#length > 0 && known !== undefined && known !== model) {
      throw new MisuseError("foreign-cache", "the cache was filled by another model");
    }
    const { input_ids, max_new_tokens: newTokens = 0 } = options;
    await this.prepare(input_ids as LibraryTensor, { newTokens });
    this.#model = new WeakRef(model);
    let output: unknown;
    try {
      output = await model.generate({ ...options, past_key_values: this } as never);
    } catch (error) {
      if (this.#state === ("open" as string)) this.cancel();
      throw error;
    }
    const { sequences = output } = output as { readonly sequences?: unknown };
    await this.commit(sequences as LibraryTensor);
    return output as T;
  }

  /**
   * Writes everything that a later process needs to go on: `prepare` there finds it by id. What was saved
   * before stays valid until all of it is written.
   *
   * @returns `"no-space"` as of `TensorMemory.save`, or when there is nothing to save.
   * @throws {MisuseError} `unsupported` — it has no id; `re-entrant`, `freed`, `overwritten`.
   * @throws As `TensorMemory.save`.
   */
  async save(options: SaveOptions = {}): Promise<"stored" | "no-space"> {
    this.#checkIdle();
    if (this.#saved === null) throw new MisuseError("unsupported", "what is saved needs an id");
    if (this.#length === 0) return "no-space";
    this.#checkUntouched();
    this.#state = "moving";
    const index = {
      fingerprint: this.#fingerprint,
      tokens: this.#tokens,
      rowCount: this.#length,
    };
    try {
      return await this.#saved.write(index, [...this.#entries.values()], options);
    } finally {
      this.#state = "idle";
    }
  }

  /** {@link dispose}, and deletes what was saved. @returns Whether anything was. */
  async delete(): Promise<boolean> {
    this.#checkIdle();
    if (!this.#hasLooked) await this.#lookForSaved([]);
    await this.dispose();
    return (await this.#saved?.delete()) === true;
  }

  /** The tokens whose rows are in it, oldest first. A copy. */
  tokens(): number[] {
    return this.#tokens.slice();
  }

  /** Bytes of its tensors in the heap. */
  byteLength(): number {
    return [...this.#entries.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  stats(): PastKeyValuesStats {
    return { ...this.#stats };
  }

  // --- Inside ----------------------------------------------------------------------------------------

  #checkIdle(): void {
    if (this.#state === "freed") throw new MisuseError("freed", "the cache was disposed");
    if (this.#state !== "idle") throw new MisuseError("re-entrant", "a call is under way");
  }

  #checkOpen(): void {
    if (this.#state === "open") return;
    throw new MisuseError("unpinned", "the cache is used between prepare() and commit()");
  }

  /** @throws {MisuseError} `overwritten`; the next call forgets everything. */
  #checkUntouched(): void {
    if ([...this.#entries.values()].every((entry) => entry.isUntouched())) return;
    this.#isSpoilt = true;
    for (const entry of this.#entries.values()) entry.unpin();
    this.#state = "idle";
    throw new MisuseError("overwritten", "somebody else wrote to a tensor of the cache");
  }

  /** @returns Tokens of the sequence after the update. */
  #checkUpdate(given: readonly (readonly [string, LibraryTensor])[]): number {
    this.#checkUntouched();
    let length = 0;
    for (const [name, tensor] of given) {
      const { dims } = tensor;
      const entry = this.#entries.get(name);
      if (entry !== undefined ? !entry.fits(tensor) : this.#length > 0) {
        throw new MisuseError("foreign-cache", `${name} is not of the model that filled the cache`);
      }
      if (dims.length === 4 && (dims[0] as number) > 1) {
        throw new MisuseError("unsupported", "a cache is of one sequence, not of a batch");
      }
      if (countsTokens(name)) length = Math.max(length, dims.at(-2) ?? 0);
    }
    // The first pass is over the rest of the prompt; each later one adds a token or more.
    const isFirst = this.#length < this.#prompt.length;
    const isExpected = isFirst ? length === this.#prompt.length : length > this.#length;
    if (isExpected || (length === 0 && this.#length === 0)) return length;
    throw new MisuseError(
      "token-mismatch",
      `${length} tokens in the model's KV; prepare() was told ${this.#prompt.length}`,
    );
  }

  #define(name: string, { type, dims }: LibraryTensor): CacheEntry {
    const isGrowing = countsTokens(name);
    const entry = new CacheEntry(this.#owner, {
      name,
      type,
      dims,
      isGrowing,
      generation: this.#nextGeneration,
    });
    this.#add(entry);
    return entry;
  }

  #add(entry: CacheEntry): void {
    this.#entries.set(entry.name, entry);
    Object.defineProperty(this, entry.name, {
      enumerable: true,
      configurable: true,
      get: () => {
        this.#checkOpen();
        return entry.read(this.#Tensor);
      },
    });
  }

  /** Ends the pins. @param tokens At least those whose rows are known are kept. */
  #end(tokens: readonly number[]): void {
    for (const entry of this.#entries.values()) entry.unpin();
    this.#tokens = tokens.slice(0, this.#length);
    this.#prompt = [];
    const ids = this.#tensorIds();
    if (ids.length > 0) this.#owner.memory.touchChain(ids);
  }

  #lose(): void {
    this.#stats.lostCount += 1;
    this.#forget();
  }

  /** Frees everything: the library will begin with empty tensors. */
  #forget(): void {
    for (const entry of this.#entries.values()) {
      this.#nextGeneration = Math.max(
        this.#nextGeneration,
        entry.generation + (entry.isSaved ? 1 : 0),
      );
      entry.free();
      Reflect.deleteProperty(this, entry.name);
    }
    this.#entries.clear();
    this.#isSpoilt = false;
    this.#tokens = [];
    this.#length = 0;
    this.#prompt = [];
  }

  #tensorIds(): string[] {
    return [...this.#entries.values()]
      .map(({ tensorId }) => tensorId)
      .filter((id): id is string => id !== null);
  }

  /** Tokens that both have in common, as many as can be used. */
  #commonTokens(tokens: readonly number[]): number {
    // The model has to be given one token at least.
    const most = Math.min(this.#tokens.length, tokens.length - 1);
    let count = 0;
    while (count < most && tokens[count] === this.#tokens[count]) count += 1;
    const canCut = [...this.#entries.values()].every(
      ({ name, isGrowing }) => isGrowing || isEncoders(name),
    );
    return canCut || count === this.#length ? count : 0;
  }

  async #makeResident(keptTokens: number, tokenCount: number): Promise<void> {
    const { memory } = this.#owner;
    const entries = [...this.#entries.values()];
    // What is resident and has no name stays so.
    const leases = await this.#acquire(this.#tensorIds());
    if (leases === null) {
      this.#lose();
      return;
    }
    try {
      this.#checkUntouched();
      const growthBytes = Math.max(...entries.map((entry) => entry.growthBytes(tokenCount)));
      if (growthBytes > 0) {
        const request = { kind: "KV_CACHE", bytes: growthBytes, count: entries.length } as const;
        await memory.reserve(request);
        for (const lease of leases.splice(0)) lease[Symbol.dispose]();
        for (const entry of entries) entry.grow(tokenCount);
      }
    } catch (error) {
      // It was for later; a pass that finds no room goes on all the same.
      if (!(error instanceof OutOfMemoryError)) throw error;
    } finally {
      for (const entry of entries) if (entry.isResident) entry.pin();
      for (const lease of leases) lease[Symbol.dispose]();
    }
    try {
      for (const entry of entries) await entry.truncate(keptTokens);
      this.#tokens.length = keptTokens;
      this.#length = keptTokens;
    } catch (error) {
      // Some are cut and some are not.
      this.#lose();
      if (!(error instanceof OutOfMemoryError)) throw error;
    }
  }

  /** @returns null when one of the tensors is gone or damaged. */
  async #acquire(ids: readonly string[]) {
    if (ids.length === 0) return [];
    try {
      return await this.#owner.memory.acquireChain(ids, { access: "read" });
    } catch (error) {
      if (error instanceof CorruptionError) return null;
      throw error;
    }
  }

  /** Takes over what an earlier process saved, if it is of this model and begins as the tokens do. */
  async #lookForSaved(tokens: readonly number[]): Promise<void> {
    if (this.#saved === null) return;
    const index = await this.#saved.read();
    this.#hasLooked = true;
    if (index === null) return;
    const generations = index.entries.map(({ generation }) => generation);
    this.#nextGeneration = Math.max(0, ...generations) + 1;
    if (index.fingerprint !== this.#fingerprint || index.tokens[0] !== tokens[0]) return;
    if (await this.#tryAdopt(index, this.#saved.tensorIds)) {
      this.#stats.restoredTokens += this.#commonTokens(tokens);
      return;
    }
    this.#forget();
    const { memory } = this.#owner;
    for (const id of this.#saved.tensorIds) memory.tensor(id)?.[Symbol.dispose]();
  }

  async #tryAdopt(index: SavedIndex, tensorIds: readonly string[]): Promise<boolean> {
    const { memory } = this.#owner;
    for (const description of index.entries) this.#add(new CacheEntry(this.#owner, description));
    this.#length = index.rowCount;
    this.#tokens = [...index.tokens];
    const isEmpty = index.entries.map(({ dims }) => elementCount(dims) === 0);
    const leases = await this.#acquire(tensorIds.filter((_, at) => isEmpty[at] !== true));
    if (leases === null) return false;
    const isAdopted = [...this.#entries.values()].every(
      (entry, at) => isEmpty[at] === true || entry.tryAdopt(memory.tensor(tensorIds[at] as string)),
    );
    for (const lease of leases) lease[Symbol.dispose]();
    return isAdopted;
  }
}

/** Whether the second last dimension of an entry counts the tokens of the sequence. */
function countsTokens(name: string): boolean {
  return name.startsWith("past_key_values.") && !isEncoders(name);
}

/**
 * A cache for `generate({ past_key_values })` of transformers.js, over KV in the heap: used again in later
 * calls as far as the tokens are the same, demoted between them if it has an id, and saved.
 *
 * @throws {MisuseError} `bad-option`, `bad-id`.
 * @remarks Copies what the model returns once per pass, which is all of its KV. KV on a GPU stays there
 *   during a call and comes into the heap at its end.
 * @see https://github.com/huggingface/transformers.js, `src/cache_utils.js`: the contract.
 */
export function createPastKeyValues(
  memory: TensorMemory,
  options: PastKeyValuesOptions,
): PastKeyValues {
  const known = ["Tensor", "fingerprint", "id"];
  const given = checkObject(options, "createPastKeyValues", known);
  if (typeof given["Tensor"] !== "function") {
    throw new MisuseError("bad-option", "Tensor is the class of transformers.js");
  }
  if (given["fingerprint"] === undefined) throw new MisuseError("bad-option", "no fingerprint");
  checkText(given["fingerprint"], "fingerprint");
  if (given["id"] !== undefined && checkId(given["id"]) === "") {
    throw new MisuseError("bad-id", "an id is not empty");
  }
  return new PastKeyValues(memory, options);
}
