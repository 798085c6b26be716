// Makes room before it is asked for: above the high watermark it demotes in the background, in the
// policy's order, down to the low one, so that requests rarely wait for a write. The same when the
// process takes more memory than it may. Decides when, not who. Sees seams only.
import type { Clock } from "../clock.js";
import { TierheapError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Budget } from "../memory/budget.js";
import type { EventHub } from "../memory/events.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { TensorKind } from "../types.js";
import type { MemorySwapper } from "./memory-swapper.js";

/** Shares of the RAM budget, 0 to 1. */
export interface Watermarks {
  /** Above it the background begins to demote. */
  readonly high: number;
  /** Down to which it demotes; at most `high`. */
  readonly low: number;
}

export interface PressureWatchOptions {
  readonly watermarks: Watermarks;
  /** Whether they apply to the RAM budget, and not to the process alone. */
  readonly hasWatermarks: boolean;
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
  /** Demotes the next victim, or drops it. @returns false when there is none, or no room for it. */
  readonly demoteNext: () => Promise<boolean>;
}

export interface PressureWatchStats {
  /** Times that the background began to demote, by what for. */
  readonly budgetRunCount: number;
  readonly rssRunCount: number;
  /** Tensors that it moved or dropped. */
  readonly demotedCount: number;
  /** Tensor bytes from which on it begins, as of now. */
  readonly highBytes: number;
}

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
  #demotedCount = 0;

  constructor(options: PressureWatchOptions) {
    this.#options = options;
    this.#highBytes = this.#highBytesAt(1);
  }

  /** After room was found without trouble: one comparison, as a rule. */
  note(): void {
    if (this.#options.swapper.hotBytesNow() > this.#highBytes) this.#begin("budget");
  }

  /** After a request did not fit at first: looks at how full the blocks are, and at the process. */
  measure(): void {
    const { pools, swapper, watermarks, clock, rssLimitBytes, residentBytes } = this.#options;
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
    if (residentBytes() > watermarks.high * rssLimitBytes) this.#begin("rss");
  }

  /** Ends what is under way after its present transfer, for good. */
  stop(): void {
    this.#isStopped = true;
  }

  stats(): PressureWatchStats {
    return {
      budgetRunCount: this.#budgetRunCount,
      rssRunCount: this.#rssRunCount,
      demotedCount: this.#demotedCount,
      highBytes: this.#highBytes,
    };
  }

  #highBytesAt(fill: number): number {
    const { hasWatermarks, watermarks, budget } = this.#options;
    if (!hasWatermarks) return Number.POSITIVE_INFINITY;
    return watermarks.high * budget.arenaLimitBytes * fill;
  }

  #begin(cause: "budget" | "rss"): void {
    if (this.#isRunning || this.#isStopped) return;
    this.#isRunning = true;
    this.#options.swapper.transfers.watch(this.#run(cause));
  }

  async #run(cause: "budget" | "rss"): Promise<void> {
    const { watermarks, budget, swapper, events, rssLimitBytes, residentBytes } = this.#options;
    const residentNow = cause === "rss" ? (residentBytes as () => number)() : 0;
    // What the process takes too much, the heap gives back.
    const lowBytes =
      cause === "rss"
        ? swapper.hotBytesNow() - (residentNow - watermarks.low * rssLimitBytes)
        : (this.#highBytes * watermarks.low) / watermarks.high;
    const usedBytes = cause === "rss" ? residentNow : swapper.hotBytesNow();
    const limitBytes = cause === "rss" ? rssLimitBytes : budget.arenaLimitBytes;
    let count = 0;
    try {
      // In a turn of its own: whoever allocates may still be about to pin.
      await Promise.resolve();
      while (!this.#isStopped && swapper.hotBytesNow() > lowBytes) {
        if (!(await this.#options.demoteNext())) break;
        count += 1;
      }
      if (cause === "rss") this.#giveBack();
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
      // What a demotion found is told by its own event; requests go on by themselves.
    } finally {
      this.#isRunning = false;
      this.#demotedCount += count;
      // A run that could do nothing is not begun again at every allocation.
      if (count === 0) this.#highBytes = Number.POSITIVE_INFINITY;
      else if (cause === "rss") this.#rssRunCount += 1;
      else this.#budgetRunCount += 1;
      if (count > 0) {
        events.emit({ type: "watermark", cause, usedBytes, limitBytes, demotedCount: count });
      }
    }
  }

  #giveBack(): void {
    const { pools, shelf } = this.#options;
    for (const pool of pools.values()) pool.releaseEmptyArenas();
    shelf.dropSpares(shelf.stats().spareBytes);
  }
}
