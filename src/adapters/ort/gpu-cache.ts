// The past of one chat on a GPU: one buffer per layer and part, and perhaps a copy of it in the heap.
//
// The copy is what was there when the chat was last suspended or saved. Rows are only ever added, so it stays
// the beginning of what the buffers hold; after the loss of the device the chat goes on from it.

import type { GpuBuffers } from "../../cache/gpu-buffers.js";
import { MisuseError } from "../../errors.js";
import type { GpuBuffer } from "../../gpu/gpu-device.js";
import { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { sealId } from "./cache-seal.js";
import { countNewTokens } from "./chat-tokens.js";

/** What all caches of a decoder have in common. @internal */
export interface GpuCachePlan {
  readonly memory: TensorMemory;
  /** Where its buffers come from. */
  readonly buffers: GpuBuffers;
  readonly fingerprint: string;
  readonly entries: readonly KvEntry[];
}

/** Buffers of all entries, whose heads lie `stride` tokens apart. @internal */
export interface GpuSet {
  readonly buffers: readonly GpuBuffer[];
  readonly stride: number;
}

/** A copy in the heap of the first `tokens` tokens. @internal */
export interface HeapCopy {
  readonly tokens: number;
  readonly stride: number;
  /** Of each tensor, when it was last known to hold that. */
  readonly versions: readonly number[];
}

/** What a cache is made with. */
export interface GpuCacheOptions {
  /** Begins the ids of its copy in the heap; only with one can it be suspended. Default: none. */
  readonly id?: string;
}

/**
 * The KV of one chat on a GPU, and the tokens it belongs to. Made by `decoder.createCache()`.
 *
 * @remarks With an id its copy in the heap is named `ID/LAYER.key`, `ID/LAYER.value` and `ID/tokens`, and
 *   is demoted and restored as any tensors. Free it: nobody else gives its buffers back.
 */
export class OrtGpuCache {
  readonly id: string | null;
  readonly #plan: GpuCachePlan;
  readonly #tokens: number[] = [];
  #isRunning = false;
  #isLeaving = false;
  #isFreed = false;
  /** @internal */
  set: GpuSet | null = null;
  /** @internal */
  copy: HeapCopy | null = null;
  /** Rows that a seal may name are not what this cache holds. @internal */
  mustUnseal = true;

  /** @internal Made by a decoder. */
  constructor(plan: GpuCachePlan, options: GpuCacheOptions = {}) {
    const { id } = options;
    if (id !== undefined && (typeof id !== "string" || id === "")) {
      throw new MisuseError("bad-id", `${describe(id)} is not an id`);
    }
    this.#plan = plan;
    this.id = id ?? null;
  }

  /** Of the model that computed it: other models' decoders refuse it. */
  get fingerprint(): string {
    return this.#plan.fingerprint;
  }

  /** The tokens whose rows are in the cache, oldest first. A copy. */
  get tokens(): number[] {
    return this.#tokens.slice();
  }

  get tokenCount(): number {
    return this.#tokens.length;
  }

  /** Its rows lie in buffers of the GPU: the next step need not bring them there. */
  get isOnGpu(): boolean {
    return this.set !== null && !this.#plan.buffers.isLost;
  }

  /** Bytes of its buffers, as they were asked of the device. */
  get byteLength(): number {
    return this.set?.buffers.reduce((sum, { size }) => sum + size, 0) ?? 0;
  }

  /** Tokens of its copy in the heap, from the beginning on; 0 without one. */
  get copiedTokens(): number {
    return this.copy?.tokens ?? 0;
  }

  /** A step, a suspension or a restore is under way or waits for its turn. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Ids of its copy in the heap, in the order in which to save them: a cut then leaves none, not a wrong one. */
  get ids(): string[] {
    const { id } = this;
    if (id === null) return [];
    return [...this.#plan.entries.map(({ layer, part }) => `${id}/${layer}.${part}`), sealId(id)];
  }

  /**
   * Forgets all tokens from `tokenCount` on.
   *
   * @param tokenCount From 0 to `tokenCount`.
   * @throws {MisuseError} `bad-option`; `freed`; `re-entrant` — work on it is under way.
   */
  truncate(tokenCount: number): void {
    this.#checkStill();
    const before = this.#tokens.length;
    if (!Number.isInteger(tokenCount) || tokenCount < 0 || tokenCount > before) {
      throw new MisuseError("bad-option", `tokenCount must be an integer from 0 to ${before}`);
    }
    this.#tokens.length = tokenCount;
    // The tensors of its copy stay as their seal says, until the copy is made again.
    this.mustUnseal = true;
    if (this.copy !== null && this.copy.tokens > tokenCount) {
      this.copy = { ...this.copy, tokens: tokenCount };
    }
  }

  /** Frees its buffers and its copy. @throws {MisuseError} `freed`; `re-entrant`; `pinned`. */
  free(): void {
    this.#checkStill();
    for (const id of this.ids) this.#plan.memory.tensor(id)?.free();
    this.#isFreed = true;
    this.releaseBuffers();
  }

  /** {@link free}, unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }

  // --- For the decoder ------------------------------------------------------------------------------

  /** @internal */
  fits({ buffers, memory, fingerprint }: GpuCachePlan): boolean {
    const own = this.#plan;
    return own.buffers === buffers && own.memory === memory && own.fingerprint === fingerprint;
  }

  /** @internal @throws {MisuseError} `freed`, `re-entrant`. */
  checkIdle(): void {
    if (this.#isFreed) throw new MisuseError("freed", "the cache was freed before");
    if (this.#isRunning) throw new MisuseError("re-entrant", "work on the cache is under way");
  }

  /** @internal @throws {MisuseError} `token-mismatch`. */
  newTokenCount(tokens: ArrayLike<number>): number {
    return countNewTokens(this.#tokens, tokens);
  }

  /** Does work of which there may be one at a time. @internal */
  async busy<T>(work: () => Promise<T>): Promise<T> {
    this.checkIdle();
    this.#isRunning = true;
    try {
      return await work();
    } finally {
      this.#isRunning = false;
    }
  }

  /** Does work that makes room for others: its owner may ask for steps meanwhile, which wait. @internal */
  async leaving(work: () => Promise<void>): Promise<void> {
    this.#isLeaving = true;
    try {
      await work();
    } finally {
      this.#isLeaving = false;
    }
  }

  /** The rows of these tokens are there now. @internal */
  commit(tokens: ArrayLike<number>): void {
    for (let index = this.#tokens.length; index < tokens.length; index++) {
      this.#tokens.push(tokens[index] as number);
    }
  }

  /** @internal */
  releaseBuffers(): void {
    for (const buffer of this.set?.buffers ?? []) this.#plan.buffers.release(buffer);
    this.set = null;
  }

  /** What its copy's tensors are at now. @internal */
  versions(): number[] {
    return this.ids.slice(0, -1).map((id) => {
      const tensor = this.#plan.memory.tensor(id);
      return tensor === null ? -1 : Tensor.recordOf(tensor).version;
    });
  }

  /** @internal @throws {MisuseError} `overwritten` — somebody else wrote to its copy. */
  checkCopyUntouched({ versions }: HeapCopy): void {
    const now = this.versions();
    const at = versions.findIndex((version, index) => version !== now[index]);
    if (at < 0) return;
    throw new MisuseError("overwritten", `${this.ids[at]} may have been written by somebody else`);
  }

  #checkStill(): void {
    this.checkIdle();
    if (this.#isLeaving) throw new MisuseError("re-entrant", "the cache is being suspended");
  }
}
