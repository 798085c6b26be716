// Several tiers as one: a `Tier` over an ordered list of tiers, the fastest first. Objects lie in the
// level where they are worth most and move as they are; every level keeps its own budget; a level that
// fails is left out. Sees seams and the manager's decisions; knows nothing of tensors.
//
// INV-STACK-1  An object that is `held` by several levels has identical bytes in all of them, even after it
//              was coded anew.
// INV-STACK-2  Of the persistent levels that have anything under a key, the highest has the newest
//              object, at every moment: so whatever a crash leaves, the highest one counts.
// INV-STACK-3  A copy is given up only when another level holds the object and promises as much.
// INV-STACK-4  Lookups = hits of all levels + lookups that found nothing + lookups that failed.
import type { Clock } from "../clock.js";
import { TierError } from "../errors.js";
import type {
  ObjectHints,
  Tier,
  TierCapabilities,
  TierKey,
  TierReader,
  TierStats,
  TierWriter,
} from "../tier/tier.js";
import type { CodecStats } from "./codec-meter.js";
import { DeletionLog } from "./deletion-log.js";
import { LevelOpening } from "./level-opening.js";
import type { ObjectMover } from "./object-mover.js";
import { isThere, keepsPromise, ObjectTable } from "./object-table.js";
import { StackMoves } from "./stack-moves.js";
import {
  isTierFailure,
  type LevelStats,
  type StackLookups,
  type StackObject,
  TierLevel,
} from "./tier-level.js";
import type { TierManager } from "./tier-manager.js";
import type { TierStackOptions } from "./tier-stack-options.js";
import type { TranscodingBalance } from "./transcode-gate.js";

/** Without hints an object is given every promise. */
const NO_HINTS: ObjectHints = { kind: "", isDurable: true, isSaved: true, expiresMs: 0 };

export class TierStack implements Tier {
  readonly name = "tiers";
  readonly capabilities: TierCapabilities;
  readonly #levels: readonly TierLevel[];
  readonly #manager: TierManager;
  readonly #mover: ObjectMover;
  readonly #clock: Clock;
  readonly #checksRecords: boolean;
  readonly #objects = new ObjectTable();
  readonly #moves: StackMoves;
  readonly #opening: LevelOpening;
  readonly #counters = {
    bytesWritten: 0,
    bytesRead: 0,
    commitCount: 0,
    openReadCount: 0,
    deleteCount: 0,
    noSpaceCount: 0,
    quarantinedCount: 0,
  };
  readonly #writers = new Set<TierWriter>();
  #absentCount = 0;
  #failedCount = 0;
  #isOpen = false;

  constructor(options: TierStackOptions) {
    const { clock, manager, mover, mayBeAbsent = [] } = options;
    this.#levels = options.tiers.map(
      (tier, priority) =>
        new TierLevel({
          ...{ tier, priority, clock, mayBeAbsent: mayBeAbsent.includes(tier.name) },
          sink: options.sink,
          breaker: options.breaker ?? {},
          onFailure: options.onFailure ?? (() => {}),
        }),
    );
    for (const { tier, speed } of this.#levels) speed.expect(options.figures?.[tier.name]);
    const capabilities = options.tiers.map((tier) => tier.capabilities);
    this.#checksRecords = options.checksRecords ?? false;
    this.capabilities = {
      isPersistent: capabilities.some((each) => each.isPersistent),
      hasDurableCommit: capabilities.some((each) => each.hasDurableCommit),
      // Records are read back here, where it is known in which level they lie.
      needsReadBack: !this.#checksRecords && capabilities.some((each) => each.needsReadBack),
      readsInPlace: capabilities.every((each) => each.readsInPlace),
      preferredWriteBytes: capabilities.find((each) => each.isPersistent)?.preferredWriteBytes,
    };
    this.#manager = manager;
    this.#mover = mover;
    this.#clock = clock;
    const deletions = new DeletionLog(this.#levels);
    this.#opening = new LevelOpening(this.#objects, deletions, clock);
    this.#moves = new StackMoves({
      ...{ levels: this.#levels, capabilities: this.capabilities, objects: this.#objects },
      ...{ deletions, manager, mover, clock, placement: options.placement },
      onFailure: (error) => options.onFailure?.(this.name, error),
    });
  }

  async open(): Promise<void> {
    if (this.#isOpen) return;
    const opened: TierLevel[] = [];
    try {
      for (const level of this.#levels) {
        try {
          await this.#opening.open(level);
          opened.push(level);
        } catch (error) {
          if (!level.mayBeAbsent || !isTierFailure(error)) throw error;
          level.breaker.trip();
        }
      }
      this.#isOpen = true;
      this.#moves.retryDeletions();
    } catch (error) {
      for (const level of opened) await level.tier.close();
      throw error;
    }
  }

  async begin(
    key: TierKey,
    byteLength: number,
    hints: ObjectHints = NO_HINTS,
  ): Promise<TierWriter | "no-space"> {
    this.#checkOpen();
    const object = await this.#objects.use(key);
    try {
      const begun = await this.#beginSomewhere(object, byteLength, hints);
      if (begun === "no-space") {
        this.#counters.noSpaceCount += 1;
        this.#objects.release(object);
        return begun;
      }
      const { level, writer } = begun;
      if (!this.#isOpen) await writer.abort();
      this.#checkOpen();
      return this.#track(object, level, writer, byteLength, hints);
    } catch (error) {
      this.#objects.release(object);
      throw error;
    }
  }

  async openRead(key: TierKey): Promise<TierReader | null> {
    this.#checkOpen();
    this.#counters.openReadCount += 1;
    const object = await this.#objects.use(key);
    try {
      await this.#moves.makeUpFor(object);
      const found = await this.#find(object, 0);
      if (found !== null) return this.#reader(object, found.level, found.reader);
      this.#absentCount += 1;
      this.#objects.release(object);
      return null;
    } catch (error) {
      this.#failedCount += 1;
      this.#objects.release(object);
      throw error;
    }
  }

  /**
   * Deletes an object from every level, the lowest first, so that nothing older is left on top at any
   * moment. For a level that cannot be reached the deletion is written down in another one, and is carried
   * out later, if need be by a later process.
   *
   * @throws {TierError} `io` — nor can it be written down. Nobody reads the object again as long as the
   *   stack is open; a later process may find it.
   */
  async delete(key: TierKey): Promise<boolean> {
    this.#checkOpen();
    const object = await this.#objects.use(key);
    try {
      const existed = isThere(object);
      const failure = await this.#moves.bury(object);
      if (failure !== null) throw failure;
      this.#counters.deleteCount += 1;
      return existed;
    } finally {
      this.#objects.release(object);
    }
  }

  async quarantine(key: TierKey): Promise<void> {
    this.#checkOpen();
    const object = await this.#objects.use(key);
    try {
      const top = this.#levels.find((level) => (object.held & level.bit) !== 0);
      if (top === undefined) return;
      // What is older must not come up in its place.
      const older = this.#levels.filter((level) => (object.stale & level.bit) !== 0);
      const failure = await this.#moves.deleteFrom(object, older);
      if (failure !== null) throw failure;
      await top.run(() => top.tier.quarantine(key));
      top.drop(object);
      this.#counters.quarantinedCount += 1;
    } finally {
      this.#objects.release(object);
    }
  }

  async *list(): AsyncIterable<TierKey> {
    this.#checkOpen();
    for (const level of this.#levels) await this.#opening.canAsk(level);
    yield* this.#objects.heldKeys();
  }

  /** Bytes are those of all levels, copies included; calls are those of the caller. */
  stats(): TierStats {
    const each = this.#levels.map((level) => level.tier.stats());
    const sum = (pick: (stats: TierStats) => number) =>
      each.reduce((total, stats) => total + pick(stats), 0);
    return {
      ...this.#counters,
      objectCount: this.#objects.heldCount,
      storedBytes: sum(({ storedBytes }) => storedBytes),
      physicalBytes: sum(({ physicalBytes }) => physicalBytes),
      capacityBytes: sum(({ capacityBytes }) => capacityBytes),
    };
  }

  /** What each level has done and holds, fastest first. */
  levels(): LevelStats[] {
    return this.#levels.map((level) => level.stats());
  }

  /** What was coded anew on its way down, by codec. */
  transcoded(): CodecStats[] {
    return this.#mover.transcoded();
  }

  /** null: nothing is coded anew. */
  readonly transcodingBalance = (): TranscodingBalance | null => this.#mover.transcodingBalance();

  lookups(): StackLookups {
    return {
      lookups: this.#counters.openReadCount,
      hits: this.#levels.reduce((total, { hits }) => total + hits, 0),
      absent: this.#absentCount,
      failed: this.#failedCount,
    };
  }

  /** Where an object would be read, and in how many milliseconds; null when that is not known. */
  estimate(key: TierKey, byteLength: number): { tier: string; restoreMs: number | null } {
    const held = this.#objects.get(key)?.held ?? 0;
    const level = this.#levels.find(({ bit, isUsable }) => isUsable && (held & bit) !== 0);
    const restoreMs = level?.speed.estimateMs(byteLength) ?? null;
    return { tier: level?.name ?? this.name, restoreMs };
  }

  /** Resolves once nothing moves in the background. */
  settle(): Promise<void> {
    return this.#moves.settle();
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const writer of [...this.#writers]) await writer.abort();
    this.#moves.retryDeletions();
    await this.settle();
    // What lies in RAM would be gone.
    for (const level of this.#levels) if (!level.isPersistent) await this.#moves.drain(level);
    for (const level of this.#levels) if (level.isOpen) await level.tier.close();
  }

  /** The first level from `priority` on in which the object is. @throws {TierError} It may be in one that failed. */
  async #find(object: StackObject, priority: number) {
    let failure: unknown = null;
    for (const level of this.#levels.slice(priority)) {
      // What a level that never answered holds is unknown.
      const mayHold = !level.isOpen || (object.held & level.bit) !== 0;
      if ((object.stale & level.bit) !== 0) {
        level.misses += 1;
        continue;
      }
      try {
        if (!(await this.#opening.canAsk(level))) throw level.unavailable();
        // It may have been opened just now, and have something older.
        const isStale = (object.stale & level.bit) !== 0;
        const { tier } = level;
        const reader = isStale ? null : await level.run(() => tier.openRead(object.key));
        if (reader !== null) {
          level.hits += 1;
          object.byteLength = reader.byteLength;
          if ((object.held & level.bit) === 0) level.hold(object);
          return { level, reader };
        }
        if (!isStale) level.drop(object);
        level.misses += 1;
      } catch (error) {
        if (!isTierFailure(error)) throw error;
        level.misses += 1;
        level.skips += 1;
        if (mayHold) failure ??= error;
      }
    }
    if (failure !== null) throw failure;
    return null;
  }

  #reader(object: StackObject, first: TierLevel, inner: TierReader): TierReader {
    const { byteLength } = inner;
    let level = first;
    let reader = inner;
    let isWhole = false;
    let isClosed = false;
    return {
      byteLength,
      read: async (offset, ...targets) => {
        for (;;) {
          this.#checkOpen();
          const asked = reader;
          try {
            const count = await level.timed(() => asked.read(offset, ...targets));
            this.#counters.bytesRead += count;
            if (offset + count >= byteLength && !isWhole) {
              isWhole = true;
              level.loads += 1;
            }
            return count;
          } catch (error) {
            if (!isTierFailure(error) || !this.#isOpen) throw error;
            // The bytes are identical wherever it lies.
            const others = object.held & ~level.bit & -(level.bit << 1);
            const next = others === 0 ? null : await this.#find(object, level.priority + 1);
            if (next === null || next.reader.byteLength !== byteLength) throw error;
            next.level.hits -= 1;
            await reader.close().catch(() => {});
            ({ level, reader } = next);
          }
        }
      },
      close: async () => {
        if (isClosed) return;
        isClosed = true;
        try {
          await reader.close();
        } finally {
          this.#objects.release(object);
          if (isWhole && this.#isOpen) this.#used(object, level, byteLength);
        }
      },
    };
  }

  #used(object: StackObject, level: TierLevel, byteLength: number): void {
    const nowMs = this.#clock.monotonicMs();
    this.#manager.observe(object, byteLength, nowMs);
    // Perhaps it was only read wrongly when it was to be moved.
    object.isDamaged = false;
    for (const each of this.#levels) each.touch(object);
    this.#moves.considerPromotion(object, level, nowMs);
  }

  async #beginSomewhere(object: StackObject, byteLength: number, hints: ObjectHints) {
    for (const level of this.#levels) await this.#opening.canAsk(level);
    const eligible = this.#levels.filter(
      (level) => level.isUsable && keepsPromise(level, hints, this.capabilities),
    );
    if (eligible.length === 0) throw this.#unavailable();
    const { kind } = hints;
    const asked = { kind, byteLength, intervalMs: object.intervalMs };
    let failure: unknown = null;
    let isFull = false;
    for (const level of this.#manager.order(asked, eligible, this.#clock.monotonicMs())) {
      try {
        // Something older must not stay above it: INV-STACK-2.
        if (!(await this.#moves.clearAbove(object, level))) continue;
        const writer = await this.#moves.beginAt(level, object, byteLength, hints);
        if (writer !== "no-space") return { level, writer };
        isFull = true;
      } catch (error) {
        if (!isTierFailure(error)) throw error;
        failure ??= error;
      }
    }
    if (failure !== null && !isFull) throw failure;
    return "no-space" as const;
  }

  #track(
    object: StackObject,
    level: TierLevel,
    inner: TierWriter,
    byteLength: number,
    hints: ObjectHints,
  ): TierWriter {
    let isDone = false;
    const end = () => {
      if (!isDone) this.#objects.release(object);
      isDone = true;
      this.#writers.delete(writer);
    };
    const writer: TierWriter = {
      write: async (source) => {
        this.#checkOpen();
        const outcome = await level.run(() => inner.write(source));
        if (outcome === "written") this.#counters.bytesWritten += source.byteLength;
        return outcome;
      },
      commit: async ({ durable }) => {
        this.#checkOpen();
        if (durable && this.capabilities.hasDurableCommit && !hints.isDurable) {
          throw new TierError("io", this.name, "the object was announced as not durable");
        }
        const outcome = await level.run(() => inner.commit({ durable }));
        if (outcome === "stored") await this.#committed(object, level, byteLength, hints);
        return outcome;
      },
      abort: async () => {
        await inner.abort();
        end();
      },
    };
    this.#writers.add(writer);
    return writer;
  }

  async #committed(
    object: StackObject,
    level: TierLevel,
    byteLength: number,
    hints: ObjectHints,
  ): Promise<void> {
    this.#counters.commitCount += 1;
    for (const other of this.#levels) {
      if (other === level) other.hold(object);
      else if ((object.held & other.bit) !== 0 || !other.isOpen) other.distrust(object);
    }
    object.byteLength = byteLength;
    object.kind = hints.kind;
    object.isDurable = hints.isDurable;
    object.isSaved = hints.isSaved;
    object.expiresMs = hints.expiresMs;
    object.recoding = hints.recoding ?? null;
    object.isDamaged = false;
    object.isCondemned = false;
    this.#manager.observe(object, byteLength, this.#clock.monotonicMs());
    if (this.#checksRecords && level.tier.capabilities.needsReadBack) {
      const { name } = level;
      if (!(await this.#mover.isIntact(object, level))) {
        throw new TierError("io", name, "what was written does not read back");
      }
    }
    this.#moves.tidyUp(object, level);
  }

  #unavailable(): TierError {
    return new TierError("io", this.name, "no level that could take the object can be reached");
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw new TierError("closed", this.name, "the tiers are closed");
  }
}
