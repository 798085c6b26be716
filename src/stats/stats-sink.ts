// Seam: where measurements go as they happen. Counters that `memory.stats()` reports are kept by
// their owners; a sink is for exporters.

export interface StatsSink {
  /** Adds to a counter; names are constants such as `"swap.out"`. */
  count(name: string, amount: number): void;
  /** Records one duration in milliseconds. */
  time(name: string, durationMs: number): void;
}
