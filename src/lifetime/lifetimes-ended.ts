// How long tensors have lived, in classes of time, with those that still do.
//
// Source: E. L. Kaplan, P. Meier, "Nonparametric Estimation from Incomplete Observations", Journal of
// the American Statistical Association 53 (1958) — the estimator, in classes.
import { TIME_CLASS_COUNT, timeClassMs, timeClassOf } from "./idle-times.js";

const ENDED_COUNT_MAX = 4096;
/** Lifetimes ended between two estimates; fewer at the beginning. */
const STRIDE = 64;

export class LifetimesEnded {
  readonly #ended = new Uint32Array(TIME_CLASS_COUNT);
  #alive = new Uint32Array(TIME_CLASS_COUNT);
  #counted = new Uint32Array(TIME_CLASS_COUNT);
  #endedCount = 0;
  #untilEstimate = 1;
  #medianMs = Number.POSITIVE_INFINITY;

  /** Lifetimes that have ended, the older ones weighing less. */
  get endedCount(): number {
    return this.#endedCount;
  }

  note(ageMs: number, isAlive: boolean): void {
    const index = timeClassOf(ageMs);
    if (isAlive) {
      this.#counted[index] = (this.#counted[index] as number) + 1;
      return;
    }
    this.#ended[index] = (this.#ended[index] as number) + 1;
    this.#endedCount += 1;
    this.#untilEstimate -= 1;
    if (this.#endedCount < ENDED_COUNT_MAX) return;
    for (const [each, count] of this.#ended.entries()) this.#ended[each] = count >> 1;
    this.#endedCount >>= 1;
  }

  endCensus(): void {
    const last = this.#alive;
    this.#alive = this.#counted;
    this.#counted = last.fill(0);
    this.#untilEstimate = 0;
  }

  /** Milliseconds that half of all live at most; Infinity before any has ended, or when more than half live on. */
  medianMs(): number {
    if (this.#untilEstimate <= 0) {
      this.#untilEstimate = Math.min(STRIDE, 1 + (this.#endedCount >> 3));
      this.#medianMs = this.#estimate();
    }
    return this.#medianMs;
  }

  #estimate(): number {
    let lastingCount = 0;
    for (let index = 0; index < TIME_CLASS_COUNT; index++) {
      lastingCount += (this.#ended[index] as number) + (this.#alive[index] as number);
    }
    let livingShare = 1;
    for (let index = 0; index < TIME_CLASS_COUNT && lastingCount > 0; index++) {
      const endedCount = this.#ended[index] as number;
      livingShare *= 1 - endedCount / lastingCount;
      // The middle of the class, as far as classes of doublings have one.
      if (livingShare <= 0.5) {
        return Math.sqrt(Math.max(timeClassMs(1) / 2, timeClassMs(index)) * timeClassMs(index + 1));
      }
      lastingCount -= endedCount + (this.#alive[index] as number);
    }
    return Number.POSITIVE_INFINITY;
  }
}
