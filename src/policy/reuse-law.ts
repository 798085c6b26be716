// What is known about when blocks return: reuse-time laws by class, learnt while running, and the
// index by which groups of blocks are ranked. Knows no entries and no sets; `learnt.ts` feeds it.
//
// A class is a leaf of a tree: each level adds one feature, and a class of which little is known
// leans on its parent. Per class and bin of age there are three counts of blocks: reused at that age,
// given up at that age without a reuse (censored), and not reused yet (live).
//
// Sources:
//   1. E. L. Kaplan, P. Meier, "Nonparametric Estimation from Incomplete Observations": the hazard
//      of a bin is reuses ÷ blocks at risk, and what was not seen to return counts as censored.
//   2. J. C. Gittins, "Bandit Processes and Dynamic Allocation Indices": the rank of an age is the
//      best ratio, over all horizons, of expected reuses to expected time of occupancy.

/** Bins of age. The first one ends at {@link FIRST_EDGE_MS}, each next one is longer by {@link BIN_GROWTH}. */
export const BIN_COUNT = 32;
const FIRST_EDGE_MS = 1;
const BIN_GROWTH = 1.8;
/** Observations that the parent's law weighs. */
const PARENT_WEIGHT = 2000;
/** Share of the first bin that is still ahead, on average. */
const REST_OF_BIN = 0.4;
/** No hazard is taken to be certain. */
const HAZARD_MAX = 0.99;

/** Ages at which the bins begin, in milliseconds; the last bin has no end. */
export const BIN_EDGES_MS = Float64Array.from({ length: BIN_COUNT + 1 }, (_, bin) =>
  bin === 0
    ? 0
    : bin === BIN_COUNT
      ? Number.POSITIVE_INFINITY
      : FIRST_EDGE_MS * BIN_GROWTH ** (bin - 1),
);

const BIN_WIDTHS_MS = Float64Array.from(
  { length: BIN_COUNT },
  (_, bin) => (BIN_EDGES_MS[bin + 1] as number) - (BIN_EDGES_MS[bin] as number),
);

const ROOT = 0;
/** In the place of an index. */
const UNKNOWN = -1;

/** Laws of all classes. Classes are made on demand and never go. */
export class ReuseLaw {
  #nodeByKey = new Map<number, number>();
  #parents = new Int16Array(64);
  #nodeCount = 1;
  #reused = new Float32Array(64 * BIN_COUNT);
  #censored = new Float32Array(64 * BIN_COUNT);
  #live = new Int32Array(64 * BIN_COUNT);
  /** Of the last rebuild. */
  #hazards = new Float64Array(64 * BIN_COUNT);
  /** Computed when it is first asked for after a rebuild; negative until then. */
  #index = new Float32Array(64 * BIN_COUNT).fill(UNKNOWN);
  // Room for a rebuild.
  #allReused = new Float64Array(64 * BIN_COUNT);
  #allUnreused = new Float64Array(64 * BIN_COUNT);

  /** Classes and their ancestors. */
  get nodeCount(): number {
    return this.#nodeCount;
  }

  get byteLength(): number {
    return this.#parents.length * (2 + (4 * 4 + 3 * 8) * BIN_COUNT);
  }

  /**
   * The class of some features, from the one that tells most to the one that tells least.
   *
   * @param features Each from 0 to 15; at most six.
   */
  classOf(features: readonly number[]): number {
    let key = 1;
    let node = ROOT;
    for (const feature of features) {
      key = key * 16 + feature;
      node = this.#nodeByKey.get(key) ?? this.#addNode(key, node);
    }
    return node;
  }

  /** Counts `blockCount` live blocks in, or out when it is negative. */
  addLive(node: number, bin: number, blockCount: number): void {
    (this.#live[node * BIN_COUNT + bin] as number) += blockCount;
  }

  /** Live blocks of this class were reused in this bin. */
  noteReuse(node: number, bin: number, blockCount: number): void {
    const at = node * BIN_COUNT + bin;
    (this.#live[at] as number) -= blockCount;
    (this.#reused[at] as number) += blockCount;
  }

  /** Live blocks are given up: whether they would have returned is not known. */
  noteCensored(node: number, bin: number, blockCount: number): void {
    const at = node * BIN_COUNT + bin;
    (this.#live[at] as number) -= blockCount;
    (this.#censored[at] as number) += blockCount;
  }

  /** Expected reuses per millisecond of occupancy, as of the last {@link rebuild}. Cost: bins, once. */
  indexOf(node: number, bin: number): number {
    const at = node * BIN_COUNT + bin;
    const known = this.#index[at] as number;
    return known >= 0 ? known : this.#rank(node, bin);
  }

  /** Learns from what was counted since. Cost: nodes × bins. */
  rebuild(): void {
    const length = this.#nodeCount * BIN_COUNT;
    const reused = this.#allReused;
    const unreused = this.#allUnreused;
    for (let at = 0; at < length; at++) {
      reused[at] = this.#reused[at] as number;
      unreused[at] = (this.#censored[at] as number) + (this.#live[at] as number);
    }
    // Children are made after their parents.
    for (let node = this.#nodeCount - 1; node > ROOT; node--) {
      const own = node * BIN_COUNT;
      const up = (this.#parents[node] as number) * BIN_COUNT;
      for (let bin = 0; bin < BIN_COUNT; bin++) {
        (reused[up + bin] as number) += reused[own + bin] as number;
        (unreused[up + bin] as number) += unreused[own + bin] as number;
      }
    }
    for (let node = ROOT; node < this.#nodeCount; node++) this.#estimate(node);
    this.#index.fill(UNKNOWN, 0, length);
  }

  #estimate(node: number): void {
    const reused = this.#allReused;
    const unreused = this.#allUnreused;
    const hazards = this.#hazards;
    const own = node * BIN_COUNT;
    const up = (this.#parents[node] as number) * BIN_COUNT;
    let atRisk = 0;
    for (let at = own; at < own + BIN_COUNT; at++) {
      atRisk += (reused[at] as number) + (unreused[at] as number);
    }
    for (let bin = 0; bin < BIN_COUNT; bin++) {
      const events = reused[own + bin] as number;
      const lost = unreused[own + bin] as number;
      // What is censored within a bin was at risk for half of it.
      const exposed = Math.max(0, atRisk - lost / 2);
      hazards[own + bin] =
        node === ROOT
          ? events / (exposed + 1)
          : (events + (hazards[up + bin] as number) * PARENT_WEIGHT) / (exposed + PARENT_WEIGHT);
      atRisk -= events + lost;
    }
  }

  #rank(node: number, age: number): number {
    const own = node * BIN_COUNT;
    let survival = 1;
    let reuses = 0;
    let occupancyMs = 0;
    let best = 0;
    for (let bin = age; bin < BIN_COUNT - 1; bin++) {
      const share = bin === age ? REST_OF_BIN : 1;
      const hazard = Math.min(HAZARD_MAX, (this.#hazards[own + bin] as number) * share);
      reuses += survival * hazard;
      occupancyMs += survival * (1 - hazard / 2) * (BIN_WIDTHS_MS[bin] as number) * share;
      survival *= 1 - hazard;
      best = Math.max(best, reuses / occupancyMs);
    }
    this.#index[own + age] = best;
    return this.#index[own + age] as number;
  }

  #addNode(key: number, parent: number): number {
    const node = this.#nodeCount;
    if (node === this.#parents.length) this.#grow();
    this.#nodeCount += 1;
    this.#nodeByKey.set(key, node);
    this.#parents[node] = parent;
    // Until the next rebuild it is ranked as its parent.
    const up = parent * BIN_COUNT;
    this.#hazards.copyWithin(node * BIN_COUNT, up, up + BIN_COUNT);
    return node;
  }

  #grow(): void {
    const length = 2 * this.#parents.length;
    const copyOf = <T extends Float64Array | Float32Array | Int32Array | Int16Array>(
      longer: T,
      old: T,
    ): T => {
      longer.set(old);
      return longer;
    };
    this.#parents = copyOf(new Int16Array(length), this.#parents);
    this.#reused = copyOf(new Float32Array(length * BIN_COUNT), this.#reused);
    this.#censored = copyOf(new Float32Array(length * BIN_COUNT), this.#censored);
    this.#live = copyOf(new Int32Array(length * BIN_COUNT), this.#live);
    this.#hazards = copyOf(new Float64Array(length * BIN_COUNT), this.#hazards);
    this.#index = copyOf(new Float32Array(length * BIN_COUNT).fill(UNKNOWN), this.#index);
    this.#allReused = new Float64Array(length * BIN_COUNT);
    this.#allUnreused = new Float64Array(length * BIN_COUNT);
  }
}
