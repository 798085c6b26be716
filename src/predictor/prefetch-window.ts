// What is being prefetched: bounded, so that wrong guesses cannot take the room of what is in use; as
// deep as the time of a transfer needs; and counted, each guess as used, wasted or late.
//
// INV: issued = used + wasted + late + outstanding.

export interface PrefetchCounters {
  readonly issuedCount: number;
  /** Wanted after it had arrived. */
  readonly usedCount: number;
  /** Given up without having been wanted. */
  readonly wastedCount: number;
  /** Wanted while it was still on its way. */
  readonly lateCount: number;
  readonly outstandingCount: number;
}

export interface PrefetchWindowOptions {
  /** Guesses that may be outstanding, at least 1. Default: 64. */
  readonly budgetCount?: number;
  /** Guesses per access, at least 1. Default: 8. */
  readonly depthMax?: number;
}

interface Guess {
  readonly issuedMs: number;
  hasArrived: boolean;
}

/** Weight of the newest sample in a running mean. */
const NEWEST_SHARE = 1 / 16;

export class PrefetchWindow {
  readonly #budgetCount: number;
  readonly #depthMax: number;
  /** Oldest first. */
  readonly #guesses = new Map<string, Guess>();
  readonly #latestMs = new Map<string, number>();
  #gapMs = 0;
  #transferMs = 0;
  #issued = 0;
  #used = 0;
  #wasted = 0;
  #late = 0;

  constructor({ budgetCount = 64, depthMax = 8 }: PrefetchWindowOptions = {}) {
    this.#budgetCount = budgetCount;
    this.#depthMax = depthMax;
  }

  /** Guesses that are useful per access: those that are wanted while a transfer lasts, and one more. */
  get depth(): number {
    if (this.#gapMs === 0) return this.#depthMax;
    return Math.min(this.#depthMax, 1 + Math.ceil(this.#transferMs / this.#gapMs));
  }

  /**
   * Notes that an id is wanted now.
   *
   * @returns Whether it had been prefetched: it has arrived, is on its way, or was no guess.
   */
  want(stream: string, id: string, nowMs: number): "used" | "late" | "none" {
    const latestMs = this.#latestMs.get(stream);
    this.#latestMs.delete(stream);
    this.#latestMs.set(stream, nowMs);
    if (this.#latestMs.size > 1024) {
      this.#latestMs.delete(this.#latestMs.keys().next().value as string);
    }
    if (latestMs !== undefined) this.#gapMs += (nowMs - latestMs - this.#gapMs) * NEWEST_SHARE;
    const guess = this.#guesses.get(id);
    if (guess === undefined) return "none";
    this.#guesses.delete(id);
    if (guess.hasArrived) this.#used += 1;
    else this.#late += 1;
    return guess.hasArrived ? "used" : "late";
  }

  /**
   * Takes guesses in, nearest first, as deep as is useful.
   *
   * @param isWanted Whether an id has to be brought in at all; not asked for what is outstanding.
   * @param giveUp Called for each older guess that makes room.
   * @returns What to prefetch now.
   */
  issue(
    predicted: readonly string[],
    nowMs: number,
    isWanted: (id: string) => boolean,
    giveUp: (id: string) => void = () => {},
  ): string[] {
    const issued: string[] = [];
    for (const id of predicted.slice(0, this.depth)) {
      if (this.#guesses.has(id) || !isWanted(id)) continue;
      if (this.#guesses.size >= this.#budgetCount) {
        const oldest = this.#guesses.keys().next().value as string;
        this.waste(oldest);
        giveUp(oldest);
      }
      this.#guesses.set(id, { issuedMs: nowMs, hasArrived: false });
      this.#issued += 1;
      issued.push(id);
    }
    return issued;
  }

  /** What was issued has arrived. */
  arrive(id: string, nowMs: number): void {
    const guess = this.#guesses.get(id);
    if (guess === undefined || guess.hasArrived) return;
    guess.hasArrived = true;
    this.#transferMs += (nowMs - guess.issuedMs - this.#transferMs) * NEWEST_SHARE;
  }

  /** What was issued failed, or left before it was wanted. */
  waste(id: string): void {
    if (this.#guesses.delete(id)) this.#wasted += 1;
  }

  counters(): PrefetchCounters {
    return {
      issuedCount: this.#issued,
      usedCount: this.#used,
      wastedCount: this.#wasted,
      lateCount: this.#late,
      outstandingCount: this.#guesses.size,
    };
  }
}
