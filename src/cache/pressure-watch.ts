// Prepares for requests before they come: above the high watermark it copies in the background, in the
// policy's order, what could not leave without a write, down to the low one, so that requests rarely wait
// for one. When the process takes more memory than it may, it demotes. Decides when, not who. Sees seams only.
import type { Clock } from "../clock.js";
import { TierheapError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Budget } from "../memory/budget.js";
import type { EventHub } from "../memory/events.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { TensorKind } from "../types.js";
import type { MemorySwapper } from "./memory-swapper.js";

/** Shares of the RAM budget, 0 to 1. */
export interface Watermarks {
  /** Above it the background begins. */
  readonly high: number;
  /** What is above this share can leave without a write once it has ended; at most `high`. */
  readonly low: number;
}

export interface PressureWatchOptions {
  readonly watermarks: Watermarks;
  /** Most bytes that the process should be resident with; Infinity without a limit. */
  readonly rssLimitBytes: number;
  /** Resident bytes of the process; null where the platform does not tell. */
  readonly residentBytes: (() => number) | null;
  readonly budget: Budget;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly shelf: ArenaShelf;
  readonly swapper: MemorySwapper;
  readonly events: EventHub;
  readonly clock: Clock;
  readonly sink: StatsSink;
  /** Demotes the next victim, or drops it. @returns false when there is none, or no room for it. */
  readonly demoteNext: () => Promise<boolean>;
  /** See `Victims.prepare`. */
  readonly prepareVictims: (byteLength: number, mayGoOn: () => boolean) => Promise<number>;
}

export interface PressureWatchStats {
  /** Times that the background copied or demoted something, by what for. */
  readonly budgetRunCount: number;
  readonly rssRunCount: number;
  /** Tensors that it copied so that they can leave without a write. */
  readonly copiedCount: number;
  /** Tensors that it moved or dropped, because of the process. */
  readonly demotedCount: number;
  /** Tensor bytes from which on it begins, as of now. */
  readonly highBytes: number;
  /** It copies or demotes at this moment: one tensor is pinned, or about to be. */
  readonly isRunning: boolean;
}

/** Between two runs as much becomes hot as lies between the watermarks, or this share of the budget. */
const STRIDE_SHARE_MIN = 1 / 64;
/** Between two looks at what the process takes. */
const PROBE_INTERVAL_MS = 100;

export class PressureWatch {
  readonly #options: PressureWatchOptions;
  #isRunning = false;
  #isStopped = false;
  #highBytes: number;
  #lastProbeMs = Number.NEGATIVE_INFINITY;
  #budgetRunCount = 0;
  #rssRunCount = 0;
  #copiedCount = 0;
  #demotedCount = 0;
  /** Bytes that have become hot, ever, before the next run for the budget. */
  #nextPlacedBytes = 0;

  constructor(options: PressureWatchOptions) {
    this.#options = options;
    this.#highBytes = this.#highBytesAt(1);
  }

  /** After room was found without trouble: one comparison, as a rule. */
  note(): void {
    const { swapper } = this.#options;
    if (swapper.hotBytesNow() <= this.#highBytes) return;
    if (swapper.placedBytes >= this.#nextPlacedBytes) this.#begin(() => this.#copy());
  }

  /** After a request did not fit at first: looks at how full the blocks are, and at the process. */
  measure(): void {
    const { pools, swapper, watermarks, clock, rssLimitBytes, residentBytes } = this.#options;
    this.#options.sink.count("pressure", 1);
    let grantedBytes = 0;
    for (const pool of pools.values()) grantedBytes += pool.grantedBytes;
    // What blocks are longer than their tensors is room that is not there.
    const fill = Math.min(1, grantedBytes === 0 ? 1 : swapper.hotBytesNow() / grantedBytes);
    this.#highBytes = this.#highBytesAt(fill);
    this.note();
    if (residentBytes === null || rssLimitBytes === Number.POSITIVE_INFINITY) return;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#lastProbeMs < PROBE_INTERVAL_MS) return;
    this.#lastProbeMs = nowMs;
    const residentNow = residentBytes();
    if (residentNow > watermarks.high * rssLimitBytes) this.#begin(() => this.#demote(residentNow));
  }

  /** Tensor bytes from which on it begins, as of the last look at how full the blocks are. */
  get highBytes(): number {
    return this.#highBytes;
  }

  /** Ends what is under way after its present transfer, for good. */
  stop(): void {
    this.#isStopped = true;
  }

  stats(): PressureWatchStats {
    return {
      budgetRunCount: this.#budgetRunCount,
      rssRunCount: this.#rssRunCount,
      copiedCount: this.#copiedCount,
      demotedCount: this.#demotedCount,
      highBytes: this.#highBytes,
      isRunning: this.#isRunning,
    };
  }

  #highBytesAt(fill: number): number {
    const { watermarks, budget } = this.#options;
    return watermarks.high * budget.arenaLimitBytes * fill;
  }

  #begin(run: () => Promise<void>): void {
    if (this.#isRunning || this.#isStopped) return;
    this.#isRunning = true;
    this.#options.swapper.transfers.watchRun(this.#run(run));
  }

  async #run(run: () => Promise<void>): Promise<void> {
    try {
      // In a turn of its own: whoever allocates may still be about to pin.
      await Promise.resolve();
      await run();
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
      // What a copy or a demotion found is told by its own event; requests go on by themselves.
    } finally {
      this.#isRunning = false;
    }
  }

  async #copy(): Promise<void> {
    const { watermarks, budget, swapper, events, prepareVictims } = this.#options;
    const { high, low } = watermarks;
    const strideBytes = Math.max(high - low, STRIDE_SHARE_MIN) * budget.arenaLimitBytes;
    this.#nextPlacedBytes = swapper.placedBytes + strideBytes;
    const usedBytes = swapper.hotBytesNow();
    const readyBytes = usedBytes - (this.#highBytes * low) / high;
    const copiedCount = await prepareVictims(readyBytes, () => !this.#isStopped);
    if (copiedCount === 0) return;
    this.#budgetRunCount += 1;
    this.#copiedCount += copiedCount;
    const limitBytes = budget.arenaLimitBytes;
    events.emit({
      ...{ type: "watermark", cause: "budget", usedBytes, limitBytes },
      ...{ copiedCount, demotedCount: 0 },
    });
  }

  /** What the process takes too much, the heap gives back. */
  async #demote(residentNow: number): Promise<void> {
    const { watermarks, swapper, events, rssLimitBytes, demoteNext } = this.#options;
    const lowBytes = swapper.hotBytesNow() - (residentNow - watermarks.low * rssLimitBytes);
    let demotedCount = 0;
    try {
      while (!this.#isStopped && swapper.hotBytesNow() > lowBytes && (await demoteNext())) {
        demotedCount += 1;
      }
      this.#giveBack();
    } finally {
      if (demotedCount > 0) {
        this.#rssRunCount += 1;
        this.#demotedCount += demotedCount;
        events.emit({
          ...{ type: "watermark", cause: "rss", usedBytes: residentNow },
          ...{ limitBytes: rssLimitBytes, copiedCount: 0, demotedCount },
        });
      }
    }
  }

  #giveBack(): void {
    const { pools, shelf } = this.#options;
    for (const pool of pools.values()) pool.releaseEmptyArenas();
    shelf.dropSpares(shelf.stats().spareBytes);
  }
}
