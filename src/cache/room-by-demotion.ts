// Makes room for a request that may wait: demotes in the policy's order, and goes on with a hold on what
// becomes free when others take it or nothing is left to demote. Sees seams only.
import type { Clock } from "../clock.js";
import type { OutOfMemoryError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Budget } from "../memory/budget.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import { encourageCollection } from "../util/collection.js";
import type { Disposables } from "./disposables.js";
import type { MemorySwapper } from "./memory-swapper.js";
import { REMEDIES_BEFORE_VICTIMS } from "./remedies.js";
import type { RoomHold, RoomHolds, RoomHoldsOptions } from "./room-hold.js";
import type { TensorRecord } from "./tensor-record.js";
import type { Victims } from "./victims.js";

export interface RoomByDemotionOptions extends RoomHoldsOptions {
  readonly budget: Budget;
  readonly shelf: ArenaShelf;
  readonly swapper: MemorySwapper;
  readonly disposables: Disposables;
  readonly clock: Clock;
  /** Name of the tier that victims go to, for advice. */
  readonly tierName: string;
  /** Demotions reach the device before the hot copy goes. */
  readonly isDurable: boolean;
  readonly victims: Victims;
}

/** Who needs room, and how it is told. */
export interface RoomRequest {
  readonly pool: MemoryPool;
  readonly bytes: number;
  /** Looks for a block without waiting and without victims. @returns A slot, or 0. */
  readonly tryPlace: () => number;
  /** Whether room in another pool's arenas is of use. */
  readonly canHelp: (record: TensorRecord) => boolean;
  readonly refusal: (remediesTried: readonly string[], advice: string) => OutOfMemoryError;
}

/** Waits for others, and for the engine's collector: 1, 2, 4, … milliseconds. */
const PATIENCE_ROUNDS = 9;
/** So long it waits for pins to end, also where nobody seems to do anything. */
const SHORT_PINS_ROUNDS = 4;
/** Whoever has made room for this many arenas and has none is robbed by others. */
const ROBBED_ARENAS = 2;
/** Whoever has demoted the whole heap this often is refused. */
const HEAPS_DEMOTED_MAX = 2;

export class RoomByDemotion {
  readonly #options: RoomByDemotionOptions;
  #holds: RoomHolds | null = null;

  constructor(options: RoomByDemotionOptions) {
    this.#options = options;
  }

  /**
   * Demotes in the policy's order, as weighed by costs, clean or dirty, until the request is placed. Whoever
   * has made room that others have taken, and whoever would be refused, waits for a hold and goes on with it.
   *
   * @returns A slot, in the turn in which it was found.
   * @throws {OutOfMemoryError} What is left is pinned or anonymous, or cannot be written, also with a hold.
   */
  async make(request: RoomRequest): Promise<number> {
    const { pool, bytes, tryPlace, refusal } = request;
    const { budget, clock, swapper, tierName } = this.#options;
    const remedies: string[] = [...REMEDIES_BEFORE_VICTIMS];
    const passed = new Set<number>();
    let isFull = false;
    let hold: RoomHold | null = null;
    let { placedBytes } = swapper;
    let leavingBytes = 0;
    try {
      for (let round = 0, slot = 0; ; slot = hold === null ? tryPlace() : hold.lift(tryPlace)) {
        if (slot !== 0) return slot;
        // What is being copied is next to leave, and nothing must leave before it. Who has a hold is first.
        const before = swapper.earlyCopies.underWay ?? (hold === null ? this.#held : null);
        if (before !== null) {
          await before;
          continue;
        }
        const isRobbed = leavingBytes > ROBBED_ARENAS * pool.arenaBytesFor(bytes);
        if (isRobbed && hold === null) {
          hold = await this.#hold(pool, bytes);
          leavingBytes = 0;
          continue;
        }
        const isCollecting = this.#dropSparesFor(pool, bytes) || budget.retiredBytes > 0;
        const isWaiting = isCollecting && round < PATIENCE_ROUNDS;
        const mayDemote = leavingBytes <= HEAPS_DEMOTED_MAX * budget.arenaLimitBytes;
        const isLooking = !isWaiting && mayDemote;
        const victim = isLooking ? this.#victim(request, passed, isFull, hold) : null;
        if (victim !== null) {
          if (!remedies.includes("demote")) remedies.push("demote");
          leavingBytes += victim.byteLength;
          const outcome = await this.#giveUp(victim, isFull);
          // What leaves without a write still can.
          if (outcome === "no-space") isFull = true;
          // Somebody uses it. Look at others first.
          if (outcome === "vetoed") passed.add(victim.index);
          continue;
        }
        if (isFull && !isWaiting) {
          const advice = `The ${tierName} tier is full or switched off: enlarge its budget or free tensors.`;
          throw refusal(remedies, advice);
        }
        const { progressing } = swapper.transfers;
        if (progressing !== null) {
          await progressing;
          continue;
        }
        if (hold === null) {
          hold = await this.#hold(pool, bytes);
          continue;
        }
        // While others go on, what they use at this moment they give back.
        const hasMoved =
          hold.look() ||
          round < SHORT_PINS_ROUNDS ||
          passed.size > 0 ||
          swapper.placedBytes !== placedBytes;
        if (!(isCollecting || (hasMoved && mayDemote)) || round >= PATIENCE_ROUNDS) {
          const advice = isCollecting
            ? "Dropped arenas count until the engine has collected them: try again later."
            : "Everything left is pinned or anonymous: unpin or free tensors.";
          throw refusal(remedies, advice);
        }
        if (isCollecting) encourageCollection();
        passed.clear();
        placedBytes = swapper.placedBytes;
        await clock.sleep(2 ** round);
        round += 1;
      }
    } finally {
      hold?.end();
    }
  }

  get #held(): Promise<void> | null {
    return this.#holds?.ended ?? null;
  }

  async #hold(pool: MemoryPool, bytes: number): Promise<RoomHold> {
    const { RoomHolds } = await import("./room-hold.js");
    this.#holds ??= new RoomHolds(this.#options);
    return this.#holds.take(pool, bytes);
  }

  async #giveUp(victim: TensorRecord, isFull: boolean): Promise<"left" | "vetoed" | "no-space"> {
    const { disposables, swapper, victims, isDurable } = this.#options;
    if (isFull ? !victim.isClean : !disposables.admits(victim)) {
      victims.drop(victim);
      return "left";
    }
    const outcome = await swapper.demote(victim, { durable: isDurable });
    if (outcome === "no-space") {
      if (await disposables.makeColdRoom(victim.byteLength)) return "left";
      if (!disposables.canDrop(victim)) return "no-space";
      victims.drop(victim);
      return "left";
    }
    if (outcome === "demoted" && !victim.isFreed) victims.left(victim);
    return outcome === "demoted" ? "left" : outcome;
  }

  /**
   * Gives up spares of the wrong length where that will make room for the arena that is wanted, once
   * they are collected.
   */
  #dropSparesFor(pool: MemoryPool, bytes: number): boolean {
    const { budget, shelf } = this.#options;
    const missingBytes = budget.usedBytes + pool.arenaBytesFor(bytes) - budget.limitBytes;
    if (pool.arenaBytesFor(bytes) > pool.roomBytes) return false;
    return shelf.dropSpares(missingBytes) > 0;
  }

  /**
   * The next tensor to demote: of the arena that a hold empties; else what seems over, whichever pool has it; else
   * of the pool that needs room, else of any.
   *
   * @param isFull Nothing can be written: only what is clean or may be dropped leaves.
   */
  #victim(
    { pool, canHelp }: RoomRequest,
    passed: ReadonlySet<number>,
    isFull: boolean,
    hold: RoomHold | null,
  ): TensorRecord | null {
    const { disposables, swapper, victims } = this.#options;
    let other: TensorRecord | null = null;
    const mayLeave = (record: TensorRecord) => {
      if (passed.has(record.index) || !swapper.canDemote(record)) return false;
      if (!canHelp(record)) return false;
      return !isFull || record.isClean || disposables.canDrop(record);
    };
    const held = hold?.next(mayLeave, (isIn) =>
      victims.next((record) => mayLeave(record) && isIn(record)),
    );
    if (hold?.isEmptying === true) return held ?? null;
    const over = victims.nextOver(pool, mayLeave);
    if (over !== null) return over;
    const own = victims.nextInOrder((record) => {
      if (!mayLeave(record)) return false;
      if (record.pool === pool) return true;
      other ??= record;
      return false;
    });
    return own ?? other;
  }
}
