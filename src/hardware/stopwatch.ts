// Times work within a limit: what takes longer is not waited for.
import type { Clock } from "../clock.js";

/** The time is up. */
export class OutOfTime extends Error {
  constructor() {
    super("the time for measuring is up");
    this.name = "OutOfTime";
  }
}

export class Stopwatch {
  readonly #clock: Clock;
  /** When the time is up, by the monotonic clock. */
  readonly untilMs: number;

  constructor(clock: Clock, untilMs: number) {
    this.#clock = clock;
    this.untilMs = untilMs;
  }

  get leftMs(): number {
    return this.untilMs - this.#clock.monotonicMs();
  }

  /** The same clock with an earlier end. */
  until(untilMs: number): Stopwatch {
    return new Stopwatch(this.#clock, Math.min(untilMs, this.untilMs));
  }

  /** @returns Milliseconds that it took. */
  timeNow(work: () => void): number {
    const startMs = this.#clock.monotonicMs();
    work();
    return this.#clock.monotonicMs() - startMs;
  }

  /** @returns Milliseconds that it took. @throws {OutOfTime} It goes on, and nobody waits for it. */
  async time(work: () => Promise<unknown>): Promise<number> {
    const startMs = this.#clock.monotonicMs();
    await this.limit(work);
    return this.#clock.monotonicMs() - startMs;
  }

  /** @returns What the work gave. @throws {OutOfTime} As {@link time}; it is not begun if there is no time left. */
  async limit<T>(work: () => Promise<T>): Promise<T> {
    if (this.leftMs <= 0) throw new OutOfTime();
    let callOff = () => {};
    const late = new Promise<never>((_resolve, reject) => {
      callOff = this.#clock.defer(this.leftMs, () => reject(new OutOfTime()));
    });
    const working = work();
    try {
      return await Promise.race([working, late]);
    } finally {
      callOff();
      // Nobody listens any more if it was late.
      working.catch(() => {});
    }
  }
}
