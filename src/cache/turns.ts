// Lets so many pieces of work go on at once; others wait their turn, in order.

export class Turns {
  readonly #countMax: number;
  readonly #waiters: (() => void)[] = [];
  #useCount = 0;

  /** @param countMax At least 1. */
  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  /** Pieces of work under way. */
  get useCount(): number {
    return this.#useCount;
  }

  /** Runs `work` when it is its turn. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#useCount < this.#countMax) this.#useCount += 1;
    else {
      // Whoever ends hands the turn over: the count stays.
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
      });
    }
    try {
      return await work();
    } finally {
      const next = this.#waiters.shift();
      if (next === undefined) this.#useCount -= 1;
      else next();
    }
  }
}
