// Decodes with an ONNX runtime over KV that lies in the heap. The runtime is asked for the logits and
// the new rows only; the past is fed as it lies, and the rows are written behind it.
//
// Three copies are made: the file's bytes with a fragment behind them when the model is loaded, the
// new rows of each step, and all of a cache once per page of tokens. A model that delta rows do not fit
// copies all of its KV at each step instead; `stats()` says so, and why.
//
// Source: ONNX Runtime, JavaScript API — a run reads its inputs after it has returned its promise.
import { MisuseError, TierheapError } from "../../errors.js";
import type { KvCache } from "../../kv/kv-cache.js";
import type { KvLayerShape } from "../../kv/page-form.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import {
  appendFragment,
  type DeltaPlan,
  type DeltaRefusal,
  planDeltaRows,
} from "../onnx/delta-rows.js";
import { ModelError } from "../onnx/model-error.js";
import type { CacheOptions, CachePlan } from "./cache-plan.js";
import { digestOf } from "./fingerprint.js";
import { OrtKvCache } from "./kv-cache.js";
import { greedyToken, lastRow, logitsAgree } from "./logits.js";
import { appendToPages, fillFromPages, kvLayersOf } from "./paged.js";
import {
  makeTensor,
  numbersOf,
  type OrtNamespace,
  type OrtSession,
  type OrtTensor,
} from "./runtime.js";
import { deleteCache } from "./saved-tokens.js";
import { isProxied, loadSession } from "./session.js";
import { type StepArrays, StepInputs } from "./step-inputs.js";

/** `delta`: the new rows only. `plain`: all of the KV, copied at each step. */
export type DecoderMode = "delta" | "plain";

/**
 * Why a decoder is plain: what {@link DeltaRefusal} says about the graph; `asked`: the options say so;
 * `load-failed`: the runtime refused the patched model; `run-failed`, `check-failed`: the patched model
 * failed, or computed something else, in the check when it was opened.
 */
export type PlainReason = DeltaRefusal | "asked" | "load-failed" | "run-failed" | "check-failed";

export interface OrtDecoderOptions {
  /** The runtime: what `import * as ort from "onnxruntime-node"` gives, or `onnxruntime-web`. */
  readonly ort: OrtNamespace;
  /** Where the KV lies. Not a shared memory: the native runtime refuses views of one. */
  readonly memory: TensorMemory;
  /** Bytes of an ONNX file. The decoder does not keep them. */
  readonly model: Uint8Array<ArrayBuffer>;
  /**
   * Passed to `InferenceSession.create`: execution providers, and for data outside of the file
   * `externalData`. Default: the runtime's own.
   */
  readonly sessionOptions?: object;
  /** Names the model in its caches. Default: SHA-256 of `model`, which reads all of its bytes. */
  readonly fingerprint?: string;
  /** Default: `"delta"` where the model allows it. */
  readonly mode?: DecoderMode;
  /**
   * Tokens that are decoded in both ways when the model is opened, and must agree. Default: 8. 0 trusts
   * that they would.
   */
  readonly checkTokens?: number;
  /** Where ids, positions and mask of a step lie. Default: arrays of the engine, kept between steps. */
  readonly arrays?: StepArrays;
  /**
   * Tokens by which a cache grows, at least 1. Higher copies less often and pads more. Default: 8, and
   * from 256 tokens on a sixteenth of the next lower power of two, at most 64.
   */
  readonly pageTokens?: number;
}

/** What a step computed. */
export interface OrtStep {
  /** Of the last token, one per word of the vocabulary; f16 as bit patterns. The runtime's memory. */
  readonly logits: Float32Array | Uint16Array;
}

/** What a decoder did so far. */
export interface OrtDecoderStats {
  readonly mode: DecoderMode;
  /** Why the mode is plain, or null. */
  readonly reason: PlainReason | null;
  /** Tokens that agreed when the model was opened. */
  readonly checkedTokens: number;
  readonly stepCount: number;
  /** Bytes of new rows written into caches. */
  readonly rowBytes: number;
  /** Bytes of whole KV copied into caches: 0 with delta rows. */
  readonly presentBytes: number;
  /** Tensors of the runtime and views that were made to feed it. */
  readonly madeCount: number;
}

const CHECK_TOKENS = 8;
/** In the check caches grow by so few tokens, so that growing is a part of it. */
const CHECK_PAGE_TOKENS = 6;

/**
 * A model on a runtime, with caches in a heap. Made by {@link openOrtDecoder}.
 *
 * @remarks Caches are independent: their steps may overlap. One cache takes one step at a time.
 */
export class OrtDecoder {
  /** Under which caches are kept: only those of the same fingerprint fit. */
  readonly fingerprint: string;
  readonly #ort: OrtNamespace;
  readonly #session: OrtSession;
  readonly #memory: TensorMemory;
  readonly #deltas: DeltaPlan;
  readonly #pageTokens: number | null;
  readonly #arrays: StepArrays | null;
  readonly #inputs = new WeakMap<OrtKvCache, StepInputs>();
  /**
   * The runtime's tensors over views of the heap. Nothing but the heap keeps those: an arena that was
   * dropped gives its memory back only when nobody has a view on it.
   */
  readonly #pastTensors = new WeakMap<ArrayBufferView, OrtTensor>();
  readonly #running = new Set<Promise<unknown>>();
  #mode: DecoderMode;
  #reason: PlainReason | null;
  #checkedTokens = 0;
  #stepCount = 0;
  #rowBytes = 0;
  #presentBytes = 0;
  #madeCount = 0;
  #closing: Promise<void> | null = null;

  /** @internal Made by {@link openOrtDecoder}. */
  constructor(
    options: OrtDecoderOptions,
    opened: {
      readonly session: OrtSession;
      readonly deltas: DeltaPlan;
      readonly fingerprint: string;
      readonly reason: PlainReason | null;
    },
  ) {
    this.fingerprint = opened.fingerprint;
    this.#ort = options.ort;
    this.#session = opened.session;
    this.#memory = options.memory;
    this.#deltas = opened.deltas;
    this.#pageTokens = options.pageTokens ?? null;
    this.#arrays = options.arrays ?? null;
    this.#reason = opened.reason;
    this.#mode = opened.reason === null ? "delta" : "plain";
  }

  /**
   * An empty cache for one chat.
   *
   * @throws {MisuseError} `bad-id`, `bad-option`, `closed`.
   */
  createCache(options: CacheOptions = {}): OrtKvCache {
    this.#checkOpen();
    return new OrtKvCache(this.#planFor(this.#mode, this.#pageTokens), options);
  }

  /**
   * A cache of its own over what a cache of that id left in this memory, or saved; see `OrtKvCache.save`.
   *
   * @param options.tokens Those of the chat. One of these and what was left must begin with the other; the
   *   cache holds what they have in common. Default: whatever was left.
   * @returns null when nothing was left or saved, a part of it is gone, or was not saved together with its tokens.
   * @throws {MisuseError} `foreign-cache` — computed by another model or mode; `token-mismatch` — for other
   *   tokens; `re-entrant` — a step of the cache that left it is under way; `overwritten`; `bad-id`,
   *   `bad-option`, `closed`.
   * @throws As `TensorMemory.acquireChain`.
   * @remarks At most one cache writes to an id at a time; the others find it overwritten.
   */
  openCache(
    options: CacheOptions & { readonly id: string; readonly tokens?: ArrayLike<number> },
  ): Promise<OrtKvCache | null> {
    this.#checkOpen();
    const { tokens = null, ...rest } = options;
    const plan = this.#planFor(this.#mode, this.#pageTokens);
    return this.#track(OrtKvCache.open(plan, rest, tokens));
  }

  /**
   * Deletes what a cache of that id left, in this memory and in every tier.
   *
   * @returns Whether there was anything.
   * @throws {MisuseError} `pinned` — a step of it is under way; `bad-id`, `closed`.
   * @throws As `TensorMemory.delete`.
   */
  async deleteCache(id: string): Promise<boolean> {
    return deleteCache(this.#memory, id, this.createCache({ id }).ids);
  }

  /**
   * A cache with the same tokens, and tensors of its own. The other stays.
   *
   * @throws {MisuseError} `foreign-cache`; `re-entrant` — a step of it is under way; `overwritten`,
   *   `freed`, `closed`, `bad-*`, `duplicate-id`.
   * @throws {OutOfMemoryError} There is no room for another.
   * @remarks Copies the rows in use.
   */
  async forkCache(cache: OrtKvCache, options: CacheOptions = {}): Promise<OrtKvCache> {
    this.#checkFits(cache);
    const fork = this.createCache(options);
    try {
      await this.#track(fork.copyFrom(cache));
    } catch (error) {
      fork.free();
      throw error;
    }
    return fork;
  }

  /**
   * What the model keeps of a token, layer by layer: for `openKvCaches` of `tierheap/kv`, with this
   * decoder's fingerprint.
   *
   * @throws {ModelError} `unsupported` — keys and values of a layer differ in shape.
   */
  get kvLayers(): KvLayerShape[] {
    return kvLayersOf(this.#deltas.decoder.entries);
  }

  /**
   * A cache that begins with what a cache in pages holds. The other stays.
   *
   * @throws {MisuseError} `foreign-cache` — the pages are of another model; `unsupported` — their layout
   *   has let pages leave; `closed`, `bad-*`, and whatever `KvCache.gather` throws.
   * @throws {OutOfMemoryError} There is no room for another.
   * @remarks Copies all rows. When they belong to the whole prompt, truncate the cache by a token: a step
   *   needs one that is new.
   */
  async restoreCache(pages: KvCache, options: CacheOptions = {}): Promise<OrtKvCache> {
    const cache = this.createCache(options);
    try {
      await this.#track(fillFromPages(cache, this.#deltas.decoder.entries, pages));
      return cache;
    } catch (error) {
      cache.free();
      throw error;
    }
  }

  /**
   * Appends to a cache in pages what this decoder's cache holds behind it: at the end of a turn, so that
   * other chats, later turns and later processes find it.
   *
   * @throws {MisuseError} `token-mismatch` — the pages do not hold the beginning of the cache;
   *   `foreign-cache`, `re-entrant`, `overwritten`, `freed`, `closed`.
   * @throws {OutOfMemoryError} There is no room for a page. Those before it are appended.
   * @remarks Copies the rows that are new to the pages.
   */
  async storeCache(cache: OrtKvCache, pages: KvCache): Promise<void> {
    this.#checkFits(cache);
    await this.#track(appendToPages(cache, this.#deltas.decoder.entries, pages));
  }

  /**
   * Runs the model over what is new in `tokens`, and adds that to the cache.
   *
   * @param tokens The whole sequence, prompt and answers: what the cache holds, and at least one more.
   * @returns Logits of the last token.
   * @throws {MisuseError} `foreign-cache` — computed by another model, another mode or memory;
   *   `token-mismatch` — `tokens` does not begin with the cache's, or brings nothing new; `re-entrant`
   *   — a step of it is under way; `overwritten` — somebody else wrote to its tensors, before the step
   *   or during it; `bad-option` — not a token; `freed`, `closed`. The cache is as it was.
   * @throws {OutOfMemoryError} There is no room for the rows. The cache is as it was.
   * @throws {ModelError} `unsupported` — the model returns another shape than it declares.
   * @throws The runtime's error when it refuses to run. The cache is as it was.
   * @remarks Until the promise settles, every block that the runtime reads is pinned: it cannot move,
   *   leave, be resized or freed.
   */
  async step(cache: OrtKvCache, tokens: ArrayLike<number>): Promise<OrtStep> {
    this.#checkFits(cache);
    return this.#track(this.#step(cache, tokens, this.#mode));
  }

  stats(): OrtDecoderStats {
    return {
      mode: this.#mode,
      reason: this.#reason,
      checkedTokens: this.#checkedTokens,
      stepCount: this.#stepCount,
      rowBytes: this.#rowBytes,
      presentBytes: this.#presentBytes,
      madeCount: this.#madeCount,
    };
  }

  /** Waits for steps that are under way, then releases the session. Caches stay. May be called again. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled(this.#running);
      await this.#session.release();
    })();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Decodes `count` tokens in both ways, over a second input of several tokens and more than one growth
   * of the cache, and becomes plain if they disagree.
   *
   * @internal
   */
  async check(count: number): Promise<void> {
    const caches = (["plain", "delta"] as const).map((mode) => ({
      mode,
      cache: new OrtKvCache(this.#planFor(mode, CHECK_PAGE_TOKENS)),
    }));
    try {
      const reason = await this.#findDisagreement(count, caches);
      if (reason === null) this.#checkedTokens = count;
      else {
        this.#mode = "plain";
        this.#reason = reason;
      }
    } finally {
      for (const { cache } of caches) cache.free();
      this.#stepCount = 0;
      this.#rowBytes = 0;
      this.#presentBytes = 0;
      this.#madeCount = 0;
    }
  }

  // --- Inside --------------------------------------------------------------------------------------

  #checkOpen(): void {
    if (this.#closing !== null) throw new MisuseError("closed", "the decoder is closed");
  }

  #checkFits(cache: OrtKvCache): void {
    this.#checkOpen();
    const plan = this.#planFor(this.#mode, this.#pageTokens);
    if (cache instanceof OrtKvCache && cache.fits(plan)) return;
    throw new MisuseError("foreign-cache", "the cache is of another model, mode or memory");
  }

  #planFor(mode: DecoderMode, pageTokens: number | null): CachePlan {
    const { entries, style } = this.#deltas.decoder;
    return {
      memory: this.#memory,
      fingerprint: this.fingerprint,
      entries,
      isTight: mode === "plain" && style !== "grouped",
      pageTokens,
    };
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    try {
      return await work;
    } finally {
      this.#running.delete(work);
    }
  }

  async #findDisagreement(
    count: number,
    caches: readonly { mode: DecoderMode; cache: OrtKvCache }[],
  ): Promise<PlainReason | null> {
    const words = Math.min(this.#deltas.decoder.vocabulary ?? 2, 2 ** 15);
    const tokens = [1, 3, 2, 5, 4, 1, 6].map((number) => Math.floor((number * words) / 7) % words);
    for (let done = 0; done < count; done++) {
      const rows: (Float32Array | Uint16Array)[] = [];
      for (const { mode, cache } of caches) {
        try {
          rows.push((await this.#step(cache, tokens, mode)).logits);
        } catch (error) {
          const isOurs = error instanceof TierheapError && !(error instanceof ModelError);
          if (mode === "plain" || isOurs) throw error;
          return "run-failed";
        }
      }
      const [plain, delta] = rows as [Float32Array, Float32Array];
      const token = greedyToken(plain);
      if (token < 0) throw new ModelError("unsupported", "the model yields no number as a logit");
      if (greedyToken(delta) !== token || !logitsAgree(plain, delta)) return "check-failed";
      tokens.push(token);
      // Halfway, what a second turn would say.
      if (done * 2 === count || done * 2 === count - 1) tokens.push(...tokens.slice(1, 4));
    }
    return null;
  }

  async #step(cache: OrtKvCache, tokens: ArrayLike<number>, mode: DecoderMode): Promise<OrtStep> {
    this.#checkTokens(tokens, tokens.length - cache.newTokenCount(tokens));
    await cache.begin(tokens.length);
    const pastTokens = cache.tokenCount;
    const newTokens = tokens.length - pastTokens;
    let outputs: Record<string, OrtTensor> = {};
    // The mask of a model that concatenates covers the padding too.
    const isGrouped = this.#deltas.decoder.style === "grouped";
    const seenTokens = isGrouped ? pastTokens : this.#fedPastTokens(cache, pastTokens, mode);
    const total = seenTokens + newTokens;
    this.#arrays?.begin({ tokens: newTokens, total });
    try {
      const { decoder, patch } = this.#deltas;
      const names =
        mode === "delta" && patch !== null
          ? patch.rowNames
          : decoder.entries.map(({ presentName }) => presentName);
      const feeds = this.#feeds(cache, tokens, pastTokens, mode);
      outputs = await this.#session.run(feeds, [decoder.logitsName, ...names]);
      // A result that may have been computed from other bytes is none.
      cache.checkRunUntouched();
      const logits = lastRow(outputs[decoder.logitsName] as OrtTensor);
      const kv = names.map((name) => outputs[name] as OrtTensor);
      this.#keep(cache, kv, tokens.length, newTokens, mode);
      cache.commit(tokens);
      this.#stepCount += 1;
      return { logits };
    } finally {
      this.#arrays?.end();
      cache.end();
      // Frees what a provider may hold elsewhere; arrays keep their own memory alive.
      for (const output of Object.values(outputs)) output.dispose();
    }
  }

  /** Rows of the past that are fed, padding included. */
  #fedPastTokens(cache: OrtKvCache, pastTokens: number, mode: DecoderMode): number {
    // A model that concatenates has nothing to gain from padding while there is no past.
    const isPadded =
      this.#deltas.decoder.style === "grouped" || (mode === "delta" && pastTokens > 0);
    return isPadded ? cache.capacityTokens : pastTokens;
  }

  #checkTokens(tokens: ArrayLike<number>, from: number): void {
    const limit = this.#deltas.decoder.vocabulary ?? Number.MAX_SAFE_INTEGER;
    for (let index = from; index < tokens.length; index++) {
      const token = tokens[index] as number;
      if (Number.isInteger(token) && token >= 0 && token < limit) continue;
      throw new MisuseError("bad-option", `${describe(token)} is not a token below ${limit}`);
    }
  }

  #feeds(
    cache: OrtKvCache,
    tokens: ArrayLike<number>,
    pastTokens: number,
    mode: DecoderMode,
  ): Record<string, OrtTensor> {
    const { style, entries, controls } = this.#deltas.decoder;
    const isGrouped = style === "grouped";
    const fedPastTokens = this.#fedPastTokens(cache, pastTokens, mode);
    const inputs = this.#inputs.get(cache) ?? new StepInputs(this.#ort, controls, this.#arrays);
    this.#inputs.set(cache, inputs);
    const feeds: Record<string, OrtTensor> = {};
    const madeBefore = inputs.madeCount;
    const newTokens = tokens.length - pastTokens;
    const isPaddingMasked = !isGrouped;
    inputs.fill(feeds, { tokens, pastTokens, newTokens, fedPastTokens, isPaddingMasked });
    this.#madeCount += inputs.madeCount - madeBefore;
    for (const [index, { pastName, heads, headDim, dtype }] of entries.entries()) {
      const whole = cache.view(index);
      const elementCount = heads * fedPastTokens * headDim;
      const isWhole = elementCount === whole.length;
      const known = isWhole ? this.#pastTensors.get(whole) : undefined;
      if (known !== undefined && known.dims[1] === heads && known.dims[2] === fedPastTokens) {
        feeds[pastName] = known;
        continue;
      }
      const view = isWhole ? whole : whole.subarray(0, elementCount);
      const elementType = dtype === "f32" ? "float32" : "float16";
      const tensor = makeTensor(this.#ort, elementType, view, [1, heads, fedPastTokens, headDim]);
      if (isWhole) this.#pastTensors.set(whole, tensor);
      this.#madeCount += isWhole ? 1 : 2;
      feeds[pastName] = tensor;
    }
    return feeds;
  }

  /** Puts what the run returned into the cache, once all of it has the right length. */
  #keep(
    cache: OrtKvCache,
    kv: readonly OrtTensor[],
    totalTokens: number,
    newTokens: number,
    mode: DecoderMode,
  ): void {
    const { entries, style } = this.#deltas.decoder;
    const plainTokens = style === "grouped" ? cache.capacityTokens : totalTokens;
    const returnedTokens = mode === "delta" ? newTokens : plainTokens;
    const arrays = kv.map(numbersOf);
    for (const [index, { heads, headDim, presentName }] of entries.entries()) {
      const expected = heads * returnedTokens * headDim;
      if (arrays[index]?.length === expected) continue;
      const problem = `${presentName} comes with ${arrays[index]?.length ?? 0} elements`;
      throw new ModelError("unsupported", `${problem} instead of ${expected}`);
    }
    for (const [index, array] of arrays.entries()) {
      if (mode === "delta") {
        cache.writeRows(index, array, newTokens);
        this.#rowBytes += array.byteLength;
      } else {
        cache.replace(index, array);
        this.#presentBytes += array.byteLength;
      }
    }
  }
}

function checkCount(value: number | undefined, least: number, name: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return;
  throw new MisuseError("bad-option", `${name} must be an integer of at least ${least}`);
}

/**
 * Loads a model so that its KV lies in the heap and only new rows are copied, and checks that it
 * computes the same that way.
 *
 * @throws {ModelError} `malformed`; `unsupported` — no decoder with KV inputs that are known here, or
 *   its runtime refuses it.
 * @throws {MisuseError} `bad-option`; `unsupported` — the memory is shared.
 * @throws {OutOfMemoryError} There is no room for the check.
 * @remarks The bytes are read and judged before anything is loaded. Where delta rows do not fit, the
 *   decoder is plain and `stats().reason` says why. The check runs the loaded model in both ways; the
 *   patch adds readers of the present and changes no node, so the plain way is the model's own.
 */
export async function openOrtDecoder(options: OrtDecoderOptions): Promise<OrtDecoder> {
  const { ort, model, mode, checkTokens = CHECK_TOKENS } = options;
  if (!(model instanceof Uint8Array)) throw new MisuseError("bad-option", "model is a Uint8Array");
  checkCount(checkTokens, 0, "checkTokens");
  checkCount(options.pageTokens, 1, "pageTokens");
  const deltas = planDeltaRows(model);
  const fingerprint = options.fingerprint ?? (await digestOf(model));
  let reason: PlainReason | null = mode === "plain" ? "asked" : deltas.refusal;
  let session: OrtSession | null = null;
  const load = (bytes: Uint8Array) => loadSession(ort, bytes, options.sessionOptions);
  if (reason === null && deltas.patch !== null) {
    try {
      session = await load(appendFragment(model, deltas.patch.fragment));
    } catch {
      // The plain model will tell whether it is the patch that the runtime refuses.
      reason = "load-failed";
    }
  }
  try {
    session ??= await load(isProxied(ort) ? model.slice() : model);
  } catch (error) {
    throw new ModelError("unsupported", "the runtime refuses the model", { cause: error });
  }
  const decoder = new OrtDecoder(options, { session, deltas, fingerprint, reason });
  try {
    if (reason === null && checkTokens > 0) await decoder.check(checkTokens);
  } catch (error) {
    await decoder.close();
    throw error;
  }
  return decoder;
}
