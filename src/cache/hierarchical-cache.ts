// Finds tensors wherever they are and finds room where there seems none: lookup through the tiers,
// promotion, and the remedies, in their fixed order. Sees seams only.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { CorruptionError, OutOfMemoryError, throwIfAborted } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Budget } from "../memory/budget.js";
import type { EventHub } from "../memory/events.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { RecordHeader } from "../record/record.js";
import type { TensorKind } from "../types.js";
import { encourageCollection } from "../util/collection.js";
import type { Directory } from "./directory.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { TensorRecord } from "./tensor-record.js";
import { incompatible, type TransferEngine } from "./transfer-engine.js";

export interface HierarchicalCacheOptions {
  readonly core: ControlPlane;
  readonly budget: Budget;
  readonly shelf: ArenaShelf;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly engine: TransferEngine;
  readonly swapper: MemorySwapper;
  readonly policy: EvictionPolicy;
  readonly admission: AdmissionPolicy;
  readonly events: EventHub;
  readonly clock: Clock;
  /** Demotions reach the device before the hot copy goes. */
  readonly isDurable: boolean;
}

/** Every lookup is exactly one of hit, join and miss. */
export interface LookupStats {
  readonly lookups: number;
  /** Found resident. */
  readonly hits: number;
  /** Attached to a load that was under way. */
  readonly joins: number;
  /** Found cold, or nowhere. */
  readonly misses: number;
}

/** Waits for the engine's collector: 1, 2, 4, … milliseconds. */
const PATIENCE_ROUNDS = 9;

export class HierarchicalCache {
  readonly #core: ControlPlane;
  readonly #budget: Budget;
  readonly #shelf: ArenaShelf;
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #directory: Directory;
  readonly #engine: TransferEngine;
  readonly #swapper: MemorySwapper;
  readonly #policy: EvictionPolicy;
  readonly #admission: AdmissionPolicy;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #isDurable: boolean;
  readonly #adoptions = new Map<string, Promise<TensorRecord | null>>();
  #hits = 0;
  #joins = 0;
  #misses = 0;
  #reservedCount = 0;

  constructor(options: HierarchicalCacheOptions) {
    this.#core = options.core;
    this.#budget = options.budget;
    this.#shelf = options.shelf;
    this.#pools = options.pools;
    this.#directory = options.directory;
    this.#engine = options.engine;
    this.#swapper = options.swapper;
    this.#policy = options.policy;
    this.#admission = options.admission;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#isDurable = options.isDurable;
  }

  /**
   * Makes a tensor resident, wherever it is, and uses it at that very moment: before anybody else
   * can evict it.
   *
   * @param use Called once, synchronously, with the resident record; pins it, as a rule.
   * @returns What `use` returned, or null when no tier knows the id.
   * @throws {CorruptionError} Its only copy is damaged.
   * @throws {OutOfMemoryError} No room can be made for it.
   * @throws {TierError} `io`, `busy`, `closed`, `incompatible`, `aborted`.
   */
  async promote<T>(
    id: string,
    signal: AbortSignal | undefined,
    use: (record: TensorRecord) => T | Promise<T>,
  ): Promise<T | null> {
    let isCounted = false;
    for (;;) {
      throwIfAborted(signal, this.#engine.tier.name);
      const record = this.#directory.get(id) ?? (await abortable(this.#adopt(id), signal));
      if (record === null) {
        if (!isCounted) this.#misses += 1;
        return null;
      }
      // Adopted by somebody else while we waited, or freed: look again.
      if (this.#directory.get(id) !== record) continue;
      if (record.isLost) {
        throw new CorruptionError(this.#engine.tier.name, "the only copy is damaged or gone");
      }
      if (!isCounted) {
        if (record.isResident) this.#hits += 1;
        else if (record.transfer === null) this.#misses += 1;
        else this.#joins += 1;
        isCounted = true;
      }
      if (record.isResident) {
        if (record.id !== null) this.#policy.touch(record.index);
        return use(record);
      }
      const used = await this.#useOnArrival(record, signal, use);
      if (used !== null) return used.value;
    }
  }

  /** Loads a record, or joins its transfer. @returns null when the tensor did not become resident. */
  async #useOnArrival<T>(
    record: TensorRecord,
    signal: AbortSignal | undefined,
    use: (record: TensorRecord) => T | Promise<T>,
  ): Promise<{ readonly value: T | Promise<T> } | null> {
    const arrivals: { readonly value: T | Promise<T> }[] = [];
    const failures: unknown[] = [];
    const wake = () => {
      try {
        arrivals.push({ value: use(record) });
      } catch (error) {
        failures.push(error);
      }
    };
    record.waiters ??= new Set();
    record.waiters.add(wake);
    const { pool, byteLength, alignment } = record;
    const work =
      record.transfer?.settled ??
      this.#swapper.load(record, () => this.#placeDemoting(pool, byteLength, alignment));
    try {
      await abortable(work, signal);
    } catch (error) {
      // An abort that comes after the arrival comes too late.
      if (arrivals.length === 0) throw error;
    } finally {
      record.waiters?.delete(wake);
    }
    if (failures.length > 0) throw failures[0];
    return arrivals[0] ?? null;
  }

  /** The record if the tensor is resident, counted as a lookup; touches it. */
  tryPromote(id: string): TensorRecord | null {
    const record = this.#directory.get(id);
    if (record === undefined || !record.isResident) {
      this.#misses += 1;
      return null;
    }
    this.#hits += 1;
    this.#policy.touch(record.index);
    return record;
  }

  /**
   * Finds a block, trying every remedy that needs no waiting.
   *
   * @returns An unpinned slot, or 0.
   */
  tryPlace(pool: MemoryPool, bytes: number, alignment: number): number {
    const slot = pool.tryAllocate(bytes, alignment);
    return slot === 0 ? this.#tryRemedies(pool, bytes, alignment, SYNCHRONOUS_REMEDIES) : slot;
  }

  /** @throws {OutOfMemoryError} Every remedy that needs no waiting was tried. */
  place(pool: MemoryPool, bytes: number, alignment: number): number {
    const slot = this.tryPlace(pool, bytes, alignment);
    if (slot !== 0) return slot;
    const advice = this.#core.hasFreeSlot
      ? "Free or unpin tensors, or await reserve(), which may demote."
      : `All ${this.#core.slotCapacity - 1} blocks are in use: use fewer and larger tensors, or a larger budget.`;
    throw this.#outOfMemory(pool, bytes, SYNCHRONOUS_REMEDIES, advice);
  }

  /**
   * Makes sure that `count` tensors of `bytes` each can be allocated, by demoting if need be. Holds
   * nothing: allocate before the next await.
   *
   * @throws {OutOfMemoryError}
   */
  async reserve(
    pool: MemoryPool,
    request: { readonly bytes: number; readonly alignment: number; readonly count: number },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { bytes, alignment, count } = request;
    this.#checkPossible(pool, bytes, count);
    const slots: number[] = [];
    try {
      for (let index = 0; index < count; index++) {
        throwIfAborted(signal, this.#engine.tier.name);
        slots.push(await this.#placeDemoting(pool, bytes, alignment));
        this.#reservedCount += 1;
      }
    } finally {
      this.#reservedCount -= slots.length;
      for (const slot of slots) pool.free(slot, this.#core.generationOf(slot));
    }
  }

  /** Blocks that a reservation under way holds. */
  get reservedCount(): number {
    return this.#reservedCount;
  }

  /** The adoption of a record of this id that is under way, or null. */
  adoptionOf(id: string): Promise<unknown> | null {
    return this.#adoptions.get(id) ?? null;
  }

  /** Touches the tensors of one chain, deepest first, so that the tail leaves before its head. */
  touchChain(ids: readonly string[]): void {
    for (let depth = ids.length - 1; depth >= 0; depth--) {
      const record = this.#directory.get(ids[depth] as string);
      if (record?.isResident === true) this.#policy.touch(record.index);
    }
  }

  lookupStats(): LookupStats {
    return {
      lookups: this.#hits + this.#joins + this.#misses,
      hits: this.#hits,
      joins: this.#joins,
      misses: this.#misses,
    };
  }

  async #placeDemoting(pool: MemoryPool, bytes: number, alignment: number): Promise<number> {
    this.#checkPossible(pool, bytes, 1);
    const remedies: string[] = ["add-arena", "compact"];
    const passed = new Set<number>();
    for (let round = 0; ; ) {
      // Victims leave in the policy's order here, clean or dirty; only a caller that cannot wait
      // prefers the clean ones.
      const slot =
        pool.tryAllocate(bytes, alignment) ||
        this.#tryRemedies(pool, bytes, alignment, ["add-arena", "compact"]);
      if (slot !== 0) return slot;
      const isCollecting = this.#dropSparesFor(pool, bytes) || this.#budget.retiredBytes > 0;
      const victim =
        isCollecting && round < PATIENCE_ROUNDS ? null : this.#victim(pool, bytes, passed);
      if (victim !== null) {
        if (!remedies.includes("demote")) remedies.push("demote");
        const outcome = await this.#swapper.demote(victim, { durable: this.#isDurable });
        if (outcome === "no-space") {
          const advice = `The ${this.#engine.tier.name} tier is full or switched off: enlarge its budget or free tensors.`;
          throw this.#outOfMemory(pool, bytes, remedies, advice);
        }
        // Vetoed: somebody uses it. Look at others first.
        if (outcome === "vetoed") passed.add(victim.index);
        continue;
      }
      const { pendingTransfer } = this.#swapper;
      if (pendingTransfer !== null) {
        await pendingTransfer;
        continue;
      }
      if (!isCollecting || round >= PATIENCE_ROUNDS) {
        const advice = isCollecting
          ? "Dropped arenas count until the engine has collected them: try again later."
          : "Everything left is pinned or anonymous: unpin or free tensors.";
        throw this.#outOfMemory(pool, bytes, remedies, advice);
      }
      encourageCollection();
      await this.#clock.sleep(2 ** round);
      round += 1;
    }
  }

  /** @throws {OutOfMemoryError} Not even an empty heap could hold it: nothing else is tried. */
  #checkPossible(pool: MemoryPool, bytes: number, count: number): void {
    const mostBytes = Math.min(pool.budgetBytes, this.#budget.arenaLimitBytes);
    if (pool.arenaBytesFor(bytes) <= mostBytes && bytes * count <= mostBytes) return;
    const advice = `The budget leaves ${mostBytes} bytes for tensors of this kind: enlarge it.`;
    throw this.#outOfMemory(pool, bytes * count, [], advice);
  }

  /**
   * Gives up spares of the wrong length where that will make room for the arena that is wanted, once
   * they are collected.
   */
  #dropSparesFor(pool: MemoryPool, bytes: number): boolean {
    const missingBytes =
      this.#budget.usedBytes + pool.arenaBytesFor(bytes) - this.#budget.limitBytes;
    if (pool.arenaBytesFor(bytes) > pool.roomBytes) return false;
    return this.#shelf.dropSpares(missingBytes) > 0;
  }

  /** Tries the allowed remedies in their fixed order, allocating again after each that did something. */
  #tryRemedies(
    pool: MemoryPool,
    bytes: number,
    alignment: number,
    allowed: readonly Remedy[],
  ): number {
    pool.notePressure();
    const remedies: Remedy[] = [];
    const place = (remedy: Remedy): number => {
      remedies.push(remedy);
      return pool.tryAllocate(bytes, alignment);
    };
    let slot = 0;
    for (const remedy of allowed) {
      // Where blocks have run out of slots, more room does not help: only an eviction does.
      if (remedy !== "evict-clean" && !this.#core.hasFreeSlot) continue;
      if (remedy === "add-arena") {
        if (this.#tryAddArena(pool, bytes)) slot = place(remedy);
      } else if (remedy === "evict-clean") {
        slot = this.#tryEvictClean(pool, bytes, () => place(remedy));
      } else if (pool.canCompactFor(bytes) && pool.compact(Number.POSITIVE_INFINITY) > 0) {
        slot = place(remedy);
      }
      if (slot === 0) continue;
      const { kind } = pool;
      this.#events.emit({ type: "pressure", kind, requestedBytes: bytes, remedies });
      return slot;
    }
    return 0;
  }

  #tryAddArena(pool: MemoryPool, bytes: number): boolean {
    if (pool.tryAddArena(bytes)) return true;
    // Another pool may sit on an empty one.
    const { spareCount } = this.#shelf.stats();
    for (const other of this.#pools.values()) other.releaseEmptyArenas();
    return this.#shelf.stats().spareCount > spareCount && pool.tryAddArena(bytes);
  }

  #tryEvictClean(pool: MemoryPool, bytes: number, place: () => number): number {
    for (const index of this.#policy.candidates()) {
      const record = this.#directory.at(index);
      if (!record.isClean || !this.#swapper.canDemote(record)) continue;
      if (!this.#canHelp(record, pool, bytes)) continue;
      this.#swapper.evictClean(record);
      // Its block may have been the last of an arena, which is then on the shelf.
      const slot = place() || (this.#tryAddArena(pool, bytes) ? place() : 0);
      if (slot !== 0) return slot;
    }
    return 0;
  }

  /** The next tensor to demote: of the pool that needs room if possible, else of any. */
  #victim(pool: MemoryPool, bytes: number, passed: ReadonlySet<number>): TensorRecord | null {
    let other: TensorRecord | null = null;
    for (const index of this.#policy.candidates()) {
      const record = this.#directory.at(index);
      if (passed.has(index) || !this.#swapper.canDemote(record)) continue;
      if (!this.#canHelp(record, pool, bytes)) continue;
      if (!this.#admission.admit({ index, bytes: record.byteLength })) continue;
      if (record.pool === pool) return record;
      other ??= record;
    }
    return other;
  }

  /** Another pool's tensors make room only while this pool may take one more arena. */
  #canHelp(record: TensorRecord, pool: MemoryPool, bytes: number): boolean {
    return record.pool === pool || pool.arenaBytesFor(bytes) <= pool.roomBytes;
  }

  /** Takes a record that an earlier process left in the tier into the directory, cold and clean. */
  #adopt(id: string): Promise<TensorRecord | null> {
    let adoption = this.#adoptions.get(id);
    if (adoption === undefined) {
      adoption = this.#adoptUnshared(id).finally(() => this.#adoptions.delete(id));
      this.#adoptions.set(id, adoption);
    }
    return adoption;
  }

  async #adoptUnshared(id: string): Promise<TensorRecord | null> {
    // What was saved comes before what a killed process had swapped out.
    const header = (await this.#peek(id, true)) ?? (await this.#peek(id, false));
    const existing = this.#directory.get(id);
    if (existing !== undefined || header === null) return existing ?? null;
    const record = this.#directory.add(id, {
      kind: header.kind,
      dtype: header.dtype,
      shape: header.shape,
      layout: header.layout,
      byteLength: header.rawBytes,
      alignment: 1,
      tag: "",
      pool: this.#pools.get(header.kind) as MemoryPool,
      allocatedMs: this.#clock.monotonicMs(),
    });
    const { generation, codecId, storedBytes, isDurable, isSaved } = header;
    const { version } = record;
    record.cold = { generation, codecId, storedBytes, isDurable, isSaved, version };
    record.hasSwapCopy = !isSaved;
    return record;
  }

  async #peek(id: string, isSaved: boolean): Promise<RecordHeader | null> {
    const tier = this.#engine.tier.name;
    const copy = { id, isSaved };
    const peeked = await this.#engine.peek(copy);
    if (peeked.verdict === "found") return peeked.header;
    if (peeked.verdict === "missing") return null;
    const { reason } = peeked;
    if (peeked.verdict === "incompatible") throw incompatible(tier, reason);
    this.#events.emit({ type: "corruption", id, tier, reason, lost: true });
    await this.#engine.quarantine(copy).catch((error: Error) => {
      this.#events.emit({ type: "tier-error", tier, error });
    });
    throw new CorruptionError(tier, `the only copy is damaged: ${reason}`);
  }

  #outOfMemory(
    pool: MemoryPool,
    requestedBytes: number,
    remediesTried: readonly string[],
    advice: string,
  ): OutOfMemoryError {
    const stats = pool.stats();
    let pinnedBytes = 0;
    for (const { id } of pool.arenas) {
      for (const block of this.#core.blocks(id)) {
        if (block.pinCount > 0) pinnedBytes += block.grantedBytes;
      }
    }
    return new OutOfMemoryError({
      requestedBytes,
      freeBytes: stats.freeBytes,
      largestFreeBlockBytes: stats.largestFreeBlockBytes,
      pinnedBytes,
      budgetBytes: Math.min(pool.budgetBytes, this.#budget.limitBytes),
      remediesTried,
      advice,
    });
  }
}

type Remedy = "add-arena" | "evict-clean" | "compact";

/** What needs no waiting, in the order in which it is tried. */
const SYNCHRONOUS_REMEDIES: readonly Remedy[] = ["add-arena", "evict-clean", "compact"];

/** Waits for work that others may share: an abort ends the waiting, not the work. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let onAbort = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => {
      try {
        throwIfAborted(signal, "memory");
      } catch (error) {
        reject(error);
      }
    };
    signal.addEventListener("abort", onAbort);
  });
  work.catch(() => {});
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
