// The learnt group policy: keeps what is likely to be used again soon, by what became of earlier uses
// like it, and follows the order of least recent use, tails first, wherever that does better.
//
// Each use of a chain, or of an entry on its own, makes a group of what it touched. Groups are
// classed by what is known about the use; `reuse-law.ts` says what an age is worth in each class. The
// lowest worth leaves first, deepest entry first. Beside what the tier really holds, the policy keeps
// account, on indexes alone, of what it would hold under the other order, and compares their hits.
//
// What left is remembered within a limit, since a policy that forgot it would learn that nothing
// returns. An entry that is used on its own although it belongs to a chain waits for its chain: it
// is *loose*, and loose entries leave last.
import type { Clock } from "../clock.js";
import type { ChainHints, EvictionPolicy, PolicyEntry } from "./eviction-policy.js";
import {
  CHAINED,
  FOLLOWERS_MAX,
  FRESH,
  GROUP_SIZE_MAX,
  GroupTable,
  HELD,
  LOOSE,
  NONE,
  RANKED,
  RECENT,
} from "./group-table.js";
import type { LearntStats } from "./learnt-stats.js";
import { OrderContest } from "./order-contest.js";
import { ReuseLaw } from "./reuse-law.js";
import { SampledTime } from "./sampled-time.js";
import { featuresOf, gapFeature, LEFT_OVER, TURN_MAX } from "./use-features.js";

export interface LearntOptions {
  readonly clock: Clock;
  /** Entries remembered per tracked entry, the tracked ones included. Default: 16. */
  readonly memoryRatio?: number;
}

export interface LearntPolicy extends EvictionPolicy {
  stats(): LearntStats;
}

/** Uses between two rebuilds of the law: a share of all uses, within bounds. */
const REBUILD_USES_MIN = 50;
const REBUILD_USES_MAX = 1000;
/** Groups looked at per use to find some that can be forgotten. */
const FORGET_STEPS = 64;

/** @returns The default policy. Cost per use: its blocks, and classes whose groups grew older. */
export function learntPolicy(options: LearntOptions): LearntPolicy {
  return new Learnt(options);
}

class Learnt implements LearntPolicy {
  readonly name = "learnt";
  readonly #clock: Clock;
  readonly #memoryRatio: number;
  readonly #law = new ReuseLaw();
  readonly #table = new GroupTable(this.#law);
  #nowMs = 0;
  #heldCount = 0;
  #heldBytes = 0;
  #recentBytes = 0;
  #rankedBytes = 0;
  #isRanking = false;
  #switchCount = 0;
  #useCount = 0;
  #nextRebuild = 20;
  readonly #useTime: SampledTime;
  #hitsGained = 0;
  /** Oldest group that may hold an entry of the set. */
  #oldestHeld = NONE;
  #oldestRecent = NONE;
  #oldestKnown = NONE;
  readonly #contest = new OrderContest();
  #loose: number[] = [];
  #longestChain = 0;
  readonly #single = new Int32Array(1);

  constructor({ clock, memoryRatio = 16 }: LearntOptions) {
    this.#clock = clock;
    this.#useTime = new SampledTime(clock);
    this.#memoryRatio = memoryRatio;
  }

  track({ index, bytes }: PolicyEntry): void {
    const table = this.#table;
    table.reserveEntry(index);
    if (table.groups[index] !== NONE) this.#reweigh(index, bytes);
    table.bytes[index] = bytes;
    (table.flags[index] as number) |= (1 << HELD) | FRESH;
    this.#heldCount += 1;
    this.#heldBytes += bytes;
    this.touch(index);
  }

  touch(index: number): void {
    const flags = this.#table.flags[index] as number;
    const isOfChain = (flags & CHAINED) !== 0 || this.#table.groups[index] === NONE;
    if (this.#longestChain > 0 && isOfChain) {
      this.#loosen(index);
      return;
    }
    this.#single[0] = index;
    this.#use(this.#single, undefined);
  }

  touchChain(chain: ArrayLike<number>, hints?: ChainHints): void {
    if (chain.length === 0) return;
    this.#longestChain = Math.max(this.#longestChain, chain.length);
    this.#use(chain, hints);
  }

  untrack(index: number): void {
    const table = this.#table;
    table.drop(index, HELD);
    (table.flags[index] as number) &= ~(FRESH | LOOSE);
    this.#heldCount -= 1;
    this.#heldBytes -= table.bytes[index] as number;
  }

  forget(index: number): void {
    const table = this.#table;
    if (index >= table.flags.length) return;
    const flags = table.flags[index] as number;
    if ((flags & (1 << HELD)) !== 0) this.untrack(index);
    if ((flags & (1 << RECENT)) !== 0) this.#recentBytes -= table.bytes[index] as number;
    if ((flags & (1 << RANKED)) !== 0) this.#rankedBytes -= table.bytes[index] as number;
    const group = table.groups[index] as number;
    if (group !== NONE) this.#takeOut(index, group);
    table.flags[index] = 0;
  }

  *candidates(): Generator<number> {
    const table = this.#table;
    if (this.#isRanking) {
      this.#advance();
      for (let bucket = table.nextBucket(NONE); bucket !== NONE; ) {
        for (let group = table.headOf(bucket); group !== NONE; ) {
          const next = table.nextInBucket(group);
          yield* this.#heldOf(group);
          group = next;
        }
        bucket = table.nextBucket(bucket);
      }
    } else {
      for (let group = this.#firstHeld(); group !== NONE; group = table.newerThan(group)) {
        yield* this.#heldOf(group);
      }
    }
    yield* this.#heldLoose();
  }

  stats(): LearntStats {
    const { byteLength, knownCount } = this.#table;
    return {
      isRanking: this.#isRanking,
      switchCount: this.#switchCount,
      useCount: this.#useCount,
      knownCount,
      classCount: this.#law.nodeCount,
      byteLength: byteLength + this.#law.byteLength,
      spentMs: this.#useTime.spentMs,
      hitsGained: this.#hitsGained,
    };
  }

  // --- Candidates ----------------------------------------------------------------------------------

  #firstHeld(): number {
    const table = this.#table;
    let group = this.#oldestHeld === NONE ? table.oldest : this.#oldestHeld;
    while (group !== NONE && table.cursorOf(group, HELD) === NONE) group = table.newerThan(group);
    this.#oldestHeld = group;
    return group;
  }

  *#heldOf(group: number): Generator<number> {
    const table = this.#table;
    for (let index = table.cursorOf(group, HELD); index !== NONE; ) {
      const next = table.shallowerThan(index);
      const flags = table.flags[index] as number;
      if ((flags & (1 << HELD)) !== 0 && (flags & LOOSE) === 0) yield index;
      index = next;
    }
  }

  *#heldLoose(): Generator<number> {
    for (const index of new Set(this.#loose)) {
      const flags = this.#table.flags[index] as number;
      if ((flags & LOOSE) !== 0 && (flags & (1 << HELD)) !== 0) yield index;
    }
  }

  // --- Loose entries -------------------------------------------------------------------------------

  #loosen(index: number): void {
    const { flags } = this.#table;
    if (((flags[index] as number) & LOOSE) === 0) {
      (flags[index] as number) |= LOOSE;
      this.#loose.push(index);
    }
    if (this.#loose.length <= 4 * this.#longestChain) return;
    // No chain came for the older half: they were used on their own.
    const half = this.#loose.splice(0, this.#loose.length >> 1);
    for (const old of half) {
      if (((flags[old] as number) & LOOSE) === 0) continue;
      this.#single[0] = old;
      this.#use(this.#single, undefined);
    }
  }

  // --- Uses ----------------------------------------------------------------------------------------

  #use(chain: ArrayLike<number>, hints: ChainHints | undefined): void {
    this.#useCount += 1;
    this.#useTime.begin();
    this.#advance();
    this.#count(chain);
    const law = this.#law;
    const table = this.#table;
    const { length } = chain;
    let knownCount = 0;
    while (knownCount < length && table.groups[chain[knownCount] as number] !== NONE)
      knownCount += 1;
    let continued = NONE;
    let turn = 1;
    let gap = 0;
    if (knownCount > 0) {
      const deepest = chain[knownCount - 1] as number;
      const followers =
        knownCount < length ? table.addFollower(deepest) : table.followersOf(deepest);
      if (followers < FOLLOWERS_MAX) {
        continued = table.groups[deepest] as number;
        turn = Math.min(TURN_MAX, 1 + (table.marks[continued] as number));
        const gapMs = this.#nowMs - (table.births[continued] as number);
        gap = gapFeature(gapMs);
      }
    }
    if (hints?.turn !== undefined) turn = Math.min(TURN_MAX, Math.max(1, hints.turn));
    const freshCount = hints?.newBlocks ?? length - knownCount;
    const node = law.classOf(featuresOf({ turn, freshCount, gap }, hints));
    this.#regroup(chain, node, turn, continued);
    this.#trim();
    this.#judge();
    if (this.#useCount >= this.#nextRebuild) {
      law.rebuild();
      const share = Math.min(REBUILD_USES_MAX, this.#useCount >> 4);
      this.#nextRebuild = this.#useCount + Math.max(REBUILD_USES_MIN, share);
    }
    this.#forgetOldest();
    this.#useTime.end();
  }

  /** Moves the chain into a new group, and settles what is left of the old ones. */
  #regroup(chain: ArrayLike<number>, node: number, turn: number, continued: number): void {
    const law = this.#law;
    const table = this.#table;
    let isLeftOver = false;
    let group = table.openGroup(this.#nowMs);
    let last = NONE;
    let old = NONE;
    let oldPlane = 0;
    let oldCount = 0;
    const settle = () => {
      if (old === NONE) return;
      law.noteReuse(table.nodes[old] as number, table.bins[old] as number, oldCount);
      if (old === continued) isLeftOver = table.sizes[old] !== 0;
      if (table.sizes[old] === 0) this.#passOver(old);
      table.settle(old, oldPlane);
    };
    const chained = chain.length > 1 ? CHAINED : 0;
    for (let depth = chain.length - 1; depth >= 0; depth--) {
      const index = chain[depth] as number;
      const previous = table.groups[index] as number;
      if (previous !== old) {
        settle();
        old = previous;
        oldCount = 0;
        if (old !== NONE) oldPlane = table.planeOf(old);
      }
      if (previous !== NONE) {
        table.unlink(index);
        oldCount += 1;
      }
      this.#admit(index, chained);
      if (table.sizes[group] === GROUP_SIZE_MAX) {
        table.marks[group] = turn;
        table.classify(group, node, this.#nowMs);
        group = table.openGroup(this.#nowMs);
        last = NONE;
      }
      table.append(index, group, last);
      last = index;
    }
    settle();
    table.marks[group] = turn;
    table.classify(group, node, this.#nowMs);
    if (isLeftOver) {
      table.declassify(continued);
      table.classify(continued, law.classOf(LEFT_OVER), this.#nowMs);
    }
  }

  /** A used entry is in both sets that are kept on indexes alone. */
  #admit(index: number, chained: number): void {
    const table = this.#table;
    const flags = table.flags[index] as number;
    const bytes = table.bytes[index] as number;
    if ((flags & (1 << RECENT)) === 0) this.#recentBytes += bytes;
    let added = 1 << RECENT;
    if (!this.#isRanking) {
      if ((flags & (1 << RANKED)) === 0) this.#rankedBytes += bytes;
      added |= 1 << RANKED;
    }
    table.flags[index] = (flags & ~(FRESH | LOOSE)) | added | chained;
  }

  /** The two sets on indexes hold no more than the tier does. */
  #trim(): void {
    const table = this.#table;
    const limit = this.#heldBytes;
    let group = this.#oldestRecent === NONE ? table.oldest : this.#oldestRecent;
    while (this.#recentBytes > limit && group !== NONE) {
      const index = table.cursorOf(group, RECENT);
      if (index === NONE) {
        group = table.newerThan(group);
        continue;
      }
      table.drop(index, RECENT);
      this.#recentBytes -= table.bytes[index] as number;
    }
    this.#oldestRecent = group;
    if (this.#isRanking) return;
    const { newest } = table;
    let bucket = NONE;
    while (this.#rankedBytes > limit) {
      bucket = table.nextBucket(bucket);
      if (bucket === NONE) break;
      for (let each = table.headOf(bucket); each !== NONE && this.#rankedBytes > limit; ) {
        const next = table.nextInBucket(each);
        if (each !== newest) this.#trimRanked(each, limit);
        each = next;
      }
    }
    if (this.#rankedBytes > limit) this.#trimRanked(newest, limit);
  }

  #trimRanked(group: number, limit: number): void {
    const table = this.#table;
    while (this.#rankedBytes > limit) {
      const index = table.cursorOf(group, RANKED);
      if (index === NONE) return;
      this.#rankedBytes -= table.bytes[index] as number;
      table.drop(index, RANKED);
    }
  }

  // --- Which order leads ---------------------------------------------------------------------------

  #count(chain: ArrayLike<number>): void {
    const { flags } = this.#table;
    const { length } = chain;
    const lead = (mask: number, value: number) => {
      let depth = 0;
      while (depth < length && ((flags[chain[depth] as number] as number) & mask) === value)
        depth += 1;
      return depth;
    };
    const recent = lead(1 << RECENT, 1 << RECENT);
    const held = lead((1 << HELD) | FRESH, 1 << HELD);
    const ranked = this.#isRanking ? held : lead(1 << RANKED, 1 << RANKED);
    const hits = { held, recent, ranked };
    if (this.#isRanking) this.#hitsGained += held - recent;
    this.#contest.count(length, hits, this.#heldCount);
  }

  #judge(): void {
    if (this.#contest.isOver(this.#isRanking)) this.#changeOrder();
  }

  #changeOrder(): void {
    const table = this.#table;
    this.#switchCount += 1;
    this.#isRanking = !this.#isRanking;
    if (this.#isRanking) {
      table.rankBy(HELD);
      this.#rankedBytes = table.assignSet(RANKED, NONE);
    } else {
      this.#rankedBytes = table.assignSet(RANKED, HELD);
      table.rankBy(RANKED);
    }
    this.#oldestHeld = NONE;
  }

  // --- Memory --------------------------------------------------------------------------------------

  #advance(): void {
    this.#nowMs = Math.max(this.#nowMs, this.#clock.monotonicMs());
    this.#table.advance(this.#nowMs);
  }

  /** Gives up the oldest groups of which nothing is held, while too much is remembered. */
  #forgetOldest(): void {
    const table = this.#table;
    const limit = this.#memoryRatio * Math.max(64, this.#heldCount);
    let group = this.#oldestKnown === NONE ? table.oldest : this.#oldestKnown;
    for (let step = 0; step < FORGET_STEPS && table.knownCount > limit; step++) {
      if (group === NONE) group = table.oldest;
      if (group === NONE) break;
      const next = table.newerThan(group);
      if (this.#isNowhere(group)) this.#closeCensored(group);
      group = next;
    }
    this.#oldestKnown = group;
  }

  #isNowhere(group: number): boolean {
    const table = this.#table;
    for (const set of [HELD, RECENT, RANKED]) {
      if (table.cursorOf(group, set) !== NONE) return false;
    }
    return true;
  }

  #closeCensored(group: number): void {
    const table = this.#table;
    for (let index = table.deepestOf(group); index !== NONE; ) {
      const next = table.shallowerThan(index);
      (table.flags[index] as number) &= (1 << HELD) | FRESH | LOOSE;
      this.#takeOut(index, group);
      index = next;
    }
  }

  #takeOut(index: number, group: number): void {
    const table = this.#table;
    const plane = table.planeOf(group);
    this.#law.noteCensored(table.nodes[group] as number, table.bins[group] as number, 1);
    table.unlink(index);
    if (table.sizes[group] === 0) this.#passOver(group);
    table.settle(group, plane);
  }

  /** A group is about to be closed: nothing may point to it. */
  #passOver(group: number): void {
    const next = this.#table.newerThan(group);
    if (this.#oldestHeld === group) this.#oldestHeld = next;
    if (this.#oldestRecent === group) this.#oldestRecent = next;
    if (this.#oldestKnown === group) this.#oldestKnown = next;
  }

  #reweigh(index: number, bytes: number): void {
    const { flags, bytes: known } = this.#table;
    const more = bytes - (known[index] as number);
    if (((flags[index] as number) & (1 << RECENT)) !== 0) this.#recentBytes += more;
    if (((flags[index] as number) & (1 << RANKED)) !== 0) this.#rankedBytes += more;
  }
}
