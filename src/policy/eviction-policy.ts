// Seam: the order in which entries leave a tier. A policy sees indexes, sizes and costs; never
// tensors, so it can be replayed on a trace.

/** What a policy knows of an entry. */
export interface PolicyEntry {
  /** Dense number of the tensor. It stays the tensor's until {@link EvictionPolicy.forget}. */
  readonly index: number;
  readonly bytes: number;
  /**
   * Expected time to bring it back, in milliseconds. Default: the same for every entry. Policies that
   * weigh costs keep what is dear; the others do not look at it.
   */
  readonly restoreMs?: number | undefined;
}

/** What a caller may know when a chain was used. All of it is optional, and may be wrong. */
export interface ChainHints {
  /** `"tool"`: generation stopped to call a tool, so that the chain soon returns. */
  readonly stopReason?: "tool" | "end" | undefined;
  /** Tokens generated after this use of the chain. */
  readonly outputTokens?: number | undefined;
  /** From 1: which use of its session this is. Default: found by the chain that this one continues. */
  readonly turn?: number | undefined;
  /** Entries of the chain that no earlier use had. Default: those that the policy does not know. */
  readonly newBlocks?: number | undefined;
}

export interface EvictionPolicy {
  readonly name: string;
  /** Starts to watch an entry; it is the most recent one. Its index is not tracked. */
  track(entry: PolicyEntry): void;
  /**
   * A tracked entry was used on its own.
   *
   * @param restoreMs As {@link PolicyEntry.restoreMs}, from here on. Default: as it was told last.
   */
  touch(index: number, restoreMs?: number): void;
  /**
   * Tracked entries were used together, each useless without those before it: under pressure the
   * tail leaves before the head.
   *
   * @param chain Indexes, head first, each once.
   */
  touchChain(chain: ArrayLike<number>, hints?: ChainHints): void;
  /** Stops to watch an entry that left. The policy may remember it, should it come back. */
  untrack(index: number): void;
  /** The number will mean another tensor, or none. Untracks it if need be. */
  forget(index: number): void;
  /**
   * Entries in the order in which they should leave. The caller skips those that cannot (pinned, in
   * transfer) and may untrack the one it was given last; everything else ends the walk.
   */
  candidates(): Iterable<number>;
}
