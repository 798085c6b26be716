// How long something takes in all, timed one time in so many.
import type { Clock } from "../clock.js";

/** One time in so many is timed; a power of two. */
const TIMED_ONE_IN = 64;
/** One that takes so many times as long as others was interrupted, and does not stand for them. */
const INTERRUPTED_TIMES = 8;
/** Weight of a new duration in the running mean. */
const SHARE = 1 / 16;

export class SampledTime {
  /** Milliseconds of all, as those that were timed tell. */
  spentMs = 0;
  readonly #clock: Clock;
  #count = 0;
  #startMs = 0;
  #meanMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  begin(): void {
    this.#count += 1;
    if (this.#isTimed) this.#startMs = this.#clock.monotonicMs();
  }

  end(): void {
    if (!this.#isTimed) return;
    const durationMs = this.#clock.monotonicMs() - this.#startMs;
    if (this.#meanMs === 0) this.#meanMs = durationMs;
    const boundedMs = Math.min(durationMs, INTERRUPTED_TIMES * this.#meanMs);
    this.#meanMs += SHARE * (boundedMs - this.#meanMs);
    this.spentMs += TIMED_ONE_IN * boundedMs;
  }

  get #isTimed(): boolean {
    return (this.#count & (TIMED_ONE_IN - 1)) === 0;
  }
}
