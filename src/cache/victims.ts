// Who leaves next, and how, when nobody waits: what the background does for the watermarks and for the
// process. Sees seams only.
import type { MemoryPool } from "../memory/memory-pool.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { Directory } from "./directory.js";
import type { Disposables } from "./disposables.js";
import type { LifetimeCollector } from "./lifetime-collector.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { VictimChoice } from "./restore-cost.js";
import type { TensorRecord } from "./tensor-record.js";

export interface VictimsOptions {
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  readonly policy: EvictionPolicy;
  readonly disposables: Disposables;
  /** Demotions reach the device before the hot copy goes. */
  readonly isDurable: boolean;
  /** Weighs the order by costs; null: victims leave in the policy's order. */
  readonly choice: VictimChoice | null;
}

export class Victims {
  readonly #options: VictimsOptions;
  #collector: LifetimeCollector | null = null;

  constructor(options: VictimsOptions) {
    this.#options = options;
  }

  /** From here on what seems to be over leaves first. */
  preferOver(collector: LifetimeCollector): void {
    this.#collector = collector;
  }

  /** A victim that {@link next} has given has left. */
  left(record: TensorRecord): void {
    this.#collector?.left(record);
  }

  /** Drops a victim that may be dropped. */
  drop(record: TensorRecord): void {
    this.#options.disposables.drop(record);
    this.left(record);
  }

  /** What should leave first of those that may. Asks about no more of them than it must. */
  next(mayLeave: (record: TensorRecord) => boolean): TensorRecord | null {
    return this.#collector?.next(mayLeave) ?? this.nextInOrder(mayLeave);
  }

  /** What seems over of those that may leave: of the pool that needs room if possible, else of any. */
  nextOver(pool: MemoryPool, mayLeave: (record: TensorRecord) => boolean): TensorRecord | null {
    const own = this.#collector?.next((record) => record.pool === pool && mayLeave(record));
    return own ?? this.#collector?.next(mayLeave) ?? null;
  }

  /** As {@link next}, but in the policy's order alone, as weighed by costs. */
  nextInOrder(mayLeave: (record: TensorRecord) => boolean): TensorRecord | null {
    const { choice } = this.#options;
    const order = this.#order(mayLeave);
    if (choice !== null) return choice.next(order);
    for (const record of order) if (record !== null) return record;
    return null;
  }

  /**
   * Demotes or drops whatever should leave first, for nobody in particular. Where the tier is full, what can
   * leave without a write.
   *
   * @returns false when there is no victim, or no room for any.
   */
  async demoteNext(): Promise<boolean> {
    const record = this.next((each) => this.#options.swapper.canDemote(each));
    return record !== null && this.giveUp(record);
  }

  /**
   * Demotes or drops a tensor, for nobody in particular; where the tier is full, another one that needs no write.
   *
   * @param record Demotable.
   * @returns false when there is no room for any.
   */
  async giveUp(record: TensorRecord): Promise<boolean> {
    const { swapper, disposables, isDurable } = this.#options;
    if (!disposables.admits(record)) {
      this.drop(record);
      return true;
    }
    const outcome = await swapper.demote(record, { durable: isDurable });
    if (outcome === "demoted" && !record.isFreed) this.left(record);
    if (outcome !== "no-space") return true;
    return (await disposables.makeColdRoom(record.byteLength)) || this.#giveUpUnwritten();
  }

  /**
   * Makes sure that the next tensors in the order of leaving can leave without a write: copies those that
   * cannot. All stay hot.
   *
   * @param byteLength Of how many tensors' bytes.
   * @param mayGoOn Asked before each copy.
   * @returns Tensors that were copied.
   * @throws {TierError} As {@link EarlyCopies.copy}.
   */
  async prepare(byteLength: number, mayGoOn: () => boolean): Promise<number> {
    const { swapper, disposables, policy, directory, isDurable } = this.#options;
    const dirty: TensorRecord[] = [];
    let readyBytes = 0;
    for (const index of policy.candidates()) {
      if (readyBytes >= byteLength) break;
      const record = directory.at(index);
      if (!swapper.canDemote(record)) continue;
      readyBytes += record.byteLength;
      // A disposable one is asked for its worth when it leaves, and who writes to a shared one cannot wait.
      const isLeft = disposables.canDrop(record) || record.referenceCount > 0;
      if (!record.isClean && !isLeft) dirty.push(record);
    }
    let count = 0;
    for (const record of dirty) {
      if (!mayGoOn()) break;
      // Used, or freed, meanwhile.
      if (record.isClean || !swapper.canDemote(record)) continue;
      const outcome = await swapper.earlyCopies.copy(record, isDurable);
      if (outcome === "no-space") break;
      if (outcome === "stored") count += 1;
    }
    return count;
  }

  /** Evicts or drops what should leave first of all that needs no write. @returns Whether there was any. */
  #giveUpUnwritten(): boolean {
    const { swapper, disposables } = this.#options;
    const record = this.next(
      (each) => swapper.canDemote(each) && (each.isClean || disposables.canDrop(each)),
    );
    if (record === null) return false;
    if (!record.isClean) {
      this.drop(record);
      return true;
    }
    swapper.evictClean(record);
    this.left(record);
    return true;
  }

  *#order(mayLeave: (record: TensorRecord) => boolean): Generator<TensorRecord | null> {
    const { policy, directory } = this.#options;
    for (const index of policy.candidates()) {
      const record = directory.at(index);
      yield mayLeave(record) ? record : null;
    }
  }
}
