// What is being prefetched: guesses, bounded in number and as deep as the time of a transfer needs; and
// what a caller has declared, as much as it asks for. Each is counted as used, wasted or late.
//
// INV: issued = used + wasted + late + outstanding.

export interface PrefetchCounters {
  /** Prefetches begun: guesses, and what was declared. */
  readonly issuedCount: number;
  /** Of these, what a caller has declared. */
  readonly declaredCount: number;
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
  readonly isDeclared: boolean;
  hasArrived: boolean;
}

/** Weight of the newest sample in a running mean. */
const NEWEST_SHARE = 1 / 16;

export class PrefetchWindow {
  readonly #budgetCount: number;
  readonly #depthMax: number;
  /** Oldest first. */
  readonly #guesses = new Map<string, Guess>();
  /** When those were issued that are wanted, and still on their way. */
  readonly #lateMs = new Map<string, number>();
  readonly #latestMs = new Map<string, number>();
  #declaredOutstanding = 0;
  #gapMs = 0;
  #transferMs = 0;
  #issued = 0;
  #declared = 0;
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
    if (latestMs !== undefined) this.#gapMs = mean(this.#gapMs, nowMs - latestMs);
    const guess = this.#take(id);
    if (guess === undefined) return "none";
    if (guess.hasArrived) {
      this.#used += 1;
      return "used";
    }
    this.#late += 1;
    this.#lateMs.set(id, guess.issuedMs);
    return "late";
  }

  /** Whether an id is outstanding. */
  has(id: string): boolean {
    return this.#guesses.has(id);
  }

  /** Takes in what a caller has declared, whatever the budget and the depth. */
  declare(id: string, nowMs: number): void {
    if (this.#guesses.has(id)) return;
    this.#add(id, nowMs, true);
    this.#declared += 1;
    this.#declaredOutstanding += 1;
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
      if (this.#guesses.size - this.#declaredOutstanding >= this.#budgetCount) {
        const oldest = this.#oldestGuess();
        this.waste(oldest);
        giveUp(oldest);
      }
      this.#add(id, nowMs, false);
      issued.push(id);
    }
    return issued;
  }

  /** What was issued has arrived. */
  arrive(id: string, nowMs: number): void {
    const guess = this.#guesses.get(id);
    const issuedMs = this.#lateMs.get(id) ?? (guess?.hasArrived === false ? guess.issuedMs : null);
    if (guess !== undefined) guess.hasArrived = true;
    this.#lateMs.delete(id);
    if (issuedMs !== null) this.#transferMs = mean(this.#transferMs, nowMs - issuedMs);
  }

  /** What was issued failed, or left before it was wanted. */
  waste(id: string): void {
    this.#lateMs.delete(id);
    if (this.#take(id) !== undefined) this.#wasted += 1;
  }

  counters(): PrefetchCounters {
    return {
      issuedCount: this.#issued,
      declaredCount: this.#declared,
      usedCount: this.#used,
      wastedCount: this.#wasted,
      lateCount: this.#late,
      outstandingCount: this.#guesses.size,
    };
  }

  #add(id: string, issuedMs: number, isDeclared: boolean): void {
    this.#lateMs.delete(id);
    this.#guesses.set(id, { issuedMs, isDeclared, hasArrived: false });
    this.#issued += 1;
  }

  #take(id: string): Guess | undefined {
    const guess = this.#guesses.get(id);
    if (guess === undefined) return undefined;
    this.#guesses.delete(id);
    if (guess.isDeclared) this.#declaredOutstanding -= 1;
    return guess;
  }

  #oldestGuess(): string {
    for (const [id, { isDeclared }] of this.#guesses) if (!isDeclared) return id;
    return "";
  }
}

/** A running mean; the first sample is taken as it is. */
function mean(before: number, sample: number): number {
  return before === 0 ? sample : before + (sample - before) * NEWEST_SHARE;
}
