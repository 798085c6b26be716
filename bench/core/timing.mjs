// Times short chunks of operations. A chunk lasts a few microseconds to a few milliseconds, so that
// most chunks are not interrupted; the median leaves the others out.

/** Operations per chunk. */
export const CHUNK_LENGTH = 1000;

/** Samples of one loop, in nanoseconds per operation, apart by position in the workload. */
export class Samples {
  #positions = [];
  #counts = [];

  /** @param position Chunks at the same position did the same operations. */
  add(position, milliseconds, operationCount) {
    this.#counts[position] = operationCount;
    this.#positions[position] ??= [];
    this.#positions[position].push((milliseconds * 1e6) / operationCount);
  }

  /** Median of each position, weighted by its operations. */
  get median() {
    return this.#weighted((sorted) => sorted[sorted.length >> 1]);
  }

  /** The same of the fastest samples. */
  get least() {
    return this.#weighted((sorted) => sorted[0]);
  }

  /** The same of their mean: it contains the collector's pauses, and everybody else's. */
  get mean() {
    return this.#weighted((sorted) => sorted.reduce((sum, each) => sum + each, 0) / sorted.length);
  }

  /** The samples of the first positions alone. */
  first(positionCount) {
    const part = new Samples();
    part.#positions = this.#positions.slice(0, positionCount);
    part.#counts = this.#counts.slice(0, positionCount);
    return part;
  }

  #weighted(pick) {
    let sum = 0;
    let count = 0;
    this.#positions.forEach((samples, position) => {
      const sorted = Float64Array.from(samples).sort();
      sum += pick(sorted) * this.#counts[position];
      count += this.#counts[position];
    });
    return sum / count;
  }
}

/** Runs `work` and gives the milliseconds it took. */
export function timed(work) {
  const start = performance.now();
  work();
  return performance.now() - start;
}

/**
 * Lets contestants take turns, round by round, so that a busy moment hits all of them.
 *
 * @param entries Each with `contestant`; a slow contestant takes part in `slowRoundCount` rounds only.
 * @param run Called with an entry and whether this round's samples count.
 * @param options.collects Collect garbage before each turn: for contestants that leave it to others.
 */
export async function takeTurns(entries, run, options) {
  const { roundCount, warmUpCount, slowRoundCount, collects = false } = options;
  for (let round = 0; round < roundCount + warmUpCount; round++) {
    for (const entry of entries) {
      const { isSlow } = entry.contestant;
      if (isSlow && round > slowRoundCount) continue;
      if (collects) globalThis.gc?.();
      await run(entry, round >= (isSlow ? 1 : warmUpCount));
    }
  }
}

/** Rounds of a section; `--quick` trades steadiness for time. */
export function rounds(isQuick, roundCount = 15) {
  return isQuick
    ? { roundCount: 3, warmUpCount: 2, slowRoundCount: 1 }
    : { roundCount, warmUpCount: 4, slowRoundCount: 3 };
}
