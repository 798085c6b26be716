// What the swapper counts.

export interface SwapperStats {
  /** Demotions that wrote: the cold copy became the only one. */
  readonly swapOutCount: number;
  /** Loads of a tensor whose only copy was cold. */
  readonly swapInCount: number;
  /** Hot blocks given up without a write, because a valid copy was there. */
  readonly cleanEvictionCount: number;
  /** Swapped-out copies of tensors that stayed hot, written in the background. */
  readonly earlyCopyCount: number;
  /** Copies written by `save`. */
  readonly saveCount: number;
  /** Demotions given up because the tensor was pinned or written meanwhile. */
  readonly vetoCount: number;
  readonly noSpaceCount: number;
  readonly failedCount: number;
  readonly rawBytesOut: number;
  readonly rawBytesIn: number;
  readonly hotBytes: number;
  readonly hotCount: number;
  /** Of loads, measured; null until there was one that could tell. */
  readonly latencyMs: number | null;
  readonly bytesPerSecond: number | null;
  /** Stored bytes of tensors that came in together, room made for them included; median of the last times. */
  readonly burstBytesPerSecond: number | null;
}

/** Nothing has happened yet. */
export function swapperCounters() {
  return {
    swapOutCount: 0,
    swapInCount: 0,
    cleanEvictionCount: 0,
    saveCount: 0,
    vetoCount: 0,
    noSpaceCount: 0,
    failedCount: 0,
    rawBytesOut: 0,
    rawBytesIn: 0,
    hotBytes: 0,
    hotCount: 0,
  };
}
