// The guard word of a shared control plane, seen from the host: who holds it, and waiting for it.
// Layer: core.
import { GUARD_POISONED, GUARD_WAITING } from "../../assembly/abi.js";

/** Longest single sleep, so that a lost wake-up costs little. */
const SLEEP_MS_MAX = 5;
/** Sleeps of one wait: a second in all, and then whoever waits is told that the plane is busy. */
const SLEEP_COUNT_MAX = 200;
/** Looks of a thread that must not sleep, each of many by the core: about a millisecond in all. */
const LOOK_COUNT_MAX = 2048;

export class Guard {
  readonly #words: Int32Array;
  readonly #index: number;
  readonly #canSleep: boolean;

  /**
   * @param index Word of the guard in `words`.
   * @param canSleep False on a page's main thread, and for the lane of who made the plane: they never
   *   block.
   */
  constructor(words: Int32Array, index: number, canSleep: boolean) {
    this.#words = words;
    this.#index = index;
    this.#canSleep = canSleep;
  }

  get isPoisoned(): boolean {
    return (Atomics.load(this.#words, this.#index) & ~GUARD_WAITING) === GUARD_POISONED;
  }

  /**
   * Waits a little for the guard to change hands.
   *
   * @param attempt How often this call has waited already.
   * @returns Whether another try makes sense: false after the last attempt, and when the plane is
   *   poisoned.
   */
  wait(attempt: number): boolean {
    if (this.isPoisoned) return false;
    // The core itself looks many times before it gives up.
    if (!this.#canSleep) return attempt < LOOK_COUNT_MAX;
    if (attempt >= SLEEP_COUNT_MAX) return false;
    const word = Atomics.load(this.#words, this.#index);
    if (word === 0) return true;
    const waiting = word | GUARD_WAITING;
    const seen = Atomics.compareExchange(this.#words, this.#index, word, waiting);
    if (seen === word) Atomics.wait(this.#words, this.#index, waiting, SLEEP_MS_MAX);
    return true;
  }
}
