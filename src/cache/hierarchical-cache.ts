// Finds tensors wherever they are: lookup through the tiers, promotion, adoption of what earlier
// processes left. Sees seams only.
import type { Clock } from "../clock.js";
import { CorruptionError, throwIfAborted } from "../errors.js";
import type { EventHub } from "../memory/events.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { ChainHints, EvictionPolicy } from "../policy/eviction-policy.js";
import type { RecordHeader } from "../record/record.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { TensorKind } from "../types.js";
import { hasExpired, lossOf } from "./cold-copies.js";
import type { Directory } from "./directory.js";
import type { Disposables } from "./disposables.js";
import type { LifetimeCollector } from "./lifetime-collector.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { Reclaimer } from "./reclaimer.js";
import { expectedRestoreMs } from "./restore-cost.js";
import type { TensorRecord } from "./tensor-record.js";
import { incompatible, type TransferEngine } from "./transfer-engine.js";

export interface HierarchicalCacheOptions {
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly engine: TransferEngine;
  readonly swapper: MemorySwapper;
  readonly reclaimer: Reclaimer;
  readonly disposables: Disposables;
  readonly policy: EvictionPolicy;
  readonly events: EventHub;
  readonly clock: Clock;
  readonly sink: StatsSink;
  readonly collector: LifetimeCollector | null;
}

/** Every lookup is exactly one of hit, join and miss. */
export interface LookupStats {
  readonly lookups: number;
  /** Found resident. */
  readonly hits: number;
  /** Attached to a load that was under way. */
  readonly joins: number;
  /** Found cold, or nowhere; or not resident, for a caller who does not wait. */
  readonly misses: number;
  /** Of the misses, those that were found in a colder tier. */
  readonly cold: number;
  /** Of the misses, those that no tier knew. */
  readonly absent: number;
  /** Not looked up, because bringing the tensor back would have taken longer than computing it again. */
  readonly declined: number;
}

export class HierarchicalCache {
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #directory: Directory;
  readonly #engine: TransferEngine;
  readonly #swapper: MemorySwapper;
  readonly #reclaimer: Reclaimer;
  readonly #disposables: Disposables;
  readonly #policy: EvictionPolicy;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #sink: StatsSink;
  readonly #collector: LifetimeCollector | null;
  readonly #adoptions = new Map<string, Promise<TensorRecord | null>>();
  #hits = 0;
  #joins = 0;
  #misses = 0;
  #cold = 0;
  #absent = 0;
  #declined = 0;

  constructor(options: HierarchicalCacheOptions) {
    this.#pools = options.pools;
    this.#directory = options.directory;
    this.#engine = options.engine;
    this.#swapper = options.swapper;
    this.#reclaimer = options.reclaimer;
    this.#disposables = options.disposables;
    this.#policy = options.policy;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#sink = options.sink;
    this.#collector = options.collector;
  }

  /**
   * Makes a tensor resident, wherever it is, and uses it at that very moment: before anybody else
   * can evict it.
   *
   * @param use Called once, synchronously, with the resident record; pins it, as a rule.
   * @param options.isLookup Whether it counts as a lookup. Default: true.
   * @returns What `use` returned, or null when no tier knows the id.
   * @throws {CorruptionError} Its only copy is damaged.
   * @throws {OutOfMemoryError} No room can be made for it.
   * @throws {TierError} `io`, `busy`, `closed`, `incompatible`, `aborted`.
   */
  async promote<T>(
    id: string,
    signal: AbortSignal | undefined,
    use: (record: TensorRecord) => T | Promise<T>,
    options: { readonly isLookup?: boolean } = {},
  ): Promise<T | null> {
    let isCounted = options.isLookup === false;
    for (;;) {
      throwIfAborted(signal, this.#engine.tier.name);
      const known = this.#directory.get(id);
      const isDropped = known === undefined && this.#disposables.wantDropped(id);
      if (isDropped) this.#collector?.noteWanted(id);
      const record = isDropped ? null : (known ?? (await abortable(this.#adopt(id), signal)));
      if (record === null) {
        if (!isCounted) {
          this.#misses += 1;
          this.#absent += 1;
        }
        return null;
      }
      // Adopted by somebody else while we waited, or freed: look again.
      if (this.#directory.get(id) !== record) continue;
      if (record.isLost) throw lossOf(record, this.#engine.tier.name);
      if (hasExpired(record, this.#clock.wallMs())) {
        await this.#expire(record);
        continue;
      }
      if (!isCounted) {
        if (record.isResident) this.#hits += 1;
        else if (record.transfer === null) {
          this.#misses += 1;
          this.#cold += 1;
        } else this.#joins += 1;
        if (record.isResident) this.#disposables.touch(record);
        else this.#disposables.want(record);
        isCounted = true;
      }
      if (record.isResident) {
        if (record.id !== null) {
          this.#policy.touch(record.index, expectedRestoreMs(record, this.#swapper.speed));
        }
        return use(record);
      }
      const used = await this.#useOnArrival(id, record, signal, use);
      if (used !== null) return used.value;
    }
  }

  /** Loads a record, or joins its transfer. @returns null when the tensor did not become resident. */
  async #useOnArrival<T>(
    id: string,
    record: TensorRecord,
    signal: AbortSignal | undefined,
    use: (record: TensorRecord) => T | Promise<T>,
  ): Promise<{ readonly value: T | Promise<T> } | null> {
    const arrivals: { readonly value: T | Promise<T> }[] = [];
    const failures: unknown[] = [];
    const wake = () => {
      // A shared tensor that was freed, while its content was on its way for others.
      if (this.#directory.get(id) !== record) return;
      try {
        arrivals.push({ value: use(record) });
      } catch (error) {
        failures.push(error);
      }
    };
    record.waiters ??= new Set();
    record.waiters.add(wake);
    const startMs = this.#clock.monotonicMs();
    const { pool, byteLength, alignment } = record;
    const work =
      record.transfer?.settled ??
      this.#swapper.load(record, (onPlaced) =>
        this.#reclaimer.placeDemoting(pool, byteLength, alignment, onPlaced),
      );
    try {
      await abortable(work, signal);
    } catch (error) {
      // An abort that comes after the arrival comes too late.
      if (arrivals.length === 0) throw error;
    } finally {
      record.waiters?.delete(wake);
    }
    this.#sink.time("cache.wait", this.#clock.monotonicMs() - startMs);
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
    this.#disposables.touch(record);
    return record;
  }

  /** The record of a tensor, wherever it is, without moving it; null when no tier knows the id. */
  async find(id: string): Promise<TensorRecord | null> {
    const record = this.#directory.get(id) ?? (await this.#adopt(id));
    if (record === null || !hasExpired(record, this.#clock.wallMs())) return record;
    return null;
  }

  /** A tensor is not brought back, because that would take too long. */
  noteDeclined(): void {
    this.#declined += 1;
  }

  /** The adoption of a record of this id that is under way, or null. */
  adoptionOf(id: string): Promise<unknown> | null {
    return this.#adoptions.get(id) ?? null;
  }

  /** Tells the policy which resident tensors were used as one chain. @param ids Head first. */
  touchChain(ids: readonly string[], hints?: ChainHints): void {
    const chain = new Set<number>();
    for (const id of new Set(ids)) {
      const record = this.#directory.get(id);
      if (record?.isResident !== true) continue;
      record.isChained = true;
      chain.add(record.index);
    }
    this.#policy.touchChain([...chain], hints);
  }

  lookupStats(): LookupStats {
    return {
      lookups: this.#hits + this.#joins + this.#misses,
      hits: this.#hits,
      joins: this.#joins,
      misses: this.#misses,
      cold: this.#cold,
      absent: this.#absent,
      declined: this.#declined,
    };
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
    const options = {
      id,
      kind: header.kind,
      dtype: header.dtype,
      shape: header.shape,
      layout: header.layout,
      byteLength: header.rawBytes,
      alignment: 1,
      tag: "",
      isDisposable: false,
      // Whoever allocated it may have wanted it so.
      errorBudget: "exact" as const,
      recomputeMs: null,
    };
    const pool = this.#pools.get(header.kind) as MemoryPool;
    const record = this.#directory.add(options, pool);
    const { generation, codecId, storedBytes, isDurable, isSaved, expiresMs } = header;
    const { version } = record;
    const place = { generation, codecId, storedBytes, isDurable, isSaved, expiresMs };
    // As exact as it ever was.
    record.cold = { ...place, version, isInexact: false };
    record.hasSwapCopy = !isSaved;
    record.hasSavedRecord = isSaved;
    return record;
  }

  /** Gives up a tensor of which only an expired record is left. */
  async #expire(record: TensorRecord): Promise<void> {
    this.#swapper.release(record);
    this.#directory.remove(record);
    this.#policy.forget(record.index);
    await this.#engine.delete({ id: record.id as string, isSaved: true });
  }

  async #peek(id: string, isSaved: boolean): Promise<RecordHeader | null> {
    const tier = this.#engine.tier.name;
    const copy = { id, isSaved };
    const peeked = await this.#engine.peek(copy);
    if (peeked.verdict === "found") {
      const { expiresMs } = peeked.header;
      if (expiresMs === 0 || expiresMs > this.#clock.wallMs()) return peeked.header;
      await this.#engine.delete(copy);
      return null;
    }
    if (peeked.verdict === "missing") return null;
    const { reason } = peeked;
    if (peeked.verdict === "incompatible") throw incompatible(tier, reason);
    this.#events.emit({ type: "corruption", id, tier, reason, lost: true });
    await this.#engine.quarantine(copy).catch((error: Error) => {
      this.#events.emit({ type: "tier-error", tier, error });
    });
    throw new CorruptionError(tier, `the only copy is damaged: ${reason}`);
  }
}

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
