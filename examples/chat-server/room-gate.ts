/**
 * Work that shares the budget, and gets all of it when that is what it takes: what finds no room beside
 * others is done once more alone, while the others' memory is pinned by nobody.
 */
import { OutOfMemoryError } from "tierheap";

export class RoomGate {
  readonly #running = new Set<Promise<unknown>>();
  /** Settles when nobody works alone any more. */
  #alone: Promise<void> = Promise.resolve();
  #aloneCount = 0;

  /** How often something had to be done alone. */
  get aloneCount(): number {
    return this.#aloneCount;
  }

  /**
   * @param work Changes nothing when it finds no room.
   * @throws {OutOfMemoryError} There is no room even for it alone.
   */
  async run<T>(work: () => Promise<T>): Promise<T> {
    for (let alone = this.#alone; ; alone = this.#alone) {
      await alone;
      if (alone === this.#alone) break;
    }
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
    } finally {
      this.#running.delete(running);
    }
    return this.#runAlone(work);
  }

  async #runAlone<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#alone;
    let end = () => {};
    this.#alone = new Promise((resolve) => {
      end = resolve;
    });
    this.#aloneCount += 1;
    try {
      await before;
      await Promise.allSettled(this.#running);
      return await work();
    } finally {
      end();
    }
  }
}
