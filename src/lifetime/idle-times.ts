// How times without use have ended, by their length: in a use, in a free, or not yet. Two competing
// ends with censoring, in classes of time. All of them make the share that is used again; how far it is
// believed goes by those of them that did not overlap, because what waits together ends together.
//
// Source: O. O. Aalen, S. Johansen, "An Empirical Transition Matrix for Non-homogeneous Markov Chains
// Based on Censored Observations", Scandinavian Journal of Statistics 5 (1978) — the estimator of how
// likely an end is once a time has lasted, here from the longest class down.
import type { IdleEnd } from "./lifetime-predictor.js";

/** Two classes of time per doubling, from 1/64 ms to about 50 days. */
export const TIME_CLASS_COUNT = 76;
const CLASSES_PER_DOUBLING = 2;
const SHORTEST_LOG2_MS = -6;

/** The class of a time in milliseconds, 0 or more; Infinity is in the last one. */
export function timeClassOf(ms: number): number {
  const place = Math.floor((Math.log2(ms) - SHORTEST_LOG2_MS) * CLASSES_PER_DOUBLING) + 1;
  return Math.max(0, Math.min(TIME_CLASS_COUNT - 1, place));
}

/** The shortest time of a class, in milliseconds. */
export function timeClassMs(index: number): number {
  return index === 0 ? 0 : 2 ** ((index - 1) / CLASSES_PER_DOUBLING + SHORTEST_LOG2_MS);
}

/** Ended times after which all counts are halved, so that what was long ago weighs less. */
const ENDED_COUNT_MAX = 4096;
/** Times ended or seen between two estimates; fewer at the beginning. */
const STRIDE = 64;

export class IdleTimes {
  readonly #used = new Uint32Array(TIME_CLASS_COUNT);
  readonly #freed = new Uint32Array(TIME_CLASS_COUNT);
  /** Those that have not ended, as of the last census, and of the one under way. */
  #alive = new Uint32Array(TIME_CLASS_COUNT);
  #counted = new Uint32Array(TIME_CLASS_COUNT);
  /** Of those that ended: each began when the one counted before it had ended. */
  readonly #apart = new Uint32Array(TIME_CLASS_COUNT);
  /** When the one counted last had ended. */
  readonly #apartMs = new Float64Array(TIME_CLASS_COUNT).fill(Number.NEGATIVE_INFINITY);
  #endedCount = 0;
  #untilEstimate = 1;
  #overMs = Number.POSITIVE_INFINITY;

  note(idleMs: number, nowMs: number, end: IdleEnd): void {
    const index = timeClassOf(idleMs);
    if (end === "alive") {
      this.#counted[index] = (this.#counted[index] as number) + 1;
      return;
    }
    const ended = end === "used" ? this.#used : this.#freed;
    ended[index] = (ended[index] as number) + 1;
    if (nowMs - idleMs > (this.#apartMs[index] as number)) {
      this.#apart[index] = (this.#apart[index] as number) + 1;
      this.#apartMs[index] = nowMs;
    }
    this.#endedCount += 1;
    this.#untilEstimate -= 1;
    // Used after it seemed over: the next one is asked about with that in mind.
    if (end === "used" && idleMs >= this.#overMs) this.#untilEstimate = 0;
    if (this.#endedCount === ENDED_COUNT_MAX) this.#halve();
  }

  endCensus(): void {
    const last = this.#alive;
    this.#alive = this.#counted;
    this.#counted = last.fill(0);
    this.#untilEstimate = 0;
  }

  /**
   * Milliseconds without use from which on hardly any tensor is used again; Infinity when that is not known.
   *
   * @param regretShare Most that may be used again, 0 to 1.
   */
  overMs(regretShare: number): number {
    if (this.#untilEstimate <= 0) {
      this.#untilEstimate = Math.min(STRIDE, 1 + (this.#endedCount >> 3));
      this.#overMs = this.#estimate(regretShare);
    }
    return this.#overMs;
  }

  /**
   * The shortest time at which few enough are used again, half of one counted on top of those seen, and
   * after which there is none at which more are: who is given up later has lasted longer. Those that
   * have not ended wait at the same time, so those of a class are one.
   */
  #estimate(regretShare: number): number {
    let overMs = Number.POSITIVE_INFINITY;
    let lastingCount = 0;
    let apartCount = 0;
    let useShare = 0;
    for (let index = TIME_CLASS_COUNT - 1; index >= 0; index--) {
      const usedCount = this.#used[index] as number;
      const freedCount = this.#freed[index] as number;
      const aliveCount = this.#alive[index] as number;
      lastingCount += usedCount + freedCount + aliveCount;
      if (lastingCount === 0) continue;
      apartCount += (this.#apart[index] as number) + Math.min(1, aliveCount);
      const goesOn = 1 - (usedCount + freedCount) / lastingCount;
      useShare = usedCount / lastingCount + goesOn * useShare;
      if (useShare > regretShare) break;
      const isSure = (useShare * apartCount + 0.5) / (apartCount + 1) <= regretShare;
      if (isSure) overMs = timeClassMs(index);
    }
    return overMs;
  }

  #halve(): void {
    for (const counts of [this.#used, this.#freed, this.#apart]) {
      for (const [index, count] of counts.entries()) counts[index] = count >> 1;
    }
    this.#endedCount >>= 1;
  }
}
