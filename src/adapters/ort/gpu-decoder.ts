// Decodes with onnxruntime-web's WebGPU provider over KV in whole buffers of one device. The runtime reads
// and writes those buffers itself: nothing of the KV crosses to the CPU but when a chat is suspended,
// saved or restored.
//
// Models that concatenate read one set of buffers and write another, of the next length; the first is then
// free for whoever steps next. Models with GroupQueryAttention have one set, past and present in one.
//
// Source: ONNX Runtime, JavaScript API — preallocated outputs, `Tensor.fromGpuBuffer`, the provider's
//   option `device`.

import type { GpuBuffers } from "../../cache/gpu-buffers.js";
import { MisuseError, TierError } from "../../errors.js";
import { GPU_COPY_BYTES, type GpuBuffer } from "../../gpu/gpu-device.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import { type DecoderGraph, readDecoder } from "../onnx/decoder-graph.js";
import { readGraph } from "../onnx/graph.js";
import { ModelError } from "../onnx/model-error.js";
import { checkSeal, readSeal, saveSealed } from "./cache-seal.js";
import { digestOf } from "./fingerprint.js";
import { type GpuCacheOptions, type GpuCachePlan, type GpuSet, OrtGpuCache } from "./gpu-cache.js";
import { GpuResidency, rowBytesOf, shapeOf } from "./gpu-residency.js";
import { greedyToken, lastRow, logitsAgree } from "./logits.js";
import { makeTensor, type OrtNamespace, type OrtTensor } from "./runtime.js";
import { StepInputs } from "./step-inputs.js";

/** `onnxruntime-web` with its WebGPU provider: what `import * as ort from "onnxruntime-web/webgpu"` gives. */
export interface OrtGpuNamespace extends OrtNamespace {
  readonly Tensor: OrtNamespace["Tensor"] & {
    fromGpuBuffer(buffer: never, options: never): object;
  };
}

export interface OrtGpuDecoderOptions {
  readonly ort: OrtGpuNamespace;
  /**
   * With a GPU: its device is the one that the runtime is to use, its `budgets.gpu` holds the KV as well, and it
   * is where chats go that are suspended. Decoders may share one.
   */
  readonly memory: TensorMemory;
  /** Bytes of an ONNX file. The decoder does not keep them. */
  readonly model: Uint8Array<ArrayBuffer>;
  /** Passed to `InferenceSession.create`; the execution provider is set here. */
  readonly sessionOptions?: object;
  /** Passed to the provider beside its name and device, for example `storageBufferCacheMode`. */
  readonly providerOptions?: object;
  /** Names the model in its caches. Default: SHA-256 of `model`, which reads all of its bytes. */
  readonly fingerprint?: string;
  /**
   * Tokens that are decoded with a cache and without one when the model is opened, and must agree.
   * Default: 8. 0 trusts that they would.
   */
  readonly checkTokens?: number;
  /** Tokens by which a cache grows, at least 1. Default: 64. Higher makes fewer buffers, of more bytes. */
  readonly pageTokens?: number;
}

/** What a decoder did so far. */
export interface OrtGpuDecoderStats {
  /** Tokens that agreed when the model was opened. */
  readonly checkedTokens: number;
  readonly stepCount: number;
  /** Caches that were brought to another stride, on the device. */
  readonly relayoutCount: number;
  readonly suspendCount: number;
  /** Suspensions that made room for another cache; they are among the former. */
  readonly evictCount: number;
  readonly restoreCount: number;
  /** Bytes of KV copied from the device into the heap. */
  readonly readBackBytes: number;
  /** Bytes of KV copied from the heap to the device. */
  readonly uploadBytes: number;
}

/** What a step computed. */
export interface OrtGpuStep {
  /** Of the last token, one per word of the vocabulary; f16 as bit patterns. */
  readonly logits: Float32Array | Uint16Array;
}

interface GpuSession {
  run(
    feeds: Record<string, OrtTensor>,
    fetches: Record<string, OrtTensor | null>,
  ): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

type Stats = { -readonly [Name in keyof OrtGpuDecoderStats]: number };

const PAGE_TOKENS = 64;
const CHECK_TOKENS = 8;
const ELEMENT_TYPES = { f32: "float32", f16: "float16" } as const;

/**
 * A model on a GPU, with caches in its buffers. Made by {@link openOrtGpuDecoder}.
 *
 * @remarks Work on one device is done one after the other; calls may overlap. When `budgets.gpu` has no room
 *   for a cache, tensors that nobody has leased leave the device; then caches with an id are suspended, the longest
 *   unused first.
 */
export class OrtGpuDecoder {
  /** Under which caches are kept: only those of the same fingerprint fit. */
  readonly fingerprint: string;
  readonly #ort: OrtGpuNamespace;
  readonly #session: GpuSession;
  readonly #graph: DecoderGraph;
  readonly #plan: GpuCachePlan;
  readonly #inputs = new WeakMap<OrtGpuCache, StepInputs>();
  readonly #residency: GpuResidency;
  readonly #running = new Set<Promise<unknown>>();
  readonly #stats: Stats = {
    checkedTokens: 0,
    stepCount: 0,
    relayoutCount: 0,
    suspendCount: 0,
    evictCount: 0,
    restoreCount: 0,
    readBackBytes: 0,
    uploadBytes: 0,
  };
  #closing: Promise<void> | null = null;

  /** @internal Made by {@link openOrtGpuDecoder}. */
  constructor(
    options: OrtGpuDecoderOptions,
    opened: {
      readonly session: GpuSession;
      readonly graph: DecoderGraph;
      readonly fingerprint: string;
      readonly buffers: GpuBuffers;
    },
  ) {
    const { memory } = options;
    const { buffers, fingerprint } = opened;
    const { entries } = opened.graph;
    this.fingerprint = fingerprint;
    this.#ort = options.ort;
    this.#session = opened.session;
    this.#graph = opened.graph;
    this.#plan = { memory, buffers, fingerprint, entries };
    this.#residency = new GpuResidency(this.#plan, this.#stats, {
      isGrouped: opened.graph.style === "grouped",
      pageTokens: options.pageTokens ?? PAGE_TOKENS,
    });
  }

  /** An empty cache for one chat. @throws {MisuseError} `bad-id`, `closed`. @throws {TierError} `device-lost`. */
  createCache(options: GpuCacheOptions = {}): OrtGpuCache {
    this.#checkOpen();
    return new OrtGpuCache(this.#plan, options);
  }

  /**
   * A cache over what one of that id left in this memory or in its tier, on this device or another.
   *
   * @param options.tokens Those that it must hold. Default: whatever it holds.
   * @returns null when a tensor of it is gone. Its rows come to the device with the first step.
   * @throws {MisuseError} `foreign-cache` — another model computed it; `token-mismatch` — it holds other
   *   tokens; `bad-id`, `closed`. @throws {TierError} `device-lost`. @throws As `TensorMemory.acquire`.
   * @remarks One cache at a time for an id.
   */
  async openCache(options: {
    readonly id: string;
    readonly tokens?: ArrayLike<number>;
  }): Promise<OrtGpuCache | null> {
    const cache = this.createCache({ id: options.id });
    const { memory, entries } = this.#plan;
    return this.#track(async () => {
      const seal = await readSeal(memory, options.id);
      if (seal === null) return null;
      checkSeal(seal, this.fingerprint, options.tokens);
      const leases = await memory.acquireChain(cache.ids, { access: "read" });
      if (leases === null) return null;
      for (const lease of leases) lease[Symbol.dispose]();
      const tensors = cache.ids.slice(0, -1).map((id) => memory.tensor(id));
      const stride = tensors[0]?.shape[2] ?? 0;
      const isFitting = entries.every((entry, index) => {
        const shape = shapeOf(entry, stride);
        const tensor = tensors[index];
        return tensor?.dtype === entry.dtype && String(tensor.shape) === String(shape);
      });
      const { tokens } = seal;
      // Another stride is that of tensors of another time.
      if (!isFitting || seal.stride !== stride || stride < tokens.length) return null;
      cache.commit(tokens);
      cache.copy = { tokens: tokens.length, stride, versions: cache.versions() };
      cache.mustUnseal = false;
      return cache;
    });
  }

  /**
   * Runs the model over what is new in `tokens`, and adds that to the cache. Brings it to the device first,
   * if it was suspended.
   *
   * @param tokens The whole sequence, prompt and answers: what the cache holds, and at least one more.
   * @throws {MisuseError} `foreign-cache` — of another model, device or memory; `token-mismatch` —
   *   `tokens` does not begin with the cache's, or brings nothing new; `re-entrant` — work on it is under way;
   *   `overwritten` — somebody else wrote to its copy; `bad-option` — not a token; `freed`, `closed`.
   * @throws {OutOfMemoryError} Neither the budget nor the device has room.
   * @throws {TierError} `device-lost`; `io` — the device refused a part of the work.
   * @throws The runtime's error when it refuses to run.
   * @remarks The cache is as it was after every error but the loss of the device, which takes its buffers.
   */
  async step(cache: OrtGpuCache, tokens: ArrayLike<number>): Promise<OrtGpuStep> {
    this.#checkFits(cache);
    cache.checkIdle();
    const newTokens = cache.newTokenCount(tokens);
    this.#checkTokens(tokens, tokens.length - newTokens);
    return this.#exclusive(cache, async () => {
      await this.#residency.bringIn(cache);
      const logits =
        this.#graph.style === "grouped"
          ? await this.#stepInPlace(cache, tokens, newTokens)
          : await this.#stepAcross(cache, tokens, newTokens);
      this.#stats.stepCount += 1;
      return { logits };
    });
  }

  /**
   * Copies a cache into the heap and gives its buffers back. The next step brings it in again.
   *
   * @throws {MisuseError} `bad-id` — it has none; `foreign-cache`, `re-entrant`, `freed`, `closed`,
   *   `pinned`. @throws {OutOfMemoryError} There is no room in the heap. @throws {TierError} `device-lost`.
   * @remarks After an error its buffers are as they were; an older copy may be gone.
   */
  async suspend(cache: OrtGpuCache): Promise<void> {
    this.#checkCopied(cache);
    await this.#exclusive(cache, () => this.#residency.suspend(cache));
  }

  /**
   * Copies a cache into the heap, where it outlives the device, and saves it in the memory's tier, where it
   * outlives the process. It stays on the device.
   *
   * @param options As of `TensorMemory.save`.
   * @throws As {@link suspend} and `TensorMemory.save`.
   */
  async save(
    cache: OrtGpuCache,
    options?: Parameters<TensorMemory["save"]>[1],
  ): Promise<"stored" | "no-space"> {
    this.#checkCopied(cache);
    return this.#exclusive(cache, async () => {
      await this.#residency.copyOut(cache);
      const [ids, id] = [cache.ids.slice(0, -1), cache.id as string];
      return saveSealed(this.#plan.memory, id, ids, this.#residency.sealOf(cache), options);
    });
  }

  stats(): OrtGpuDecoderStats {
    return { ...this.#stats };
  }

  /** Waits for work that is under way, then releases the session. Caches stay. May be called again. */
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
   * Decodes `count` tokens with a cache, over a second input of several tokens, and compares each with the
   * same computed from all tokens at once.
   *
   * @internal
   * @throws {ModelError} `unsupported` — they disagree.
   */
  async check(count: number): Promise<void> {
    const words = Math.min(this.#graph.vocabulary ?? 2, 2 ** 15);
    const tokens = [1, 3, 2, 5, 4, 1, 6].map((number) => Math.floor((number * words) / 7) % words);
    const cache = this.createCache();
    try {
      for (let done = 0; done < count; done++) {
        const { logits } = await this.step(cache, tokens);
        const fresh = this.createCache();
        const whole = await this.step(fresh, tokens).finally(() => this.#drop(fresh));
        if (!logitsAgree(whole.logits, logits)) {
          throw new ModelError(
            "unsupported",
            "with its KV in buffers the model computes otherwise",
          );
        }
        tokens.push(Math.max(greedyToken(logits), 0));
        if (done * 2 === count || done * 2 === count - 1) tokens.push(...tokens.slice(1, 4));
      }
    } finally {
      this.#drop(cache);
    }
    for (const name of Object.keys(this.#stats) as (keyof Stats)[]) this.#stats[name] = 0;
    this.#stats.checkedTokens = count;
  }

  // --- Checks --------------------------------------------------------------------------------------

  #checkOpen(): void {
    if (this.#closing !== null) throw new MisuseError("closed", "the decoder is closed");
    this.#plan.buffers.checkAlive();
  }

  #checkFits(cache: OrtGpuCache): void {
    this.#checkOpen();
    if (cache instanceof OrtGpuCache && cache.fits(this.#plan)) return;
    throw new MisuseError("foreign-cache", "the cache is of another model, device or memory");
  }

  #checkCopied(cache: OrtGpuCache): void {
    this.#checkFits(cache);
    cache.checkIdle();
    if (cache.id === null) throw new MisuseError("bad-id", "a cache without an id is not copied");
  }

  #checkTokens(tokens: ArrayLike<number>, from: number): void {
    const limit = this.#graph.vocabulary ?? Number.MAX_SAFE_INTEGER;
    for (let index = from; index < tokens.length; index++) {
      const token = tokens[index] as number;
      if (Number.isInteger(token) && token >= 0 && token < limit) continue;
      throw new MisuseError("bad-option", `${describe(token)} is not a token below ${limit}`);
    }
  }

  async #track<T>(work: () => Promise<T>): Promise<T> {
    const promise = work();
    this.#running.add(promise);
    try {
      return await promise;
    } finally {
      this.#running.delete(promise);
    }
  }

  #exclusive<T>(cache: OrtGpuCache, work: () => Promise<T>): Promise<T> {
    return this.#track(() => cache.busy(() => this.#plan.buffers.guard(work)));
  }

  #drop(cache: OrtGpuCache): void {
    this.#residency.forget(cache);
    cache[Symbol.dispose]();
  }

  // --- Steps ---------------------------------------------------------------------------------------

  /** Past and present in one set. */
  async #stepInPlace(
    cache: OrtGpuCache,
    tokens: ArrayLike<number>,
    newTokens: number,
  ): Promise<OrtGpuStep["logits"]> {
    if (cache.set === null || cache.set.stride < tokens.length) {
      await this.#residency.restride(cache, this.#residency.paged(tokens.length));
    }
    const { buffers, stride } = cache.set as GpuSet;
    const kv = this.#kvTensors(buffers, stride);
    const pastTokens = tokens.length - newTokens;
    return this.#run(cache, tokens, { past: kv, present: kv, fedPastTokens: pastTokens });
  }

  /** From one set into another, which is as long as past and new tokens together. */
  async #stepAcross(
    cache: OrtGpuCache,
    tokens: ArrayLike<number>,
    newTokens: number,
  ): Promise<OrtGpuStep["logits"]> {
    const pastTokens = tokens.length - newTokens;
    const hasPast = cache.set !== null && pastTokens > 0;
    if (hasPast && cache.set?.stride !== pastTokens)
      await this.#residency.restride(cache, pastTokens);
    const past = hasPast
      ? this.#kvTensors((cache.set as GpuSet).buffers, pastTokens)
      : this.#emptyTensors();
    const next = await this.#residency.acquireSet(cache, this.#residency.paged(tokens.length));
    try {
      const present = this.#kvTensors(next, tokens.length);
      const logits = await this.#run(cache, tokens, { past, present, fedPastTokens: pastTokens });
      this.#residency.give(cache, next, tokens.length);
      return logits;
    } catch (error) {
      for (const buffer of next) this.#plan.buffers.release(buffer);
      throw error;
    }
  }

  async #run(
    cache: OrtGpuCache,
    tokens: ArrayLike<number>,
    kv: {
      readonly past: readonly OrtTensor[];
      readonly present: readonly OrtTensor[];
      readonly fedPastTokens: number;
    },
  ): Promise<OrtGpuStep["logits"]> {
    const { entries, controls, logitsName } = this.#graph;
    let inputs = this.#inputs.get(cache);
    if (inputs === undefined) {
      inputs = new StepInputs(this.#ort, controls);
      this.#inputs.set(cache, inputs);
    }
    const pastTokens = cache.tokenCount;
    const feeds: Record<string, OrtTensor> = {};
    const fetches: Record<string, OrtTensor | null> = { [logitsName]: null };
    inputs.fill(feeds, {
      tokens,
      pastTokens,
      newTokens: tokens.length - pastTokens,
      fedPastTokens: kv.fedPastTokens,
      isPaddingMasked: false,
    });
    for (const [index, { pastName, presentName }] of entries.entries()) {
      feeds[pastName] = kv.past[index] as OrtTensor;
      fetches[presentName] = kv.present[index] as OrtTensor;
    }
    const outputs = await this.#session.run(feeds, fetches);
    this.#plan.buffers.checkAlive();
    const logits = lastRow(outputs[logitsName] as OrtTensor);
    cache.commit(tokens);
    return logits;
  }

  #kvTensors(buffers: readonly GpuBuffer[], tokens: number): OrtTensor[] {
    return this.#plan.entries.map((entry, index) => {
      const options = { dataType: ELEMENT_TYPES[entry.dtype], dims: shapeOf(entry, tokens) };
      const buffer = buffers[index] as never;
      return this.#ort.Tensor.fromGpuBuffer(buffer, options as never) as OrtTensor;
    });
  }

  /** A past of no tokens has no bytes, so no buffer. */
  #emptyTensors(): OrtTensor[] {
    return this.#plan.entries.map((entry) => {
      const elements = entry.dtype === "f32" ? new Float32Array(0) : new Uint16Array(0);
      return makeTensor(this.#ort, ELEMENT_TYPES[entry.dtype], elements, shapeOf(entry, 0));
    });
  }
}

/**
 * Loads a model onto the device of a memory so that its KV lies in buffers of the memory's GPU budget, and checks
 * that it computes the same that way.
 *
 * @throws {ModelError} `malformed`; `unsupported` — no decoder with KV that is known here, rows that a
 *   device cannot copy, its runtime refuses it, or it computes otherwise.
 * @throws {MisuseError} `bad-option`, `closed`. @throws {TierError} `device-lost` — or the memory has no GPU.
 * @throws {OutOfMemoryError} There is no room for the check.
 * @example
 * const gpu = webgpuTier({ adapter: () => navigator.gpu.requestAdapter() });
 * const memory = await createTensorMemory({ gpu, budgets: { gpu: "512MiB", ram: "1GiB" } });
 * const decoder = await openOrtGpuDecoder({ ort, memory, model });
 * const cache = decoder.createCache({ id: "chat/42" });
 * const { logits } = await decoder.step(cache, tokens);
 * await decoder.suspend(cache);
 * @remarks After the loss of the device open another decoder, which gets the memory's next device, and the
 *   caches by their ids; or go on with `openOrtDecoder` on the CPU, over the same ids.
 */
export async function openOrtGpuDecoder(options: OrtGpuDecoderOptions): Promise<OrtGpuDecoder> {
  const { ort, memory, model, checkTokens = CHECK_TOKENS, pageTokens = PAGE_TOKENS } = options;
  if (!(model instanceof Uint8Array)) throw new MisuseError("bad-option", "model is a Uint8Array");
  for (const [name, value, least] of [
    ["checkTokens", checkTokens, 0],
    ["pageTokens", pageTokens, 1],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    throw new MisuseError("bad-option", `${name} must be an integer of at least ${least}`);
  }
  if (memory.gpu === null) {
    throw new TierError("device-lost", "gpu", "the memory was given no GPU, or none can be had");
  }
  const graph = readDecoder(readGraph(model));
  if (graph.style === null) {
    throw new ModelError(
      "unsupported",
      "its present is made neither by Concat nor by grouped attention",
    );
  }
  if (graph.entries.some((entry) => rowBytesOf(entry) % GPU_COPY_BYTES !== 0)) {
    throw new ModelError("unsupported", `rows must be a multiple of ${GPU_COPY_BYTES} bytes`);
  }
  const fingerprint = options.fingerprint ?? (await digestOf(model));
  const buffers = await memory.gpu.buffers();
  let session: GpuSession;
  try {
    session = (await ort.InferenceSession.create(model, {
      ...options.sessionOptions,
      executionProviders: [{ ...options.providerOptions, name: "webgpu", device: buffers.device }],
    } as never)) as GpuSession;
  } catch (error) {
    buffers.checkAlive();
    throw new ModelError("unsupported", "the runtime refuses the model", { cause: error });
  }
  const decoder = new OrtGpuDecoder(options, { session, graph, fingerprint, buffers });
  try {
    if (checkTokens > 0) await decoder.check(checkTokens);
  } catch (error) {
    await decoder.close();
    throw error;
  }
  return decoder;
}
