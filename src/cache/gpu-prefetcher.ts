// Brings tensors to the GPU ahead of their leases, for callers who know what comes, and counts what became of each. The
// copies are those of the residency record; they make room as a lease does, and are evicted as any others.
//
// INV: issued = used + wasted + late + outstanding.
import type { Clock } from "../clock.js";
import { type PrefetchCounters, PrefetchWindow } from "./prefetch-window.js";

/** @internal */
export class GpuPrefetcher {
  readonly #window = new PrefetchWindow();
  /** Those that are there, and not wanted yet. */
  readonly #arrived = new Set<string>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Has tensors brought up.
   *
   * @param isCounted Whether it has to be brought at all, and is known by that name.
   * @param bring Resolves when it is there; false, or an error: it is not.
   * @returns When all have arrived or failed.
   */
  async declare(
    ids: readonly string[],
    isCounted: (id: string) => boolean,
    bring: (id: string) => Promise<boolean>,
  ): Promise<void> {
    await Promise.allSettled(
      ids.map(async (id) => {
        if (isCounted(id)) {
          // What came before was written since.
          this.left(id);
          this.#window.declare(id, this.#clock.monotonicMs());
        }
        const isThere = await bring(id).catch(() => false);
        if (!isThere) return this.#window.waste(id);
        if (this.#window.has(id)) this.#arrived.add(id);
        this.#window.arrive(id, this.#clock.monotonicMs());
      }),
    );
  }

  /** @param isThere Its newest bytes are on the device. */
  want(id: string, isThere: boolean): void {
    // What came was written since.
    if (!isThere) this.left(id);
    this.#arrived.delete(id);
    this.#window.want("", id, this.#clock.monotonicMs());
  }

  /** A tensor's copy has left the device. */
  left(id: string | null): void {
    if (id !== null && this.#arrived.delete(id)) this.#window.waste(id);
  }

  counters(): PrefetchCounters {
    return this.#window.counters();
  }
}
