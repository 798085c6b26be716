// The past of one chat, kept in the heap: one tensor [1, heads, capacity, headDim] per layer and part.
//
// How far apart its heads lie is the stride. Where rows are written in place it is the capacity, a
// multiple of a page of tokens; what is behind the used tokens is zeros or older rows, finite in
// either case, since NaN or infinity would survive a mask. Where the runtime returns all of its KV and
// wants a past without padding, it is the number of tokens.
import { MisuseError } from "../../errors.js";
import type { Pin } from "../../memory/pin.js";
import { Tensor } from "../../memory/tensor.js";
import type { TensorMemory } from "../../tensor-memory.js";
import { describe } from "../../types.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { checkSeal, readSeal, saveSealed, sealId } from "./cache-seal.js";
import { countNewTokens } from "./chat-tokens.js";
import { copyRows, pagedTokens, restride, writeRows } from "./layout.js";

/** How a model's KV is kept; the same for all caches of one decoder. */
export interface CachePlan {
  readonly memory: TensorMemory;
  readonly fingerprint: string;
  readonly entries: readonly KvEntry[];
  /** The stride is the number of tokens, not the capacity. */
  readonly isTight: boolean;
  /** Tokens by which the capacity grows; null: as many as suit its length. */
  readonly pageTokens: number | null;
}

/** What a cache is made with. */
export interface CacheOptions {
  /**
   * Begins the ids of its tensors; with one, they may be demoted between steps. Default: none, so they
   * stay resident.
   */
  readonly id?: string;
  /** Room that is allocated at first, where it is known how long the chat will get. Default: 0, a page. */
  readonly capacityTokens?: number;
}

type Elements = Float32Array | Uint16Array;

/** A tensor's version changes when a write pin begins and when it ends. */
const VERSIONS_PER_WRITE_PIN = 2;

const DTYPE_BYTES = { f32: 4, f16: 2 } as const;

/** A tensor of the cache, with what was known of it when a step last ended. */
interface Held {
  readonly tensor: Tensor<"f32" | "f16">;
  readonly entry: KvEntry;
  version: number;
}

/**
 * The KV of one chat on one model, and the tokens it belongs to. Made by `decoder.createCache()`.
 *
 * @remarks With an id its tensors are named `ID/LAYER.key` and `ID/LAYER.value`: between two steps
 *   pressure may demote them, and the next step brings them back. Without, they stay resident.
 */
export class OrtKvCache {
  readonly id: string | null;
  readonly #plan: CachePlan;
  readonly #firstCapacityTokens: number;
  readonly #tokens: number[] = [];
  #held: Held[] = [];
  #pins: Pin<"f32" | "f16">[] = [];
  #capacityTokens = 0;
  #isRunning = false;
  #isFreed = false;
  /** Rows that a seal may name are not what this cache holds, or will not be after the next step. */
  #mustUnseal = true;
  #growCount = 0;

  /** @internal */
  constructor(plan: CachePlan, options: CacheOptions = {}) {
    const { id, capacityTokens = 0 } = options;
    if (id !== undefined && (typeof id !== "string" || id === "")) {
      throw new MisuseError("bad-id", `${describe(id)} is not an id`);
    }
    if (!Number.isSafeInteger(capacityTokens) || capacityTokens < 0) {
      throw new MisuseError("bad-option", `${describe(capacityTokens)} is not a number of tokens`);
    }
    this.#plan = plan;
    this.#firstCapacityTokens = capacityTokens;
    this.id = id ?? null;
  }

  /**
   * A cache over tensors of that id that lie in this memory or in its tier.
   *
   * @internal
   * @param tokens Undefined: those that its seal names.
   * @returns null when one of them is unknown, or has another shape, stride or element type.
   * @throws {MisuseError} `foreign-cache`, `token-mismatch` — its seal says otherwise.
   */
  static async open(
    plan: CachePlan,
    id: string,
    tokens: ArrayLike<number> | undefined,
  ): Promise<OrtKvCache | null> {
    const cache = new OrtKvCache(plan, { id });
    const seal = await readSeal(plan.memory, id);
    if (seal !== null) checkSeal(seal, plan.fingerprint, tokens);
    const known = tokens ?? seal?.tokens;
    if (known === undefined) return null;
    const leases = await plan.memory.acquireChain(cache.#ids(), { access: "read" });
    if (leases === null) return null;
    for (const lease of leases) lease[Symbol.dispose]();
    if (!cache.#adopt(known) || (seal !== null && seal.stride !== cache.#stride)) return null;
    // With heads as far apart as it has tokens, every step moves what a seal names.
    cache.#mustUnseal = seal !== null && plan.isTight;
    return cache;
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

  /** Tokens for which its tensors have room; 0 before the first step. */
  get capacityTokens(): number {
    return this.#capacityTokens;
  }

  get byteLength(): number {
    return this.#held.reduce((sum, { tensor }) => sum + tensor.byteLength, 0);
  }

  /** How often its tensors got more room. */
  get growCount(): number {
    return this.#growCount;
  }

  /** A step is under way: its bytes are read until that has settled. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /**
   * Forgets all tokens from `tokenCount` on, for example because the text was edited there.
   *
   * @param tokenCount From 0 to {@link tokenCount}.
   * @throws {MisuseError} `bad-option`; `freed`; `re-entrant` — a step is under way; `not-resident`,
   *   `overwritten` — only of a model that delta rows do not fit, whose KV has to move.
   */
  truncate(tokenCount: number): void {
    this.#checkIdle();
    const before = this.#tokens.length;
    if (!Number.isInteger(tokenCount) || tokenCount < 0 || tokenCount > before) {
      throw new MisuseError("bad-option", `tokenCount must be an integer from 0 to ${before}`);
    }
    if (this.#plan.isTight && tokenCount < before && this.#held.length > 0) {
      this.#checkUntouched(0);
      this.#pin();
      try {
        this.#held.forEach(({ entry }, index) => {
          restride(this.#elements(index), entry, before, tokenCount, tokenCount);
        });
      } finally {
        this.#unpin();
      }
    }
    this.#tokens.length = tokenCount;
    this.#mustUnseal = true;
  }

  /** Frees its tensors. @throws {MisuseError} `freed`; `re-entrant` — a step is under way. */
  free(): void {
    this.#checkIdle();
    this.#isFreed = true;
    for (const { tensor } of this.#held) tensor[Symbol.dispose]();
    if (this.id !== null) this.#plan.memory.tensor(sealId(this.id))?.free();
    this.#held = [];
  }

  /** {@link free}, unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }

  /** Whether a decoder with that plan may use it. @internal */
  fits(plan: CachePlan): boolean {
    const { memory, fingerprint, isTight } = this.#plan;
    return memory === plan.memory && fingerprint === plan.fingerprint && isTight === plan.isTight;
  }

  /**
   * What of `tokens` is new.
   *
   * @internal
   * @throws {MisuseError} `token-mismatch` — the cache's tokens are not the beginning of `tokens`, or
   *   there is no other; `freed`, `re-entrant`.
   */
  newTokenCount(tokens: ArrayLike<number>): number {
    this.#checkIdle();
    return countNewTokens(this.#tokens, tokens);
  }

  /**
   * Makes it resident with room for `tokenCount` tokens and pins it, until {@link end}.
   *
   * @internal
   * @throws {OutOfMemoryError} There is no room; the cache is as it was.
   * @throws {MisuseError} `overwritten` — somebody else wrote to its tensors; `freed`.
   * @throws As `TensorMemory.acquire`.
   */
  async begin(tokenCount: number): Promise<void> {
    this.#isRunning = true;
    try {
      if (this.id !== null && this.#mustUnseal) await this.#unseal(this.id);
      if (this.#held.length === 0) {
        await this.#withRoom(tokenCount, this.#plan.entries.length, (capacityTokens) =>
          this.#tryAllocate(capacityTokens),
        );
        return;
      }
      // What is resident is pinned in this turn of the event loop.
      const isResident = this.#held.every(({ tensor }) => tensor.isResident);
      const leases = isResident ? [] : await this.#leaseAll();
      try {
        this.#checkUntouched(0);
        if (tokenCount <= this.#capacityTokens) {
          this.#pin();
          return;
        }
        // What is resized must not be pinned.
        for (const lease of leases.splice(0)) lease[Symbol.dispose]();
        await this.#withRoom(tokenCount, this.#plan.entries.length, (capacityTokens) =>
          this.#tryGrow(capacityTokens),
        );
      } finally {
        for (const lease of leases) lease[Symbol.dispose]();
      }
    } catch (error) {
      this.#isRunning = false;
      throw error;
    }
  }

  /**
   * Copies the tokens and rows of another cache of the same plan into this one, which is empty. Tensor by
   * tensor, so that besides this cache only one tensor of the other must be resident.
   *
   * @internal
   * @throws {OutOfMemoryError} There is no room; this cache is empty as before.
   */
  async copyFrom(source: OrtKvCache): Promise<void> {
    source.#checkIdle();
    const tokens = source.#tokens;
    if (tokens.length === 0) return;
    source.#isRunning = true;
    this.#isRunning = true;
    try {
      for (const [index, entry] of this.#plan.entries.entries()) {
        const lease = await source.#lease(index);
        try {
          await this.#withRoom(tokens.length, 1, (capacityTokens) => {
            source.#checkUntouched(0);
            this.#allocateOne(index, capacityTokens);
            this.#pinOne(index);
            const isTight = this.#plan.isTight;
            const stride = isTight ? tokens.length : capacityTokens;
            const sourceStride = isTight ? tokens.length : source.#capacityTokens;
            const [target, from] = [this.#elements(index), lease.view as Elements];
            copyRows(target, stride, from, sourceStride, entry, tokens.length);
            this.#capacityTokens = capacityTokens;
          });
        } finally {
          lease[Symbol.dispose]();
        }
      }
      this.commit(tokens);
    } catch (error) {
      this.#discard();
      throw error;
    } finally {
      this.end();
      source.#isRunning = false;
    }
  }

  /** Saves its tensors with a seal. @internal @throws As `TensorMemory.save`. */
  async save(options: Parameters<TensorMemory["save"]>[1]): Promise<"stored" | "no-space"> {
    this.#checkIdle();
    const { id } = this;
    if (id === null) throw new MisuseError("bad-id", "a cache without an id is not saved");
    this.#isRunning = true;
    try {
      this.#checkUntouched(0);
      const { memory, fingerprint } = this.#plan;
      const seal = { fingerprint, tokens: this.#tokens, stride: this.#stride };
      this.#mustUnseal = this.#plan.isTight;
      return await saveSealed(memory, id, this.#ids(), seal, options);
    } finally {
      this.#isRunning = false;
    }
  }

  /** The elements of one tensor, all of its capacity; the same object while the block stays. @internal */
  view(index: number): Elements {
    return this.#elements(index);
  }

  /**
   * @internal
   * @throws {MisuseError} `overwritten` — somebody wrote to its tensors since the step began.
   */
  checkRunUntouched(): void {
    this.#checkUntouched(1);
  }

  /** Writes one tensor's new rows [1, heads, rowTokens, headDim] behind the used tokens. @internal */
  writeRows(index: number, rows: Elements, rowTokens: number): void {
    const { entry } = this.#held[index] as Held;
    const usedTokens = this.#tokens.length;
    writeRows(this.#elements(index), rows, entry, this.#capacityTokens, usedTokens, rowTokens);
  }

  /** Takes over all of one tensor's KV, at whatever stride the model gave it. @internal */
  replace(index: number, present: Elements): void {
    this.#elements(index).set(present);
  }

  /** The rows of these tokens are written now. @internal */
  commit(tokens: ArrayLike<number>): void {
    for (let index = this.#tokens.length; index < tokens.length; index++) {
      this.#tokens.push(tokens[index] as number);
    }
  }

  /** Ends what {@link begin} began. @internal */
  end(): void {
    this.#unpin();
    this.#isRunning = false;
  }

  // --- Inside --------------------------------------------------------------------------------------

  #checkIdle(): void {
    if (this.#isFreed) throw new MisuseError("freed", "the cache was freed before");
    if (this.#isRunning) throw new MisuseError("re-entrant", "a step of the cache is under way");
  }

  #elements(index: number): Elements {
    return (this.#pins[index] as Pin<"f32" | "f16">).view;
  }

  /** Pins for writing, so that every other write pin shows in the version. */
  #pin(): void {
    try {
      for (const { tensor } of this.#held) this.#pins.push(tensor.pin());
    } catch (error) {
      this.#unpin();
      throw error;
    }
  }

  /** Counts its own pins only: somebody else's write stays visible in the version. */
  #unpin(): void {
    for (const [index, pin] of this.#pins.splice(0).entries()) {
      pin[Symbol.dispose]();
      (this.#held[index] as Held).version += VERSIONS_PER_WRITE_PIN;
    }
  }

  #remember(): void {
    for (const held of this.#held) held.version = Tensor.recordOf(held.tensor).version;
  }

  /** @param ownPinCount Write pins of its own on each tensor. */
  #checkUntouched(ownPinCount: number): void {
    for (const { tensor, version } of this.#held) {
      const record = Tensor.recordOf(tensor);
      if (record.version === version + ownPinCount && record.writePinCount === ownPinCount)
        continue;
      const name = tensor.id ?? "a KV tensor";
      throw new MisuseError("overwritten", `${name} may have been written by somebody else`);
    }
  }

  #shapeOf({ heads, headDim }: KvEntry, capacityTokens: number): number[] {
    return [1, heads, capacityTokens, headDim];
  }

  /** Allocates its tensors and then pins them, all or none: until then compaction may move them. */
  #tryAllocate(capacityTokens: number): void {
    try {
      for (const index of this.#plan.entries.keys()) this.#allocateOne(index, capacityTokens);
      for (const index of this.#plan.entries.keys()) this.#pinOne(index);
    } catch (error) {
      this.#discard();
      throw error;
    }
    this.#capacityTokens = capacityTokens;
  }

  #allocateOne(index: number, capacityTokens: number): void {
    const entry = this.#plan.entries[index] as KvEntry;
    const tensor = this.#plan.memory.allocate({
      kind: "KV_CACHE",
      shape: this.#shapeOf(entry, capacityTokens),
      dtype: entry.dtype,
      zero: true,
      ...(this.id !== null && { id: this.#ids()[index] as string }),
    });
    this.#held.push({ tensor, entry, version: Tensor.recordOf(tensor).version });
  }

  #pinOne(index: number): void {
    const pin = (this.#held[index] as Held).tensor.pin();
    this.#pins.push(pin);
    if (pin.view.buffer instanceof ArrayBuffer) return;
    throw new MisuseError("unsupported", "the native runtime refuses views of a shared memory");
  }

  /** Frees what it has allocated so far. */
  #discard(): void {
    this.#unpin();
    for (const { tensor } of this.#held.splice(0)) tensor.free();
    this.#capacityTokens = 0;
  }

  #ids(): string[] {
    return this.#plan.entries.map(({ layer, part }) => `${this.id}/${layer}.${part}`);
  }

  /** Takes over resident tensors of its ids. @returns Whether all of them fit. */
  #adopt(tokens: ArrayLike<number>): boolean {
    const { entries, memory } = this.#plan;
    const tensors = this.#ids().map((id) => memory.tensor(id));
    const capacityTokens = tensors[0]?.shape[2] ?? 0;
    const isFitting = entries.every((entry, index) => {
      const tensor = tensors[index];
      const shape = this.#shapeOf(entry, capacityTokens);
      return (
        tensor?.dtype === entry.dtype &&
        tensor.shape.length === shape.length &&
        tensor.shape.every((length, axis) => length === shape[axis])
      );
    });
    if (!isFitting || capacityTokens < tokens.length) return false;
    this.#held = entries.map((entry, index) => {
      const tensor = tensors[index] as Tensor<"f32" | "f16">;
      return { tensor, entry, version: Tensor.recordOf(tensor).version };
    });
    this.#capacityTokens = capacityTokens;
    this.commit(tokens);
    return true;
  }

  /** Tokens from one head to the next. */
  get #stride(): number {
    return this.#plan.isTight ? this.#tokens.length : this.#capacityTokens;
  }

  async #unseal(id: string): Promise<void> {
    await this.#plan.memory.delete(sealId(id));
    this.#mustUnseal = false;
  }

  async #lease(index: number): Promise<Pin> {
    const { tensor } = this.#held[index] as Held;
    if (tensor.isResident) return tensor.pin({ access: "read" });
    const lease = await this.#plan.memory.acquire(tensor.id as string, { access: "read" });
    if (lease === null) throw new MisuseError("freed", "a tensor of the cache was freed");
    return lease;
  }

  async #leaseAll(): Promise<Pin[]> {
    const leases = await this.#plan.memory.acquireChain(this.#ids(), { access: "read" });
    if (leases === null) throw new MisuseError("freed", "tensors of the cache were freed");
    return leases;
  }

  /** Gives all of its tensors another capacity and pins them, or leaves them as they were. */
  #tryGrow(capacityTokens: number): void {
    this.#checkUntouched(0);
    let grownCount = 0;
    try {
      for (const held of this.#held) {
        held.tensor.resize({ shape: this.#shapeOf(held.entry, capacityTokens) });
        this.#restride(held, this.#capacityTokens, capacityTokens);
        grownCount += 1;
      }
    } catch (error) {
      for (const held of this.#held.slice(0, grownCount)) {
        this.#restride(held, capacityTokens, this.#capacityTokens);
        held.tensor.resize({ shape: this.#shapeOf(held.entry, this.#capacityTokens) });
      }
      this.#remember();
      throw error;
    }
    this.#capacityTokens = capacityTokens;
    this.#growCount += 1;
    this.#remember();
    this.#pin();
  }

  #restride({ tensor, entry }: Held, from: number, to: number): void {
    if (this.#plan.isTight) return;
    const pin = tensor.pin();
    restride(pin.view, entry, from, to, this.#tokens.length);
    pin[Symbol.dispose]();
  }

  /**
   * Does `work`, in one go, once there is room for it: a request that cannot wait would evict what is clean,
   * and that is what was brought in for whoever is next.
   */
  async #withRoom(
    tokenCount: number,
    tensorCount: number,
    work: (capacityTokens: number) => void,
  ): Promise<void> {
    const { entries, memory, pageTokens } = this.#plan;
    const capacityTokens =
      tokenCount <= this.#firstCapacityTokens
        ? this.#firstCapacityTokens
        : pagedTokens(tokenCount, pageTokens);
    const bytes = Math.max(
      ...entries.map(
        ({ heads, headDim, dtype }) => heads * headDim * capacityTokens * DTYPE_BYTES[dtype],
      ),
    );
    // Those it has must not be demoted for those it wants.
    const pins = this.#held.map(({ tensor }) => tensor.pin({ access: "read" }));
    try {
      await memory.reserve({ kind: "KV_CACHE", bytes, count: tensorCount });
    } finally {
      for (const pin of pins) pin[Symbol.dispose]();
    }
    work(capacityTokens);
  }
}
