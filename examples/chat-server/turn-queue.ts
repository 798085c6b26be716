/** Lets so many turns run at once; a few more wait in the order in which they came. */
import { RequestError } from "./request-error.js";

export interface TurnQueueOptions {
  /** Turns that may run at once, at least 1. */
  readonly runningMax: number;
  /** Turns that may wait. */
  readonly waitingMax: number;
}

export class TurnQueue {
  readonly #options: TurnQueueOptions;
  readonly #waiting = new Set<() => void>();
  #runningCount = 0;
  #rejectedCount = 0;

  constructor(options: TurnQueueOptions) {
    this.#options = options;
  }

  stats() {
    return {
      runningCount: this.#runningCount,
      waitingCount: this.#waiting.size,
      rejectedCount: this.#rejectedCount,
    };
  }

  /**
   * Runs `work` when it is its turn.
   *
   * @throws {RequestError} `queue-full`. @throws The signal's reason, if that comes first.
   */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    await this.#enter(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      if (next === undefined) this.#runningCount -= 1;
      // The place goes to whoever has waited for longest.
      else next();
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    const { runningMax, waitingMax } = this.#options;
    if (this.#runningCount < runningMax) {
      this.#runningCount += 1;
      return;
    }
    if (this.#waiting.size >= waitingMax) {
      this.#rejectedCount += 1;
      throw new RequestError(503, "queue-full", "too many turns are waiting: try again later");
    }
    await new Promise<void>((resolve, reject) => {
      const stop = () => {
        this.#waiting.delete(start);
        reject(signal.reason);
      };
      const start = () => {
        this.#waiting.delete(start);
        signal.removeEventListener("abort", stop);
        resolve();
      };
      this.#waiting.add(start);
      signal.addEventListener("abort", stop, { once: true });
    });
  }
}
