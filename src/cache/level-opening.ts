// Opens the levels of a stack, and reads what is in them: at the beginning, or when one answers that
// did not.
import type { Clock } from "../clock.js";
import type { TierKey } from "../tier/tier.js";
import type { DeletionLog } from "./deletion-log.js";
import type { ObjectTable } from "./object-table.js";
import { isTierFailure, type TierLevel } from "./tier-level.js";

export class LevelOpening {
  readonly #objects: ObjectTable;
  readonly #deletions: DeletionLog;
  readonly #clock: Clock;

  constructor(objects: ObjectTable, deletions: DeletionLog, clock: Clock) {
    this.#objects = objects;
    this.#deletions = deletions;
    this.#clock = clock;
  }

  /** @throws {TierError} As the level's `open`, `list` and `openRead`; it is closed then. */
  async open(level: TierLevel): Promise<void> {
    await level.run(async () => {
      await level.tier.open();
      try {
        const keys = new Set<TierKey>();
        for await (const key of level.tier.list()) keys.add(key);
        this.#objects.found(level, keys, this.#clock.monotonicMs());
        await this.#deletions.found(level, keys, (key) => this.#objects.objectOf(key));
      } catch (error) {
        await level.tier.close();
        throw error;
      }
    });
    level.isOpen = true;
  }

  /** Whether a level answers; one that did not at the beginning is tried again. */
  async canAsk(level: TierLevel): Promise<boolean> {
    if (!level.breaker.isPassable) return false;
    if (level.isOpen) return true;
    return level.alone(async () => {
      if (level.isOpen || !level.breaker.isPassable) return level.isOpen;
      try {
        await this.open(level);
      } catch (error) {
        if (!isTierFailure(error)) throw error;
      }
      return level.isOpen;
    });
  }
}
