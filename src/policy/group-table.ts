// Entries in groups, groups in buckets: the tables of the learnt policy. Knows sets of entries only as
// bits; what the sets mean, and when an entry moves, is the business of `learnt.ts`.
//
// A group is what one use touched last: a list of entries, deepest first. Groups have two orders:
// by creation (`older`, `newer`), and within the bucket of their class and bin of age. Each class has
// buckets in two planes: of groups that hold an entry of the ranked set, and of those that hold none.
//
// Bytes of a row: entry 4 + 4 + 4 + 4 + 2 = 18, group 4 + 3 × 4 + 8 + 4 × 4 + 2 + 2 + 1 + 1 = 46. A
// group of one entry thus takes 64 bytes.
import { BIN_COUNT, BIN_EDGES_MS, type ReuseLaw } from "./reuse-law.js";

export const NONE = -1;

/** Sets of entries. Each group has a cursor for each: its deepest entry of that set. */
export const SET_COUNT = 3;
/** Tracked: what the tier really holds. */
export const HELD = 0;
/** What a tier of this capacity would hold if the least recently used left, tails first. */
export const RECENT = 1;
/** What it would hold if the lowest ranked left, while the tier follows the other order. */
export const RANKED = 2;

/** Flags of an entry; bit `set` says that it is in that set. */
export const FRESH = 8;
export const LOOSE = 16;
export const CHAINED = 32;
/** Above this bit: how many different entries followed it, saturating. */
const FOLLOWER_SHIFT = 6;
export const FOLLOWERS_MAX = 8;

/** Blocks in one group; a longer chain becomes several. */
export const GROUP_SIZE_MAX = 2 ** 16 - 1;

const PLANES = 2;
/** How far back in its bucket a group looks for its place. */
const ORDER_STEPS_MAX = 16;

function longer<T extends Int32Array | Uint32Array | Uint16Array | Uint8Array | Float64Array>(
  made: T,
  old: T,
): T {
  made.set(old);
  return made;
}

export class GroupTable {
  // Entries.
  #shallower = new Int32Array(64);
  #deeper = new Int32Array(64);
  groups = new Int32Array(64).fill(NONE);
  bytes = new Uint32Array(64);
  flags = new Uint16Array(64);
  // Groups.
  #deepest = new Int32Array(64);
  #cursors = new Int32Array(SET_COUNT * 64);
  births = new Float64Array(64);
  #bucketNext = new Int32Array(64);
  #bucketPrevious = new Int32Array(64);
  #older = new Int32Array(64);
  #newer = new Int32Array(64);
  sizes = new Uint16Array(64);
  nodes = new Uint16Array(64);
  bins = new Uint8Array(64);
  /** Free for the owner's use. */
  marks = new Uint8Array(64);
  // Buckets: [node, plane, bin].
  #heads = new Int32Array(PLANES * BIN_COUNT * 64).fill(NONE);
  #tails = new Int32Array(PLANES * BIN_COUNT * 64).fill(NONE);
  /** Bit `bin`: the bucket is not empty. [node, plane] */
  #masks = new Int32Array(PLANES * 64);
  readonly #law: ReuseLaw;
  #ranked = RANKED;
  #freeGroup = NONE;
  #groupCount = 0;
  #oldest = NONE;
  #newest = NONE;
  #nextCrossingMs = Number.POSITIVE_INFINITY;
  #knownCount = 0;

  constructor(law: ReuseLaw) {
    this.#law = law;
  }

  /** Entries in groups. */
  get knownCount(): number {
    return this.#knownCount;
  }

  get oldest(): number {
    return this.#oldest;
  }

  get newest(): number {
    return this.#newest;
  }

  newerThan(group: number): number {
    return this.#newer[group] as number;
  }

  get byteLength(): number {
    return (
      this.groups.length * 18 + this.births.length * 46 + this.#masks.length * (4 + 8 * BIN_COUNT)
    );
  }

  // --- Entries -------------------------------------------------------------------------------------

  reserveEntry(index: number): void {
    const old = this.groups.length;
    if (index < old) return;
    const length = Math.max(index + 1, old + (old >> 1));
    this.#shallower = longer(new Int32Array(length), this.#shallower);
    this.#deeper = longer(new Int32Array(length), this.#deeper);
    this.groups = longer(new Int32Array(length).fill(NONE), this.groups);
    this.bytes = longer(new Uint32Array(length), this.bytes);
    this.flags = longer(new Uint16Array(length), this.flags);
  }

  /** Adds an entry to the newest group; it is the shallowest there. @param last The one before, or NONE. */
  append(index: number, group: number, last: number): void {
    this.groups[index] = group;
    this.#deeper[index] = last;
    this.#shallower[index] = NONE;
    if (last === NONE) this.#deepest[group] = index;
    else this.#shallower[last] = index;
    (this.sizes[group] as number) += 1;
    this.#knownCount += 1;
    const flags = this.flags[index] as number;
    for (let set = 0; set < SET_COUNT; set++) {
      const at = group * SET_COUNT + set;
      if (this.#cursors[at] === NONE && (flags & (1 << set)) !== 0) this.#cursors[at] = index;
    }
  }

  /** Takes an entry out of its group. The caller closes the group when that was the last. */
  unlink(index: number): void {
    const group = this.groups[index] as number;
    for (let set = 0; set < SET_COUNT; set++) {
      if (this.#cursors[group * SET_COUNT + set] === index) this.#moveCursor(group, set, index);
    }
    const deeper = this.#deeper[index] as number;
    const shallower = this.#shallower[index] as number;
    if (deeper === NONE) this.#deepest[group] = shallower;
    else this.#shallower[deeper] = shallower;
    if (shallower !== NONE) this.#deeper[shallower] = deeper;
    (this.sizes[group] as number) -= 1;
    this.groups[index] = NONE;
    this.#knownCount -= 1;
  }

  deepestOf(group: number): number {
    return this.#deepest[group] as number;
  }

  /** The deepest entry of a group that is in a set, or NONE. */
  cursorOf(group: number, set: number): number {
    return this.#cursors[group * SET_COUNT + set] as number;
  }

  /** The next shallower entry of the same group, whatever sets it is in, or NONE. */
  shallowerThan(index: number): number {
    return this.#shallower[index] as number;
  }

  /** Takes an entry out of a set. */
  drop(index: number, set: number): void {
    (this.flags[index] as number) &= ~(1 << set);
    const group = this.groups[index] as number;
    if (group === NONE || this.#cursors[group * SET_COUNT + set] !== index) return;
    this.#moveCursor(group, set, index);
    if (set === this.#ranked && this.cursorOf(group, set) === NONE) this.#changePlane(group, 0);
  }

  /** Notes that a new entry follows this one. @returns How many have so far, saturating. */
  addFollower(index: number): number {
    const count = this.followersOf(index);
    if (count < FOLLOWERS_MAX) (this.flags[index] as number) += 1 << FOLLOWER_SHIFT;
    return Math.min(FOLLOWERS_MAX, count + 1);
  }

  followersOf(index: number): number {
    return (this.flags[index] as number) >> FOLLOWER_SHIFT;
  }

  #moveCursor(group: number, set: number, from: number): void {
    let at = this.#shallower[from] as number;
    while (at !== NONE && ((this.flags[at] as number) & (1 << set)) === 0) {
      at = this.#shallower[at] as number;
    }
    this.#cursors[group * SET_COUNT + set] = at;
  }

  // --- Groups --------------------------------------------------------------------------------------

  /** An empty group, the newest one, in no bucket. */
  openGroup(nowMs: number): number {
    let group = this.#freeGroup;
    if (group === NONE) {
      group = this.#groupCount;
      this.#reserveGroup(group);
      this.#groupCount += 1;
    } else {
      this.#freeGroup = this.#newer[group] as number;
    }
    this.#deepest[group] = NONE;
    for (let set = 0; set < SET_COUNT; set++) this.#cursors[group * SET_COUNT + set] = NONE;
    this.births[group] = nowMs;
    this.sizes[group] = 0;
    this.bins[group] = 0;
    this.#older[group] = this.#newest;
    this.#newer[group] = NONE;
    if (this.#newest === NONE) this.#oldest = group;
    else this.#newer[this.#newest] = group;
    this.#newest = group;
    return group;
  }

  /** Puts a filled group into the bucket of its class; its age is zero from now on. */
  classify(group: number, node: number, nowMs: number): void {
    this.#reserveNode(node);
    this.nodes[group] = node;
    this.bins[group] = 0;
    this.births[group] = nowMs;
    this.#law.addLive(node, 0, this.sizes[group] as number);
    this.#enterBucket(group);
  }

  /** Takes a group out of its bucket, its blocks censored. */
  declassify(group: number): void {
    const size = this.sizes[group] as number;
    this.#law.noteCensored(this.nodes[group] as number, this.bins[group] as number, size);
    this.#leaveBucket(group, this.planeOf(group));
  }

  /** Gives up a group whose last entry was unlinked. It was in the plane of `plane`. */
  closeGroup(group: number, plane: number): void {
    this.#leaveBucket(group, plane);
    const older = this.#older[group] as number;
    const newer = this.#newer[group] as number;
    if (older === NONE) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === NONE) this.#newest = older;
    else this.#older[newer] = older;
    this.#newer[group] = this.#freeGroup;
    this.#freeGroup = group;
  }

  /** 1 when it holds an entry of the ranked set, else 0. */
  planeOf(group: number): number {
    return this.cursorOf(group, this.#ranked) === NONE ? 0 : 1;
  }

  /** After an entry was unlinked: brings the bucket of its group up to date. */
  settle(group: number, planeBefore: number): void {
    if (this.sizes[group] === 0) this.closeGroup(group, planeBefore);
    else if (planeBefore === 1 && this.planeOf(group) === 0) this.#changePlane(group, 0);
  }

  /** From now on, groups are ranked by their entries of this set. Cost: groups. */
  rankBy(set: number): void {
    for (let group = this.#oldest; group !== NONE; group = this.#newer[group] as number) {
      this.#leaveBucket(group, this.planeOf(group));
    }
    this.#ranked = set;
    // Birth order within a bucket: all groups are entered again, oldest first.
    for (let group = this.#oldest; group !== NONE; group = this.#newer[group] as number) {
      this.#enterBucket(group);
    }
  }

  /**
   * Makes a set of entries in groups equal to another one, or empty.
   *
   * @param source A set, or NONE.
   * @returns Bytes of its entries. Cost: known entries.
   */
  assignSet(set: number, source: number): number {
    let bytes = 0;
    for (let group = this.#oldest; group !== NONE; group = this.#newer[group] as number) {
      let cursor = NONE;
      for (let index = this.deepestOf(group); index !== NONE; index = this.shallowerThan(index)) {
        const flags = this.flags[index] as number;
        const bit = source === NONE ? 0 : (flags >> source) & 1;
        this.flags[index] = (flags & ~(1 << set)) | (bit << set);
        if (bit === 0) continue;
        if (cursor === NONE) cursor = index;
        bytes += this.bytes[index] as number;
      }
      this.#cursors[group * SET_COUNT + set] = cursor;
    }
    return bytes;
  }

  // --- Buckets -------------------------------------------------------------------------------------

  /** Moves groups on to the bins of their ages. */
  advance(nowMs: number): void {
    if (nowMs < this.#nextCrossingMs) return;
    this.#nextCrossingMs = Number.POSITIVE_INFINITY;
    for (let row = 0; row < PLANES * this.#law.nodeCount; row++) {
      let mask = this.#masks[row] ?? 0;
      // From the oldest bin down, so that buckets stay in order of birth.
      while (mask !== 0) {
        const bin = 31 - Math.clz32(mask);
        mask &= ~(1 << bin);
        this.#advanceBucket(row * BIN_COUNT + bin, bin, nowMs);
      }
    }
  }

  /**
   * The bucket of the ranked plane that follows another one in rank, lowest first, or NONE.
   *
   * @param after The bucket that a walk has just left; NONE to begin one.
   */
  nextBucket(after: number): number {
    const law = this.#law;
    const floor = after === NONE ? 0 : this.#rankOf(after);
    let best = NONE;
    let bestRank = Number.POSITIVE_INFINITY;
    for (let node = 0; node < law.nodeCount; node++) {
      let mask = this.#masks[node * PLANES + 1] ?? 0;
      while (mask !== 0) {
        const bin = 31 - Math.clz32(mask);
        mask &= ~(1 << bin);
        const rank = law.indexOf(node, bin);
        if (rank < floor || rank >= bestRank) continue;
        const bucket = (node * PLANES + 1) * BIN_COUNT + bin;
        if (rank === floor && bucket <= after) continue;
        best = bucket;
        bestRank = rank;
      }
    }
    return best;
  }

  #rankOf(bucket: number): number {
    const row = Math.floor(bucket / BIN_COUNT);
    return this.#law.indexOf(row >> 1, bucket % BIN_COUNT);
  }

  headOf(bucket: number): number {
    return this.#heads[bucket] as number;
  }

  nextInBucket(group: number): number {
    return this.#bucketNext[group] as number;
  }

  #advanceBucket(bucket: number, bin: number, nowMs: number): void {
    const edgeMs = BIN_EDGES_MS[bin + 1] as number;
    for (;;) {
      const group = this.#heads[bucket] as number;
      if (group === NONE) return;
      const crossingMs = (this.births[group] as number) + edgeMs;
      if (crossingMs > nowMs) {
        this.#nextCrossingMs = Math.min(this.#nextCrossingMs, crossingMs);
        return;
      }
      const plane = this.planeOf(group);
      const ageMs = nowMs - (this.births[group] as number);
      let target = bin + 1;
      while (ageMs >= (BIN_EDGES_MS[target + 1] as number)) target += 1;
      const size = this.sizes[group] as number;
      const node = this.nodes[group] as number;
      this.#leaveBucket(group, plane);
      this.#law.addLive(node, bin, -size);
      this.#law.addLive(node, target, size);
      this.bins[group] = target;
      this.#enterBucket(group);
    }
  }

  #changePlane(group: number, plane: number): void {
    this.#leaveBucket(group, 1 - plane);
    this.#enterBucket(group);
  }

  #enterBucket(group: number): void {
    const row = (this.nodes[group] as number) * PLANES + this.planeOf(group);
    const bin = this.bins[group] as number;
    const bucket = row * BIN_COUNT + bin;
    // Groups come in order of birth, but for those that change plane; far ones are let be: they move
    // on to their bin a little late.
    let after = this.#tails[bucket] as number;
    const birth = this.births[group] as number;
    for (let step = 0; step < ORDER_STEPS_MAX && after !== NONE; step++) {
      if ((this.births[after] as number) <= birth) break;
      after = this.#bucketPrevious[after] as number;
    }
    const before =
      after === NONE ? (this.#heads[bucket] as number) : (this.#bucketNext[after] as number);
    this.#bucketPrevious[group] = after;
    this.#bucketNext[group] = before;
    if (after === NONE) this.#heads[bucket] = group;
    else this.#bucketNext[after] = group;
    if (before === NONE) this.#tails[bucket] = group;
    else this.#bucketPrevious[before] = group;
    (this.#masks[row] as number) |= 1 << bin;
    this.#nextCrossingMs = Math.min(
      this.#nextCrossingMs,
      birth + (BIN_EDGES_MS[bin + 1] as number),
    );
  }

  #leaveBucket(group: number, plane: number): void {
    const row = (this.nodes[group] as number) * PLANES + plane;
    const bin = this.bins[group] as number;
    const bucket = row * BIN_COUNT + bin;
    const previous = this.#bucketPrevious[group] as number;
    const next = this.#bucketNext[group] as number;
    if (previous === NONE) this.#heads[bucket] = next;
    else this.#bucketNext[previous] = next;
    if (next === NONE) this.#tails[bucket] = previous;
    else this.#bucketPrevious[next] = previous;
    if (this.#heads[bucket] === NONE) (this.#masks[row] as number) &= ~(1 << bin);
  }

  #reserveGroup(group: number): void {
    const old = this.births.length;
    if (group < old) return;
    const length = old + (old >> 1);
    this.#deepest = longer(new Int32Array(length), this.#deepest);
    this.#cursors = longer(new Int32Array(SET_COUNT * length), this.#cursors);
    this.births = longer(new Float64Array(length), this.births);
    this.#bucketNext = longer(new Int32Array(length), this.#bucketNext);
    this.#bucketPrevious = longer(new Int32Array(length), this.#bucketPrevious);
    this.#older = longer(new Int32Array(length), this.#older);
    this.#newer = longer(new Int32Array(length), this.#newer);
    this.sizes = longer(new Uint16Array(length), this.sizes);
    this.nodes = longer(new Uint16Array(length), this.nodes);
    this.bins = longer(new Uint8Array(length), this.bins);
    this.marks = longer(new Uint8Array(length), this.marks);
  }

  #reserveNode(node: number): void {
    const old = this.#masks.length / PLANES;
    if (node < old) return;
    const length = 2 * Math.max(old, node);
    this.#heads = longer(new Int32Array(PLANES * BIN_COUNT * length).fill(NONE), this.#heads);
    this.#tails = longer(new Int32Array(PLANES * BIN_COUNT * length).fill(NONE), this.#tails);
    this.#masks = longer(new Int32Array(PLANES * length), this.#masks);
  }
}
