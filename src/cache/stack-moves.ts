// Carries out what moves inside a stack of tiers: demotions that make room, promotions, deletions.
// Keeps the invariants of tier-stack.ts at every await, so that a crash or a fault may come anywhere.
import type { Clock } from "../clock.js";
import type { Feature } from "../stats/feature.js";
import type { ObjectHints, TierCapabilities, TierWriter } from "../tier/tier.js";
import type { DeletionLog } from "./deletion-log.js";
import type { ObjectMover } from "./object-mover.js";
import { keepsPromise, type ObjectTable } from "./object-table.js";
import { isTierFailure, type StackObject, type TierLevel } from "./tier-level.js";
import type { TierManager } from "./tier-manager.js";

export interface StackMovesOptions {
  /** Highest first. */
  readonly levels: readonly TierLevel[];
  readonly capabilities: TierCapabilities;
  readonly objects: ObjectTable;
  readonly deletions: DeletionLog;
  readonly manager: TierManager;
  readonly mover: ObjectMover;
  readonly clock: Clock;
  /** undefined: copies upwards are always made. */
  readonly placement: Feature | undefined;
  /** Told about what is no tier's failure. */
  readonly onFailure: (error: Error) => void;
}

export class StackMoves {
  readonly #levels: readonly TierLevel[];
  readonly #capabilities: TierCapabilities;
  readonly #objects: ObjectTable;
  readonly #deletions: DeletionLog;
  readonly #manager: TierManager;
  readonly #mover: ObjectMover;
  readonly #clock: Clock;
  readonly #placement: Feature | undefined;
  readonly #onFailure: (error: Error) => void;
  readonly #background = new Set<Promise<unknown>>();
  readonly #emptying = new Set<TierLevel>();

  constructor(options: StackMovesOptions) {
    this.#levels = options.levels;
    this.#capabilities = options.capabilities;
    this.#objects = options.objects;
    this.#deletions = options.deletions;
    this.#manager = options.manager;
    this.#mover = options.mover;
    this.#clock = options.clock;
    this.#placement = options.placement;
    this.#onFailure = options.onFailure;
  }

  /** Starts an object in a level; when that is full, its coldest objects go down first. */
  async beginAt(
    level: TierLevel,
    object: StackObject,
    byteLength: number,
    hints: ObjectHints,
  ): Promise<TierWriter | "no-space"> {
    await this.#exhume(object, level);
    // Ends: each further round has moved an object out.
    for (;;) {
      const writer = await level.run(() => level.tier.begin(object.key, byteLength, hints));
      if (writer !== "no-space") return writer;
      if (!(await this.#makeRoom(level, byteLength))) return "no-space";
    }
  }

  /**
   * Moves what lies under the key in persistent levels above `level` down to it, so that what is
   * committed there next is not below something older.
   *
   * @param object In use by the caller alone.
   * @returns false when that cannot be done.
   */
  async clearAbove(object: StackObject, level: TierLevel): Promise<boolean> {
    for (const upper of this.#levels.slice(0, level.priority)) {
      if (!upper.isPersistent) continue;
      if (!upper.isOpen) return false;
      if (((object.held | object.stale) & upper.bit) === 0) continue;
      if ((object.held & upper.bit) !== 0) {
        const isBelow = object.held & ~((level.bit << 1) - 1);
        const hasCopy = (object.held & level.bit) !== 0 || isBelow !== 0;
        await this.#mover.describe(object, upper);
        if (!hasCopy && !(await this.#copy(object, upper, level, true))) return false;
      }
      if ((await this.deleteFrom(object, [upper])) !== null) return false;
    }
    return true;
  }

  /**
   * Deletes what these levels hold under the key, the lowest first. What cannot be reached is never
   * read again. Where that may be something older, everything above it stays: INV-STACK-2.
   *
   * @returns The first failure, or null.
   */
  async deleteFrom(object: StackObject, levels: readonly TierLevel[]): Promise<unknown> {
    let failure: unknown = null;
    for (const level of [...levels].reverse()) {
      if (level.isOpen && ((object.held | object.stale) & level.bit) === 0) continue;
      try {
        if (!level.isOpen) throw level.unavailable();
        await level.run(() => level.tier.delete(object.key));
        await this.#deletions.confirm(object, level);
        level.drop(object);
      } catch (error) {
        if (!isTierFailure(error)) throw error;
        failure ??= error;
        if (level.isOpen && (object.stale & level.bit) !== 0) return failure;
        level.distrust(object);
      }
    }
    return failure;
  }

  /**
   * Deletes an object from every level, the lowest first. What a level cannot be told is written down
   * before anything above it goes, and then counts as done.
   *
   * @param object In use by the caller alone.
   * @returns null, or the failure: nothing above the level that failed has been touched, and the object is
   *   condemned.
   */
  async bury(object: StackObject): Promise<unknown> {
    this.#settlePromotion(object);
    for (const level of [...this.#levels].reverse()) {
      if (level.isOpen && ((object.held | object.stale) & level.bit) === 0) continue;
      const failure = await this.deleteFrom(object, [level]);
      if (failure === null || (await this.#deletions.note(object, level))) continue;
      object.isCondemned = true;
      return failure;
    }
    object.isCondemned = false;
    return null;
  }

  /** Before an object is looked for. @throws {TierError} Its deletion fails still. */
  async makeUpFor(object: StackObject): Promise<void> {
    const failure = object.isCondemned ? await this.bury(object) : null;
    if (failure !== null) throw failure;
  }

  /** Tries the deletions again that levels could not be told of, in the background. */
  retryDeletions(): void {
    for (const object of this.#objects.unburied) {
      if (object.userCount > 0 || object.work !== null) continue;
      this.#inBackground(object, async () => {
        if (object.isCondemned) await this.bury(object);
        else await this.deleteFrom(object, this.#buriedIn(object));
        return 0;
      });
    }
  }

  /** After a commit: what is older goes, and a level that has become too full is emptied a little. */
  tidyUp(object: StackObject, level: TierLevel): void {
    const isOlder = ({ bit }: TierLevel) => (object.stale & bit) !== 0;
    const older = this.#levels.filter((each) => each.isUsable && isOlder(each));
    // What lies in RAM outlives nothing: a later process must not take what is older for it.
    const isAbove = level.isPersistent;
    if (older.length > 0 || (!isAbove && object.stale !== 0)) {
      this.#inBackground(object, async () => {
        await this.deleteFrom(object, older);
        if (isAbove) return 0;
        for (const each of this.#levels.filter(isOlder)) await this.#deletions.note(object, each);
        return 0;
      });
    }
    this.#rebalance(level);
  }

  /** Copies an object that was read up, if the manager finds it worth it. */
  considerPromotion(object: StackObject, from: TierLevel, nowMs: number): void {
    this.#notePromotionUse(object, from);
    if (object.userCount > 0 || object.work !== null) return;
    for (const to of this.#levels.slice(0, from.priority)) {
      if (!to.isUsable || ((object.held | object.stale) & to.bit) !== 0) continue;
      const reason = this.#manager.promotion(object, from, to, nowMs);
      if (reason === null) continue;
      if (this.#placement?.allows() === false) return;
      this.#inBackground(object, async () => {
        await this.#mover.describe(object, from);
        const startMs = this.#clock.monotonicMs();
        if (!(await this.#copy(object, from, to, reason === "pressure"))) return 0;
        to.promotions += 1;
        const costMs = this.#clock.monotonicMs() - startMs;
        this.#placement?.spend(costMs, object.byteLength ?? 0);
        this.#settlePromotion(object);
        object.promotion = { bit: to.bit, costMs, gainMs: 0 };
        this.#rebalance(to);
        return 0;
      });
      return;
    }
  }

  /** An object was read from a level: a promoted copy has saved a read of the one below. */
  #notePromotionUse(object: StackObject, from: TierLevel): void {
    const { promotion } = object;
    if (promotion === null || promotion.bit !== from.bit) return;
    const bytes = object.byteLength ?? 0;
    const below = this.#levels.find(
      ({ priority, bit }) => priority > from.priority && (object.held & bit) !== 0,
    );
    const hereMs = from.speed.estimateMs(bytes);
    const belowMs = below?.speed.estimateMs(bytes) ?? null;
    const savedMs = hereMs === null || belowMs === null ? null : Math.max(0, belowMs - hereMs);
    promotion.gainMs += savedMs ?? 0;
    this.#placement?.earn(savedMs, bytes);
  }

  /** What a promoted copy was good for is known: it is gone, or another one takes its place. */
  #settlePromotion(object: StackObject): void {
    if (object.promotion === null) return;
    this.#placement?.settle(object.promotion.costMs, object.promotion.gainMs);
    object.promotion = null;
  }

  /** Moves everything out of a level, as far as there is room. */
  async drain(level: TierLevel): Promise<void> {
    await level.alone(async () => {
      for (const object of [...level.objects.values()]) await this.#giveUp(object, level);
    });
  }

  async settle(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  async #makeRoom(level: TierLevel, byteLength: number): Promise<boolean> {
    if (byteLength > level.capacityBytes) return false;
    return level.alone(async () => {
      let freedBytes = 0;
      while (freedBytes < byteLength) {
        const bytes = await this.#giveUpNext(level);
        if (bytes === 0) break;
        freedBytes += bytes;
      }
      return freedBytes > 0;
    });
  }

  /** Empties a level in the background that is filled above its high watermark. */
  #rebalance(level: TierLevel): void {
    if (this.#emptying.has(level) || this.#manager.surplusBytes(level) === 0) return;
    if (!this.#levels.slice(level.priority + 1).some((lower) => lower.isUsable)) return;
    this.#emptying.add(level);
    // Measured once: what comes meanwhile starts the next round.
    let surplusBytes = this.#manager.surplusBytes(level);
    const work = level
      .alone(async () => {
        while (surplusBytes > 0) {
          const bytes = await this.#giveUpNext(level);
          if (bytes === 0) return;
          surplusBytes -= bytes;
        }
      })
      .finally(() => this.#emptying.delete(level));
    work.catch((error: Error) => this.#onFailure(error));
    this.#watch(work);
  }

  /** @returns Bytes of the object that left the level; 0 when none can. */
  async #giveUpNext(level: TierLevel): Promise<number> {
    for (const key of level.staleKeys) {
      const object = this.#objects.get(key);
      if (object === undefined || object.userCount > 0 || object.work !== null) continue;
      return this.#work(object, async () =>
        (await this.deleteFrom(object, [level])) === null ? (object.byteLength ?? 1) : 0,
      );
    }
    let bytesRefused = Number.POSITIVE_INFINITY;
    for (const object of this.#manager.victims(level)) {
      // Where one finds no place, a longer one does not either.
      if ((object.byteLength ?? 0) >= bytesRefused) continue;
      const bytes = await this.#giveUp(object, level);
      if (bytes > 0) return bytes;
      bytesRefused = object.byteLength ?? bytesRefused;
    }
    let others = 0;
    for (const each of this.#levels) if (each !== level && each.isUsable) others |= each.bit;
    for (const object of [...this.#manager.spares(level, others, this.#clock.wallMs())]) {
      const bytes = await this.#giveUp(object, level);
      if (bytes > 0) return bytes;
    }
    return 0;
  }

  /** Takes an object out of a level, down if need be. @returns Its bytes, or 0 when it stays. */
  async #giveUp(object: StackObject, level: TierLevel): Promise<number> {
    if (object.userCount > 0 || object.work !== null || (object.held & level.bit) === 0) return 0;
    const isLast = level === this.#levels.at(-1);
    if (isLast && object.held === level.bit && object.expiresMs === 0) return 0;
    return this.#work(object, async () => {
      await this.#mover.describe(object, level);
      const bytes = object.byteLength ?? 0;
      if (object.expiresMs > 0 && object.expiresMs <= this.#clock.wallMs()) {
        return (await this.deleteFrom(object, this.#levels)) === null ? bytes : 0;
      }
      if (this.#isSafeWithout(object, level)) level.cleanEvictions += 1;
      else if (await this.#copyDown(object, level)) level.demotions += 1;
      else return 0;
      if (object.promotion?.bit === level.bit) this.#settlePromotion(object);
      return (await this.#deleteCopy(object, level)) ? bytes : 0;
    });
  }

  /** Whether another level holds the object and promises as much, with nothing older above it. */
  #isSafeWithout(object: StackObject, level: TierLevel): boolean {
    for (const other of this.#levels) {
      if (other === level) continue;
      if ((object.held & other.bit) !== 0 && keepsPromise(other, object, this.#capabilities)) {
        return true;
      }
      if (other.isPersistent && ((object.stale & other.bit) !== 0 || !other.isOpen)) return false;
    }
    return false;
  }

  async #copyDown(object: StackObject, level: TierLevel): Promise<boolean> {
    for (const to of this.#levels.slice(level.priority + 1)) {
      if (to.isUsable && keepsPromise(to, object, this.#capabilities)) {
        if (await this.#copy(object, level, to, true)) return true;
        if (object.isDamaged || (object.held & level.bit) === 0) return false;
      }
      // Nothing goes below what may be older: INV-STACK-2.
      if (to.isPersistent && ((object.stale & to.bit) !== 0 || !to.isOpen)) return false;
    }
    return false;
  }

  #buriedIn(object: StackObject): TierLevel[] {
    return this.#levels.filter(({ bit, isUsable }) => isUsable && (object.buried & bit) !== 0);
  }

  /** Carries out a deletion that the level could not be told of, before it takes anything: INV-STACK-5. */
  async #exhume(object: StackObject, level: TierLevel): Promise<void> {
    if ((object.buried & level.bit) === 0) return;
    const failure = await this.deleteFrom(object, [level]);
    if (failure !== null) throw failure;
  }

  /** The object is identical elsewhere, so a failure leaves nothing stale. */
  async #deleteCopy(object: StackObject, level: TierLevel): Promise<boolean> {
    await level.run(() => level.tier.delete(object.key));
    level.drop(object);
    return true;
  }

  async #copy(
    object: StackObject,
    from: TierLevel,
    to: TierLevel,
    mayDemote: boolean,
  ): Promise<boolean> {
    const { expiresMs } = object;
    const hints = {
      kind: object.kind ?? "",
      isDurable: object.isDurable ?? true,
      isSaved: object.isSaved ?? true,
      expiresMs,
    };
    let isCommitting = false;
    try {
      const outcome = await this.#mover.copy(
        object,
        from,
        to,
        async (byteLength) =>
          mayDemote
            ? this.beginAt(to, object, byteLength, hints)
            : this.#exhume(object, to).then(() =>
                to.run(() => to.tier.begin(object.key, byteLength, hints)),
              ),
        () => {
          isCommitting = true;
        },
      );
      if (outcome === "recoded") {
        // The same in other bytes: INV-STACK-1. Nothing waits between here and its deletion there.
        from.distrust(object);
      }
      if (outcome === "copied" || outcome === "recoded") to.hold(object);
      else if (outcome === "missing") from.drop(object);
      else if (outcome === "damaged" && isCommitting) {
        to.distrust(object);
        await this.deleteFrom(object, [to]);
      } else if (outcome === "damaged") object.isDamaged = true;
      return outcome === "copied" || outcome === "recoded";
    } catch (error) {
      if (!isTierFailure(error)) throw error;
      if (isCommitting) to.distrust(object);
      return false;
    }
  }

  /** Runs `work` while nobody else may touch the object. @returns What it freed; 0 after a failure. */
  #work(object: StackObject, work: () => Promise<number>): Promise<number> {
    const result = work().catch((error: unknown) => {
      if (!isTierFailure(error)) throw error;
      return 0;
    });
    const settled = result.then(
      () => {},
      () => {},
    );
    const done = settled.finally(() => {
      object.work = null;
      this.#objects.forget(object);
    });
    object.work = done;
    this.#watch(done);
    // Those who wait for the object wait for the end of all of it.
    return done.then(() => result);
  }

  /** Nobody waits for it but who wants the object; a fault of the program is told. */
  #inBackground(object: StackObject, work: () => Promise<number>): void {
    this.#work(object, work).catch((error: Error) => this.#onFailure(error));
  }

  #watch(work: Promise<unknown>): void {
    const watched = work
      .then(
        () => {},
        () => {},
      )
      .finally(() => this.#background.delete(watched));
    this.#background.add(watched);
  }
}
