// Seam: the order in which resident tensors leave. A policy sees indexes, sizes and costs; never
// tensors, so it can be replayed on a trace.

export interface PolicyEntry {
  /** Dense number of the tensor; used again after untrack. */
  readonly index: number;
  readonly bytes: number;
}

export interface EvictionPolicy {
  readonly name: string;
  /** Starts to watch an entry; it is the most recent one. Its index is not tracked yet. */
  track(entry: PolicyEntry): void;
  /** The entry was used. */
  touch(index: number): void;
  /** Stops to watch an entry. */
  untrack(index: number): void;
  /**
   * Entries in the order in which they should leave. The caller skips those that cannot (pinned, in
   * transfer) and may untrack the one it was given last.
   */
  candidates(): Iterable<number>;
}
