// Ends what takes too long, by the injected clock. One sleeper serves all, so that many short calls
// leave no timers behind.
import type { Clock } from "../clock.js";

export class Deadlines {
  readonly #clock: Clock;
  /** In the order in which they are due, because all last equally long. */
  readonly #waiting = new Set<{ readonly dueMs: number; readonly fire: () => void }>();
  readonly #durationMs: number;
  #isWatching = false;

  /** @param durationMs How long everything may take. */
  constructor(clock: Clock, durationMs: number) {
    this.#clock = clock;
    this.#durationMs = durationMs;
  }

  /** @returns The work's result, or what `onTimeout` throws, whichever comes first. */
  async limit<T>(work: Promise<T>, onTimeout: () => Error): Promise<T> {
    let fire = () => {};
    const late = new Promise<never>((_resolve, reject) => {
      fire = () => reject(onTimeout());
    });
    const waiting = { dueMs: this.#clock.monotonicMs() + this.#durationMs, fire: () => fire() };
    this.#waiting.add(waiting);
    // A clock that fails ends nothing.
    if (!this.#isWatching) this.#watch().catch(() => {});
    try {
      return await Promise.race([work, late]);
    } finally {
      this.#waiting.delete(waiting);
      // Nobody listens any more, whoever lost.
      work.catch(() => {});
    }
  }

  async #watch(): Promise<void> {
    this.#isWatching = true;
    for (const first of this.#waiting) {
      // A sleep may end a little early.
      while (this.#waiting.has(first)) {
        const leftMs = first.dueMs - this.#clock.monotonicMs();
        if (leftMs > 0) await this.#clock.sleep(leftMs);
        else if (this.#waiting.delete(first)) first.fire();
      }
    }
    this.#isWatching = false;
  }
}
