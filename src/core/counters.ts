// Figures of pools and arenas, as the core's tables give them. Layer: core.

/** Counters of one pool, in bytes and blocks. */
export interface PoolCounters {
  readonly requestedBytes: number;
  /** In a shared plane a peak is noted when a lane settles what it took and put, and so not exact. */
  readonly requestedBytesPeak: number;
  readonly grantedBytes: number;
  /** Granted bytes, those of cached blocks included: what nobody else can have. */
  readonly claimedBytes: number;
  readonly claimedBytesPeak: number;
  readonly allocationCount: number;
  readonly freeCount: number;
  readonly liveCount: number;
}

/** Figures of one arena. */
export interface ArenaCounters {
  readonly capacityBytes: number;
  readonly grantedBytes: number;
  readonly requestedBytes: number;
  readonly freeBytes: number;
  /** What is cached or free in slabs adds to the free bytes, not to this. */
  readonly largestFreeBlockBytes: number;
  readonly slabCount: number;
  readonly liveCount: number;
  readonly pinnedCount: number;
}
