// What a recorder has to tell: how long things took, and how the memory filled over time. Plain data.

/** How long one kind of operation took, as a histogram of fixed classes. Times in milliseconds. */
export interface LatencyStats {
  /**
   * `"allocate"`: synchronous, room included. `"cache.wait"`: an `acquire` of what was not resident, making
   * room included. `"room.wait"`: making room by demoting. `"swap.load"`, `"swap.store"`: one tensor between
   * RAM and the tiers, coding and verifying included. `"compaction.step"`: a step in the background.
   * `"tier.NAME.read"`: a read of one level of several tiers.
   */
  readonly name: string;
  /** One in so many operations is timed; 1: each. */
  readonly sampledOneIn: number;
  /** Operations that were timed. */
  readonly count: number;
  readonly totalMs: number;
  readonly leastMs: number;
  readonly mostMs: number;
  /** Upper ends of the classes in which the shares 0.5, 0.9 and 0.99 of all are reached; at most `mostMs`. */
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  /** Classes with anything in them, shortest first: four to each doubling. */
  readonly classes: readonly {
    /** Upper end, inclusive. The last one has no end: Infinity. */
    readonly upToMs: number;
    readonly count: number;
  }[];
}

/** The memory at one moment. Counts are sums since it was created. */
export interface SeriesSample {
  /** By the monotonic clock, in milliseconds. */
  readonly timeMs: number;
  /** Of the RAM budget. */
  readonly usedBytes: number;
  /** Bytes in blocks of all kinds, and bytes of resident tensors. */
  readonly grantedBytes: number;
  readonly hotBytes: number;
  /** Bytes of records in all tiers below. */
  readonly coldBytes: number;
  readonly hits: number;
  readonly joins: number;
  readonly misses: number;
  /** Bytes of tensors written to tiers, and read back. */
  readonly rawBytesOut: number;
  readonly rawBytesIn: number;
}

/** Samples over the whole life of a memory: as they become too many, every other one goes. */
export interface SeriesStats {
  /** Least time between two samples now; they are taken when something happens, never by a timer. */
  readonly intervalMs: number;
  readonly capacity: number;
  /** Oldest first. */
  readonly samples: readonly SeriesSample[];
}
