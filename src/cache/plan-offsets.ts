// Where the tensors of a repeated step lie in one block: computed once, from when each is needed.
// Source: Yury Pisarchyk and Juhyun Lee, "Efficient memory management for deep neural net
// inference", MLSys 2020 — offsets, greedy by size.

/** When a tensor of a step is needed. */
export interface PlannedLifetime {
  /** At least 1. */
  readonly bytes: number;
  /** Logical time: `start` is before `end`, and at `end` the bytes may be another's. */
  readonly start: number;
  readonly end: number;
}

export interface PlannedOffsets {
  /** Bytes from the start of the block, by lifetime. */
  readonly offsets: readonly number[];
  /** Of the block. */
  readonly byteLength: number;
  /** The most bytes that are needed at one moment, each tensor rounded up to the alignment. */
  readonly lowerBoundBytes: number;
}

/**
 * Gives every tensor a place that is disjoint from those alive at the same time. The largest tensor
 * chooses first; each takes the smallest gap that holds it, or the end.
 *
 * @param alignment Of every place, in bytes; a power of two.
 * @remarks Cost: the square of the number of tensors.
 */
export function planOffsets(
  lifetimes: readonly PlannedLifetime[],
  alignment: number,
): PlannedOffsets {
  const lengths = lifetimes.map(({ bytes }) => Math.ceil(bytes / alignment) * alignment);
  const lengthOf = (index: number) => lengths[index] as number;
  const offsets: number[] = new Array(lifetimes.length).fill(0);
  const bySize = [...lifetimes.keys()].sort((a, b) => lengthOf(b) - lengthOf(a) || a - b);
  /** Those that have a place, by their offset. */
  const placed: number[] = [];
  let byteLength = 0;
  for (const index of bySize) {
    const { start, end } = lifetimes[index] as PlannedLifetime;
    const length = lengthOf(index);
    let bestOffset = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    let reached = 0;
    for (const other of placed) {
      const lifetime = lifetimes[other] as PlannedLifetime;
      if (lifetime.start >= end || lifetime.end <= start) continue;
      const offset = offsets[other] as number;
      const gap = offset - reached;
      if (gap >= length && gap < bestGap) {
        bestOffset = reached;
        bestGap = gap;
      }
      reached = Math.max(reached, offset + lengthOf(other));
    }
    const offset = bestOffset < 0 ? reached : bestOffset;
    offsets[index] = offset;
    byteLength = Math.max(byteLength, offset + length);
    const place = placed.findIndex((other) => (offsets[other] as number) > offset);
    placed.splice(place < 0 ? placed.length : place, 0, index);
  }
  return { offsets, byteLength, lowerBoundBytes: lowerBound(lifetimes, lengths) };
}

function lowerBound(lifetimes: readonly PlannedLifetime[], lengths: readonly number[]): number {
  const changes = lifetimes.flatMap(({ start, end }, index) => [
    { time: start, bytes: lengths[index] as number },
    { time: end, bytes: -(lengths[index] as number) },
  ]);
  changes.sort((a, b) => a.time - b.time || a.bytes - b.bytes);
  let liveBytes = 0;
  let peakBytes = 0;
  for (const { bytes } of changes) {
    liveBytes += bytes;
    peakBytes = Math.max(peakBytes, liveBytes);
  }
  return peakBytes;
}
