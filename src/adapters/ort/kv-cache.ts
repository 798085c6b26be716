// The past of one chat, kept in the heap: one tensor [1, heads, capacity, headDim] per layer and part.
//
// How far apart its heads lie is the stride. Where rows are written in place it is the capacity, a
// multiple of a page of tokens; what is behind the used tokens is zeros or older rows, finite in
// either case, since NaN or infinity would survive a mask. Where the runtime returns all of its KV and
// wants a past without padding, it is the number of tokens.
import { MisuseError } from "../../errors.js";
import type { Pin } from "../../memory/pin.js";
import { Tensor } from "../../memory/tensor.js";
import type { KvEntry } from "../onnx/decoder-graph.js";
import { type Claims, findClaimed, type Held, restrideHeld } from "./cache-adoption.js";
import {
  type CacheOptions,
  type CachePlan,
  capacityFor,
  checkCacheOptions,
  shapeOf,
  tensorBytesMax,
} from "./cache-plan.js";
import { sealId } from "./cache-seal.js";
import { commonTokenCount, countNewTokens } from "./chat-tokens.js";
import { copyRows, restride, writeRows } from "./layout.js";
import {
  type CacheClaims,
  readClaims,
  readSealedClaims,
  type SaveOptions,
  saveCache,
  withAdopted,
} from "./saved-tokens.js";

type Elements = Float32Array | Uint16Array;

/** A tensor's version changes when a write pin begins and when it ends. */
const VERSIONS_PER_WRITE_PIN = 2;

/** Whose rows the tensors of a memory hold, by the record of a cache's first one. */
const OWNERS = new WeakMap<object, OrtKvCache>();

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
  readonly #isDisposable: boolean;
  readonly #tokens: number[] = [];
  #held: Held[] = [];
  #pins: Pin<"f32" | "f16">[] = [];
  #capacityTokens = 0;
  #isRunning = false;
  #isFreed = false;
  /** What its rows do to a seal that a decoder on a GPU has left: broken, it must go before a step. */
  #seal: "none" | "whole" | "broken" = "none";
  #growCount = 0;

  /** @internal */
  constructor(plan: CachePlan, options: CacheOptions = {}) {
    const { id, capacityTokens, isDisposable } = checkCacheOptions(options);
    this.#plan = plan;
    this.#isDisposable = isDisposable;
    this.#firstCapacityTokens = capacityTokens;
    this.id = id;
  }

  /**
   * A cache over tensors of that id: those of another cache of this memory, or saved ones.
   *
   * @internal
   * @returns null when something is missing, or is not what was saved with the tokens.
   */
  static async open(
    plan: CachePlan,
    options: CacheOptions & { readonly id: string },
    tokens: ArrayLike<number> | null,
  ): Promise<OrtKvCache | null> {
    const cache = new OrtKvCache(plan, options);
    const owner = cache.#ownerNow();
    const claims =
      (owner === null ? null : owner.#claims()) ??
      (await readSealedClaims(plan.memory, options.id, plan.isTight)) ??
      (await readClaims(plan.memory, options.id));
    if (claims === null) return null;
    if (claims.fingerprint !== plan.fingerprint || claims.isTight !== plan.isTight) {
      throw new MisuseError("foreign-cache", "the cache is of another model or mode");
    }
    const tokenCount = commonTokenCount(claims.tokens, tokens);
    const take = () => cache.#ownerNow() === owner && cache.#adopt(claims, owner);
    if (!(await withAdopted(plan.memory, cache.ids, take))) return null;
    cache.truncate(tokenCount);
    return cache;
  }

  /** Of the model that computed it: other models' decoders refuse it. */
  get fingerprint(): string {
    return this.#plan.fingerprint;
  }

  /** Of its tensors, head first; empty without an id. */
  get ids(): string[] {
    if (this.id === null) return [];
    return this.#plan.entries.map(({ layer, part }) => `${this.id}/${layer}.${part}`);
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
   * @param tokenCount From 0 to `tokenCount`.
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
          restride(this.view(index), entry, before, tokenCount, tokenCount);
        });
      } finally {
        this.#unpin();
      }
    }
    this.#tokens.length = tokenCount;
    if (this.#seal === "whole" && tokenCount < before) this.#seal = "broken";
  }

  /**
   * Writes its tensors, and then the tokens and the model that they belong to, so that a later process
   * can open it. What is saved already is not written again.
   *
   * @returns `"no-space"` when a tier is off or full; what was saved before may then be lost.
   * @throws {MisuseError} `bad-id` — it has none; `freed`; `re-entrant` — a step is under way; `overwritten`.
   * @throws As `TensorMemory.save`.
   * @remarks Until it settles no step may begin.
   */
  async save(options: SaveOptions = {}): Promise<"stored" | "no-space"> {
    const { memory } = this.#plan;
    if (this.id === null) throw new MisuseError("bad-id", "a cache without an id is not saved");
    const claims = this.#claims();
    this.#isRunning = true;
    try {
      const tensors = this.#held.map(({ tensor }) => tensor);
      const outcome = await saveCache(memory, this.id, { tensors, ...claims }, options);
      if (outcome === "stored") this.#seal = "none";
      return outcome;
    } finally {
      this.#isRunning = false;
    }
  }

  /** Frees its tensors. @throws {MisuseError} `freed`; `re-entrant` — a step is under way. */
  free(): void {
    this.#checkIdle();
    this.#isFreed = true;
    for (const { tensor } of this.#held.splice(0)) tensor[Symbol.dispose]();
    if (this.#seal !== "none") this.#plan.memory.tensor(sealId(this.id as string))?.free();
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
   * Makes it resident with room for `tokenCount` tokens and pins it, until {@link end}. It is empty when
   * pressure has dropped one of its tensors.
   *
   * @internal
   * @param fresh What is in tensors that are made. With `"anything"` the caller writes all of them.
   * @throws {OutOfMemoryError} There is no room; the cache is as it was.
   * @throws {MisuseError} `overwritten` — somebody else wrote to its tensors; `freed`.
   * @throws As `TensorMemory.acquire`.
   */
  async begin(tokenCount: number, fresh: "zeros" | "anything" = "zeros"): Promise<void> {
    this.#isRunning = true;
    try {
      if (this.#seal === "broken") {
        await this.#plan.memory.delete(sealId(this.id as string));
        this.#seal = "none";
      }
      // What is resident is pinned in this turn of the event loop.
      const isResident = this.#held.every(({ tensor }) => tensor.isResident);
      const leases = isResident ? [] : await this.#leaseAll();
      if (leases === null) this.#forgetAll();
      if (leases === null || this.#held.length === 0) {
        await this.#withRoom(tokenCount, this.#plan.entries.length, this.#held, (capacityTokens) =>
          this.#tryAllocate(capacityTokens, fresh === "zeros"),
        );
        return;
      }
      try {
        this.#checkUntouched(0);
        if (tokenCount <= this.#capacityTokens) {
          this.#pin();
          return;
        }
        // What is resized must not be pinned.
        for (const lease of leases.splice(0)) lease[Symbol.dispose]();
        await this.#withRoom(tokenCount, this.#plan.entries.length, this.#held, (capacityTokens) =>
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
   * tensor, so that only one of each must stay where it is.
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
          await this.#withRoom(tokens.length, 1, [], (capacityTokens) => {
            source.#checkUntouched(0);
            this.#allocateOne(index, capacityTokens);
            this.#capacityTokens = capacityTokens;
            const held = this.#held[index] as Held;
            const pin = held.tensor.pin();
            const stride = this.strideFor(tokens.length);
            const sourceStride = source.strideFor(tokens.length);
            copyRows(pin.view, stride, lease.view as Elements, sourceStride, entry, tokens.length);
            pin[Symbol.dispose]();
            held.version += VERSIONS_PER_WRITE_PIN;
          });
        } finally {
          lease[Symbol.dispose]();
        }
      }
      this.#checkUntouched(0);
      this.commit(tokens);
    } catch (error) {
      this.#discard();
      throw error;
    } finally {
      this.#isRunning = false;
      source.#isRunning = false;
    }
  }

  /** Tokens from one head to the next, when it holds so many. @internal */
  strideFor(tokenCount: number): number {
    return this.#plan.isTight ? tokenCount : this.#capacityTokens;
  }

  /**
   * Shows its tensors, for reading, until `work` has settled.
   *
   * @internal
   * @throws As {@link begin}.
   */
  async lend(
    work: (views: readonly Elements[], strideTokens: number) => Promise<void>,
  ): Promise<void> {
    this.#checkIdle();
    this.#isRunning = true;
    const leases: Pin[] = [];
    try {
      for (const index of this.#held.keys()) leases.push(await this.#lease(index));
      this.#checkUntouched(0);
      const views = leases.map((lease) => lease.view as Elements);
      await work(views, this.strideFor(this.tokenCount));
    } finally {
      for (const lease of leases) lease[Symbol.dispose]();
      this.#isRunning = false;
    }
  }

  /** The elements of one tensor, all of its capacity; the same object while the block stays. @internal */
  view(index: number): Elements {
    return (this.#pins[index] as Pin<"f32" | "f16">).view;
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
    writeRows(this.view(index), rows, entry, this.#capacityTokens, usedTokens, rowTokens);
  }

  /** Takes over all of one tensor's KV, at whatever stride the model gave it. @internal */
  replace(index: number, present: Elements): void {
    this.view(index).set(present);
  }

  /** The rows of these tokens are written now. @internal */
  commit(tokens: ArrayLike<number>): void {
    for (let index = this.#tokens.length; index < tokens.length; index++) {
      this.#tokens.push(tokens[index] as number);
    }
    const [first] = this.#held;
    if (first !== undefined) OWNERS.set(Tensor.recordOf(first.tensor), this);
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

  /** Allocates its tensors and then pins them, all or none: until then compaction may move them. */
  #tryAllocate(capacityTokens: number, zero: boolean): void {
    try {
      for (const index of this.#plan.entries.keys()) this.#allocateOne(index, capacityTokens, zero);
      for (const index of this.#plan.entries.keys()) this.#pinOne(index);
    } catch (error) {
      this.#discard();
      throw error;
    }
    this.#capacityTokens = capacityTokens;
  }

  #allocateOne(index: number, capacityTokens: number, zero = true): void {
    const entry = this.#plan.entries[index] as KvEntry;
    const tensor = this.#plan.memory.allocate({
      ...({ kind: "KV_CACHE", site: "decoder kv" } as const),
      shape: shapeOf(entry, capacityTokens),
      dtype: entry.dtype,
      zero,
      ...(this.id !== null && { id: this.ids[index] as string, disposable: this.#isDisposable }),
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

  /** The cache that wrote the rows of the tensors of this id which are in this memory, or null. */
  #ownerNow(): OrtKvCache | null {
    const tensor = this.#plan.memory.tensor(this.ids[0] as string);
    return (tensor && OWNERS.get(Tensor.recordOf(tensor))) ?? null;
  }

  /** @throws {MisuseError} `re-entrant`, `freed`, `overwritten`. */
  #claims(): CacheClaims {
    this.#checkIdle();
    this.#checkUntouched(0);
    const { fingerprint, isTight } = this.#plan;
    return { fingerprint, isTight, tokens: this.tokens };
  }

  /**
   * Takes over resident tensors of its ids.
   *
   * @returns Whether all of them fit, and are the owner's, or those that were saved with the claims.
   */
  #adopt(claims: Claims, owner: OrtKvCache | null): boolean {
    const held = owner === null ? null : owner.#held;
    const found = findClaimed(this.#plan, this.ids, claims, held);
    if (found === null) return false;
    if (owner !== null) owner.#claims();
    this.#held = found.held;
    this.#capacityTokens = found.capacityTokens;
    this.#seal = "stride" in claims ? (this.#plan.isTight ? "broken" : "whole") : "none";
    this.commit(claims.tokens);
    return true;
  }

  async #lease(index: number): Promise<Pin> {
    const { tensor } = this.#held[index] as Held;
    if (tensor.isResident) return tensor.pin({ access: "read" });
    const lease = await this.#plan.memory.acquire(tensor.id as string, { access: "read" });
    if (lease === null) throw new MisuseError("freed", "a tensor of the cache was freed");
    return lease;
  }

  /** null when pressure has dropped one of its tensors. */
  async #leaseAll(): Promise<Pin[] | null> {
    const leases = await this.#plan.memory.acquireChain(this.ids, { access: "read" });
    if (leases !== null) return leases;
    if (this.#held.some(({ tensor }) => Tensor.recordOf(tensor).isDropped)) return null;
    throw new MisuseError("freed", "tensors of the cache were freed");
  }

  /** What is left of a cache of which something was dropped is of no use. */
  #forgetAll(): void {
    for (const { tensor } of this.#held.splice(0)) tensor[Symbol.dispose]();
    this.#tokens.length = 0;
    this.#capacityTokens = 0;
  }

  /** Gives all of its tensors another capacity and pins them, or leaves them as they were. */
  #tryGrow(capacityTokens: number): void {
    this.#checkUntouched(0);
    // Without padding the rows move when they are written.
    const usedTokens = this.#plan.isTight ? null : this.#tokens.length;
    let grownCount = 0;
    try {
      for (const held of this.#held) {
        held.tensor.resize({ shape: shapeOf(held.entry, capacityTokens) });
        restrideHeld(held, this.#capacityTokens, capacityTokens, usedTokens);
        grownCount += 1;
      }
    } catch (error) {
      for (const held of this.#held.slice(0, grownCount)) {
        restrideHeld(held, capacityTokens, this.#capacityTokens, usedTokens);
        held.tensor.resize({ shape: shapeOf(held.entry, this.#capacityTokens) });
      }
      this.#remember();
      throw error;
    }
    this.#capacityTokens = capacityTokens;
    this.#growCount += 1;
    this.#remember();
    this.#pin();
  }

  /**
   * Does `work`, in one go, once there is room for it: a request that cannot wait would evict what is clean,
   * and that is what was brought in for whoever is next.
   *
   * @param keep Must not be demoted for it.
   */
  async #withRoom(
    tokenCount: number,
    tensorCount: number,
    keep: readonly Held[],
    work: (capacityTokens: number) => void,
  ): Promise<void> {
    const { entries, memory } = this.#plan;
    const capacityTokens = capacityFor(this.#plan, tokenCount, this.#firstCapacityTokens);
    const bytes = tensorBytesMax(entries, capacityTokens);
    const pins = keep.map(({ tensor }) => tensor.pin({ access: "read" }));
    try {
      await memory.reserve({ kind: "KV_CACHE", bytes, count: tensorCount });
    } finally {
      for (const pin of pins) pin[Symbol.dispose]();
    }
    work(capacityTokens);
  }
}
