// Which of two orders of leaving does better: the one by rank, or the one of least recent use.

/** Uses over which the two orders are compared, at least. */
const SPAN_USES = 1000;
/** The same in accesses per entry in the tier. */
const SPAN_HELD = 4;
/** Lead, as a share of accesses, with which the order of rank takes over, and lag with which it ends. */
const LEAD_MIN = 0.001;
const LAG_MAX = 0.02;
/** Hits that the tier may be behind the order of least recent use, as a share of all accesses. */
const LOSS_MAX = 0.0028;
/** Part of that loss below which the order of rank may be tried again. */
const RESUME_SHARE = 0.8;
/** That share is of as many accesses as this per tracked entry, at least. */
const LOSS_SPAN = 8;

/** Leading blocks of a chain that are held, and that would be under either order. */
export interface ContestHits {
  readonly held: number;
  readonly recent: number;
  readonly ranked: number;
}

/** Two measures: a lead that fades, and the whole loss since the beginning. */
export class OrderContest {
  #useCount = 0;
  #accessCount = 0;
  #heldCount = 0;
  /** Hits of the tier above those of the order of least recent use. */
  #balance = 0;
  #recentAccesses = 0;
  #lead = 0;

  /** @param length Blocks of the chain. @param heldCount Entries in the tier. */
  count(length: number, hits: ContestHits, heldCount: number): void {
    this.#useCount += 1;
    this.#accessCount += length;
    this.#heldCount = heldCount;
    this.#balance += hits.held - hits.recent;
    const meanLength = this.#accessCount / this.#useCount;
    const span = Math.max(SPAN_USES * meanLength, SPAN_HELD * heldCount);
    const kept = Math.max(0, 1 - length / span);
    this.#recentAccesses = this.#recentAccesses * kept + length;
    this.#lead = this.#lead * kept + hits.ranked - hits.recent;
  }

  /** Whether the order that is followed now should give way to the other one. */
  isOver(isRanking: boolean): boolean {
    const span = Math.max(this.#accessCount, LOSS_SPAN * this.#heldCount);
    const loss = -this.#balance / span;
    return isRanking
      ? loss > LOSS_MAX || this.#lead < -LAG_MAX * this.#recentAccesses
      : loss < RESUME_SHARE * LOSS_MAX && this.#lead > LEAD_MIN * this.#recentAccesses;
  }
}
