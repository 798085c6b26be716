// Brings tensors in ahead of need: what callers declare, and what the predictor guesses. Counts what
// became of each. Sees seams only.
//
// A declared prefetch makes room as `acquire` does. A guess may be wrong, so it costs nobody anything:
// it takes free room or that of other guesses, never more than a share of the budget, and only while
// nobody waits for room; and when room is needed, guesses leave before anything that was used.
import type { Clock } from "../clock.js";
import type { Predictor } from "../predictor/predictor.js";
import type { Feature } from "../stats/feature.js";
import type { Directory } from "./directory.js";
import type { HierarchicalCache } from "./hierarchical-cache.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { PrefetchCounters, PrefetchWindow } from "./prefetch-window.js";
import type { Reclaimer } from "./reclaimer.js";
import type { TensorRecord } from "./tensor-record.js";

export interface PrefetcherOptions {
  readonly predictor: Predictor;
  readonly window: PrefetchWindow;
  readonly cache: HierarchicalCache;
  readonly reclaimer: Reclaimer;
  readonly swapper: MemorySwapper;
  readonly directory: Directory;
  readonly clock: Clock;
  /** Guesses. */
  readonly feature: Feature;
  /** Bytes that guesses may hold together. */
  readonly guessBytesMax: number;
}

/** issued = used + wasted + late + outstanding. */
export interface PrefetchStats extends PrefetchCounters {
  readonly predictor: string;
  /** Guesses per access that the measured times make useful. */
  readonly depth: number;
  /** Guesses that were not issued, because there was no room that costs nobody anything. */
  readonly refusedCount: number;
  /** Bytes of guesses that are outstanding. */
  readonly guessBytes: number;
}

export class Prefetcher {
  readonly #predictor: Predictor;
  readonly #window: PrefetchWindow;
  readonly #cache: HierarchicalCache;
  readonly #reclaimer: Reclaimer;
  readonly #swapper: MemorySwapper;
  readonly #directory: Directory;
  readonly #clock: Clock;
  readonly #feature: Feature;
  readonly #guessBytesMax: number;
  /** Outstanding guesses, on their way or resident, oldest first. */
  readonly #guesses = new Map<string, TensorRecord>();
  #refusedCount = 0;

  constructor(options: PrefetcherOptions) {
    this.#predictor = options.predictor;
    this.#window = options.window;
    this.#cache = options.cache;
    this.#reclaimer = options.reclaimer;
    this.#swapper = options.swapper;
    this.#directory = options.directory;
    this.#clock = options.clock;
    this.#feature = options.feature;
    this.#guessBytesMax = options.guessBytesMax;
  }

  /**
   * Notes an access, before it changes anything.
   *
   * @returns What the predictor expects next, nearest first.
   */
  observe(stream: string, id: string): readonly string[] {
    const predicted = this.#predictor.observe(stream, id);
    this.want(stream, id);
    return predicted;
  }

  /** Notes that a tensor is wanted now, by a lookup that the predictor is not told of. */
  want(stream: string, id: string): void {
    const guess = this.#guesses.get(id);
    this.#guesses.delete(id);
    const outcome = this.#window.want(stream, id, this.#clock.monotonicMs());
    if (guess === undefined) return;
    // Of one that is late nobody can tell how much of the wait it saved.
    const savedMs = outcome === "used" ? this.#loadMs(guess) : 0;
    this.#feature.earn(savedMs, guess.byteLength);
    this.#feature.settle(0, savedMs);
  }

  /** Starts to bring in what was predicted, as far as that costs nobody anything. */
  guess(predicted: readonly string[]): void {
    if (predicted.length === 0 || !this.#feature.allows()) return;
    const slots = new Map<string, number>();
    const isWanted = (id: string) => {
      const record = this.#directory.get(id);
      if (record === undefined || record.isResident || record.transfer !== null) return false;
      if (record.cold === null || record.isLost) return false;
      // A content leaves under its own name: it cannot be told whose guess that was.
      if (record.id !== id) return false;
      const slot = this.#placeGuess(record);
      if (slot === 0) {
        this.#refusedCount += 1;
        return false;
      }
      slots.set(id, slot);
      this.#guesses.set(id, record);
      return true;
    };
    const nowMs = this.#clock.monotonicMs();
    const issued = this.#window.issue(predicted, nowMs, isWanted, (oldest) => {
      const record = this.#guesses.get(oldest);
      this.#noteWaste(oldest);
      if (record !== undefined && this.#swapper.canDemote(record)) this.#swapper.evictClean(record);
    });
    for (const id of issued) {
      const record = this.#guesses.get(id) as TensorRecord;
      const slot = slots.get(id) as number;
      this.#swapper
        .load(record, async (onPlaced) => {
          onPlaced();
          return slot;
        })
        .then(
          () => this.#settle(record, id),
          () => this.#settle(record, id),
        );
    }
  }

  /**
   * Brings in what a caller will want, making room as for an `acquire`.
   *
   * @returns When all have arrived or failed.
   */
  async declare(ids: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    await Promise.allSettled(
      ids.map(async (id) => {
        const record = this.#directory.get(id);
        const isCounted = record === undefined || (!record.isResident && record.id === id);
        if (isCounted && signal?.aborted !== true) {
          this.#guesses.delete(id);
          this.#window.declare(id, this.#clock.monotonicMs());
        }
        const hasArrived = await this.#cache
          .promote(id, signal, () => true, { isLookup: false })
          .catch(() => null);
        if (hasArrived === null) this.#window.waste(id);
        else this.#window.arrive(id, this.#clock.monotonicMs());
      }),
    );
  }

  /**
   * Gives up the newest guess whose room helps: it is the one that is wanted last.
   *
   * @returns Whether there was one.
   */
  giveUp(helps: (record: TensorRecord) => boolean): boolean {
    let newest: TensorRecord | null = null;
    for (const record of this.#guesses.values()) {
      if (record.isClean && this.#swapper.canDemote(record) && helps(record)) newest = record;
    }
    if (newest === null) return false;
    this.#swapper.evictClean(newest);
    return true;
  }

  /** A tensor has left the heap. */
  left({ id }: TensorRecord): void {
    if (id === null || !this.#window.has(id)) return;
    this.#noteWaste(id);
    this.#window.waste(id);
  }

  stats(): PrefetchStats {
    return {
      predictor: this.#predictor.name,
      depth: this.#window.depth,
      refusedCount: this.#refusedCount,
      guessBytes: this.#guessBytes(),
      ...this.#window.counters(),
    };
  }

  /** @returns A slot, or 0. */
  #placeGuess({ pool, byteLength, alignment }: TensorRecord): number {
    while (this.#guessBytes() + byteLength > this.#guessBytesMax) {
      if (!this.#giveUpOldest()) return 0;
    }
    return this.#reclaimer.tryPlaceFree(pool, byteLength, alignment);
  }

  #giveUpOldest(): boolean {
    for (const record of this.#guesses.values()) {
      if (!record.isClean || !this.#swapper.canDemote(record)) continue;
      this.#swapper.evictClean(record);
      return true;
    }
    return false;
  }

  /** A guess was for nothing: it took as long as bringing it in once more would. */
  #noteWaste(id: string): void {
    const record = this.#guesses.get(id);
    if (!this.#guesses.delete(id) || record === undefined) return;
    const spentMs = this.#loadMs(record) ?? 0;
    this.#feature.spend(spentMs, record.byteLength);
    this.#feature.settle(spentMs, 0);
  }

  #loadMs({ cold, byteLength }: TensorRecord): number | null {
    return this.#swapper.speed.estimateMs(cold?.storedBytes ?? byteLength);
  }

  /** A guess has arrived, or has failed. */
  #settle(record: TensorRecord, id: string): void {
    if (record.isResident && !record.isFreed) {
      this.#window.arrive(id, this.#clock.monotonicMs());
      return;
    }
    this.#guesses.delete(id);
    this.#window.waste(id);
  }

  #guessBytes(): number {
    let bytes = 0;
    for (const { byteLength } of this.#guesses.values()) bytes += byteLength;
    return bytes;
  }
}
