// Decides where an object belongs among the levels of a stack: at first, when it is read from a low
// one, and when a level is full. Pure decisions; the stack carries them out.
import type { StoredObject, TierPredictor } from "../predictor/tier-predictor.js";
import type { StackObject, TierLevel } from "./tier-level.js";

/** An object longer than this share of a level would push out too much of it. */
const SHARE_MAX = 1 / 4;
/** Above this share of its capacity a level is emptied in the background, down to the lower one. */
const HIGH_SHARE = 0.9;
const LOW_SHARE = 0.8;
/** An object has to return this many times sooner than the one it would push out. */
const HYSTERESIS = 2;
/** Coldest objects among which the next to leave is chosen. */
const VICTIM_COUNT = 8;

export class TierManager {
  readonly #predictor: TierPredictor;

  constructor(predictor: TierPredictor) {
    this.#predictor = predictor;
  }

  /**
   * Where a new object should go: the highest level in which it is likely to be used again before it
   * would have to leave, and which gives it back sooner than the next one.
   *
   * @param levels Those that may take it, highest first; not empty.
   * @returns All of them, in the order in which they should be asked.
   */
  order(object: StoredObject, levels: readonly TierLevel[], nowMs: number): TierLevel[] {
    const reuseMs = this.#predictor.expectedReuseMs(object);
    const best = levels.findIndex((level, index) => {
      const next = levels[index + 1];
      if (next === undefined) return true;
      if (object.byteLength > level.capacityBytes * SHARE_MAX) return false;
      const restoreMs = level.speed.estimateMs(object.byteLength);
      const nextMs = next.speed.estimateMs(object.byteLength);
      if (restoreMs !== null && nextMs !== null && restoreMs > nextMs) return false;
      return (
        level.freeBytes >= object.byteLength ||
        reuseMs === null ||
        reuseMs <= this.#stayMs(level, nowMs)
      );
    });
    return [...levels.slice(best), ...levels.slice(0, best).reverse()];
  }

  /** Notes a use. */
  observe(object: StackObject, byteLength: number, nowMs: number): void {
    if (object.useCount > 0) {
      object.intervalMs = nowMs - object.lastUseMs;
      this.#predictor.observe(storedObject(object, byteLength));
    }
    object.useCount += 1;
    object.lastUseMs = nowMs;
  }

  /**
   * Whether an object that was read from `from` should have a copy in a higher level too.
   *
   * @returns `"room"`: as long as nothing has to leave for it; `"pressure"`: even so; or null.
   */
  promotion(object: StackObject, from: TierLevel, to: TierLevel, nowMs: number) {
    const byteLength = object.byteLength ?? 0;
    if (byteLength > to.capacityBytes * SHARE_MAX) return null;
    const restoreMs = to.speed.estimateMs(byteLength);
    const fromMs = from.speed.estimateMs(byteLength);
    if (restoreMs !== null && fromMs !== null && restoreMs > fromMs) return null;
    // What was read once is hot anyway by now; RAM is only for what returns.
    const reuseMs = this.#predictor.expectedReuseMs(storedObject(object, byteLength));
    const returns = object.useCount > 1 && reuseMs !== null;
    if (!to.isPersistent && !returns) return null;
    if (to.freeBytes - byteLength >= to.capacityBytes * (1 - LOW_SHARE)) return "room";
    return returns && reuseMs * HYSTERESIS <= this.#stayMs(to, nowMs) ? "pressure" : null;
  }

  /** Bytes that should leave a level in the background. */
  surplusBytes(level: TierLevel): number {
    const { capacityBytes, storedBytes } = level.tier.stats();
    if (storedBytes <= capacityBytes * HIGH_SHARE) return 0;
    return storedBytes - capacityBytes * LOW_SHARE;
  }

  /** Objects that may leave, the one that should go first at the front. */
  victims(level: TierLevel): StackObject[] {
    const found: StackObject[] = [];
    for (const object of level.objects.values()) {
      if (object.userCount > 0 || object.work !== null || object.isDamaged) continue;
      found.push(object);
      if (found.length === VICTIM_COUNT) break;
    }
    // What lies elsewhere too goes without a write. The sort is stable: else the coldest first.
    const isElsewhere = ({ held }: StackObject) => Number((held & ~level.bit) !== 0);
    return found.sort((one, other) => isElsewhere(other) - isElsewhere(one));
  }

  /**
   * Objects that may leave without a write, however warm they are: what has expired, and copies of what
   * lies elsewhere too. For a level whose coldest objects find no other place.
   *
   * @param others Bits of the levels that can be relied on now.
   * @remarks Looks at every object of the level.
   */
  *spares(level: TierLevel, others: number, wallMs: number): Generator<StackObject> {
    for (const object of level.objects.values()) {
      if (object.userCount > 0 || object.work !== null) continue;
      const isOver = object.expiresMs > 0 && object.expiresMs <= wallMs;
      if (isOver || (object.held & others) !== 0) yield object;
    }
  }

  /** How long things stay in a level unused, as its coldest one shows. */
  #stayMs(level: TierLevel, nowMs: number): number {
    for (const object of level.objects.values()) return nowMs - object.lastUseMs;
    return Number.POSITIVE_INFINITY;
  }
}

function storedObject(object: StackObject, byteLength: number): StoredObject {
  return { kind: object.kind ?? "", byteLength, intervalMs: object.intervalMs };
}
