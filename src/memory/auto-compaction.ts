// Compaction by itself: looks at a kind some time after something of it was freed, and when its free space
// is in too many pieces, or an arena could be done without, moves blocks in short steps with turns of the
// event loop between them. While nothing is freed there is no timer.
import type { Clock } from "../clock.js";
import { MisuseError, PoisonedError, TierError } from "../errors.js";
import type { Feature } from "../stats/feature.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { ArenaShelf } from "./arena-shelf.js";
import type { Budget } from "./budget.js";
import { checkObject } from "./checks.js";
import type { CompactionLimits, CompactionScope, Compactor } from "./compactor.js";
import type { EventHub } from "./events.js";
import {
  FRAGMENTATION_LEVELS,
  type FragmentationLevel,
  fragmentationLevel,
} from "./fragmentation.js";
import type { MemoryPool } from "./memory-pool.js";

/** How a memory compacts by itself. */
export interface CompactionOptions {
  /** Level from which on blocks are moved. Default: `"high"`. Lower moves more often. */
  readonly level?: FragmentationLevel | undefined;
  /**
   * Bytes that one step moves at most; a longer tensor moves alone, in a step of its own. Default: 4 MiB.
   * More makes longer pauses.
   */
  readonly bytesPerStep?: number | undefined;
  /** Milliseconds after which a step begins no further tensor. Default: 4. */
  readonly millisecondsPerStep?: number | undefined;
}

/** Options that were checked, all of them there. */
export interface CompactionPolicy extends CompactionLimits {
  readonly level: FragmentationLevel;
}

const BYTES_PER_STEP = 4 * 2 ** 20;
const MILLISECONDS_PER_STEP = 4;
/** From the first free to the look: a program that frees much at once is looked at once. */
const LOOK_MS = 50;
/** Between two steps: other work gets its turn. */
const GAP_MS = 1;
/** Between two rounds that empty arenas; twice as long each time the arena was needed again. */
const QUIET_MS = 1000;
const QUIET_MS_MAX = 60_000;
/** What must be in pieces beside what the last round could not gather, in parts of the capacity. */
const RESTART_SHARE = 1 / 32;
/** A level is left downwards only by more than this, so that it does not flutter. */
const FALL_MARGIN = 0.03;

/**
 * @returns null for `"on-demand"`.
 * @throws {MisuseError} `bad-option`.
 */
export function checkCompaction(options: unknown): CompactionPolicy | null {
  if (options === "on-demand") return null;
  const given = options === undefined || options === "auto" ? {} : options;
  const known = ["level", "bytesPerStep", "millisecondsPerStep"];
  const checked = checkObject(given, "compaction", known) as CompactionOptions;
  const { level = "high" } = checked;
  const bytesMovedMax = checked.bytesPerStep ?? BYTES_PER_STEP;
  const durationMsMax = checked.millisecondsPerStep ?? MILLISECONDS_PER_STEP;
  const isPositive = (value: unknown) => Number.isFinite(value) && (value as number) > 0;
  if (!FRAGMENTATION_LEVELS.includes(level) || !isPositive(bytesMovedMax)) {
    throw new MisuseError("bad-option", "compaction.level is a level, bytesPerStep above 0");
  }
  if (!isPositive(durationMsMax)) {
    throw new MisuseError("bad-option", "compaction.millisecondsPerStep is above 0");
  }
  return { level, bytesMovedMax, durationMsMax };
}

/** What is known about one kind. */
interface Watch extends CompactionScope {
  /** Not for a while after it was done, in the round that began last. */
  mayEvacuate: boolean;
  /** Something was freed since the last look. */
  isTouched: boolean;
  /** Arenas may be emptied later, after {@link quietUntilMs}. */
  isWaiting: boolean;
  level: FragmentationLevel;
  /** Free bytes in pieces that the last round left, and at the last look. */
  scatteredBytes: number;
  lookedBytes: number;
  /** Arenas when this round began, and when the last one ended that had emptied some. */
  arenaCount: number;
  emptiedArenaCount: number;
  /** Arenas emptied by all rounds until now. */
  evacuatedCount: number;
  /** By the monotonic clock: until then no arena of it is emptied. */
  quietUntilMs: number;
  quietMs: number;
}

export class AutoCompaction {
  readonly #compactor: Compactor;
  readonly #shelf: ArenaShelf;
  readonly #budget: Budget;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #policy: CompactionPolicy;
  readonly #feature: Feature;
  readonly #roomMs: (bytes: number) => number | null;
  readonly #sink: StatsSink;
  readonly #watches: Watch[];
  /** Of the round under way. */
  #due: Watch[] = [];
  #cancel: (() => void) | null = null;
  /** Spent in the steps of that round. */
  #roundMs = 0;
  /** By the monotonic clock: when the timer goes off. */
  #timerMs = 0;

  constructor(parts: {
    readonly compactor: Compactor;
    readonly shelf: ArenaShelf;
    readonly budget: Budget;
    readonly pools: ReadonlyMap<unknown, MemoryPool>;
    readonly events: EventHub;
    readonly clock: Clock;
    readonly policy: CompactionPolicy;
    readonly feature: Feature;
    /** What the same room would cost otherwise, in milliseconds; null when that is not known. */
    readonly roomMs: (bytes: number) => number | null;
    readonly sink: StatsSink;
  }) {
    this.#compactor = parts.compactor;
    this.#shelf = parts.shelf;
    this.#budget = parts.budget;
    this.#events = parts.events;
    this.#clock = parts.clock;
    this.#policy = parts.policy;
    this.#feature = parts.feature;
    this.#roomMs = parts.roomMs;
    this.#sink = parts.sink;
    this.#watches = [...parts.pools.values()].map((pool) => ({
      pool,
      mayEvacuate: false,
      isTouched: false,
      isWaiting: false,
      level: "low",
      scatteredBytes: 0,
      lookedBytes: 0,
      arenaCount: 0,
      emptiedArenaCount: Number.POSITIVE_INFINITY,
      evacuatedCount: 0,
      quietUntilMs: 0,
      quietMs: QUIET_MS,
    }));
    for (const watch of this.#watches) {
      watch.pool.onFreed = () => {
        if (watch.isTouched) return;
        watch.isTouched = true;
        this.#wake(LOOK_MS);
      };
    }
  }

  /** Nothing is looked at or moved from here on, and no timer is left. */
  stop(): void {
    for (const { pool } of this.#watches) pool.onFreed = () => {};
    this.#cancel?.();
    this.#cancel = null;
    this.#due = [];
  }

  /** Sets the timer, unless it goes off earlier anyway. */
  #wake(delayMs: number): void {
    const atMs = this.#clock.monotonicMs() + delayMs;
    if (this.#cancel !== null && this.#timerMs <= atMs) return;
    this.#cancel?.();
    this.#timerMs = atMs;
    this.#cancel = this.#clock.defer(delayMs, () => {
      this.#cancel = null;
      this.#turn();
    });
  }

  /** One turn: a look if no round is under way, else a step of it. */
  #turn(): void {
    try {
      if (this.#due.length === 0) this.#lookAround();
      if (this.#due.length > 0) this.#step();
    } catch (error) {
      const isBusy = error instanceof TierError && error.code === "busy";
      if (!isBusy && !(error instanceof PoisonedError)) throw error;
      // Another worker has the plane: later. A call was cut off: with the next free after the recovery.
      for (const watch of this.#watches) watch.isTouched = isBusy;
      if (isBusy) this.#wake(LOOK_MS);
      else this.#due = [];
    }
  }

  #lookAround(): void {
    for (const watch of this.#watches) {
      if (!watch.isTouched && !watch.isWaiting) continue;
      watch.isTouched = false;
      if (!this.#look(watch)) continue;
      watch.arenaCount = watch.pool.arenas.length;
      this.#due.push(watch);
    }
    if (this.#due.length > 0 && !this.#feature.allows()) this.#due = [];
    this.#roundMs = 0;
  }

  /** Tells of another level. @returns Whether something is to be moved. */
  #look(watch: Watch): boolean {
    const { pool } = watch;
    const { scatteredBytes, capacityBytes } = this.#tellLevel(watch);
    watch.lookedBytes = scatteredBytes;
    const { level } = this.#policy;
    const isReached =
      FRAGMENTATION_LEVELS.indexOf(watch.level) >= FRAGMENTATION_LEVELS.indexOf(level);
    const isWorse = scatteredBytes - watch.scatteredBytes >= capacityBytes * RESTART_SHARE;
    const waitMs = watch.quietUntilMs - this.#clock.monotonicMs();
    const canEvacuate = this.#compactor.canEvacuate(pool);
    watch.mayEvacuate = canEvacuate && waitMs <= 0;
    watch.isWaiting = canEvacuate && waitMs > 0;
    if (watch.isWaiting) this.#wake(waitMs);
    return watch.mayEvacuate || (isReached && isWorse);
  }

  #tellLevel(watch: Watch): { readonly scatteredBytes: number; readonly capacityBytes: number } {
    const { externalFragmentation, freeBytes, capacityBytes } = watch.pool.freeSpace();
    const { kind } = watch.pool;
    const previous = watch.level;
    const rank = (level: FragmentationLevel) => FRAGMENTATION_LEVELS.indexOf(level);
    const risen = fragmentationLevel(externalFragmentation);
    const fallen = fragmentationLevel(Math.min(1, externalFragmentation + FALL_MARGIN));
    if (rank(risen) > rank(previous)) watch.level = risen;
    else if (rank(fallen) < rank(previous)) watch.level = fallen;
    const { level } = watch;
    if (level !== previous) {
      this.#events.emit({ type: "fragmentation", kind, level, previous, externalFragmentation });
    }
    return { scatteredBytes: externalFragmentation * freeBytes, capacityBytes };
  }

  #step(): void {
    const startMs = this.#clock.monotonicMs();
    const { isFinished, movedBytes } = this.#compactor.step(this.#policy, this.#due);
    const durationMs = this.#clock.monotonicMs() - startMs;
    this.#roundMs += durationMs;
    this.#feature.spend(durationMs, movedBytes);
    this.#sink.time("compaction.step", durationMs);
    if (!isFinished) {
      this.#wake(GAP_MS);
      return;
    }
    let gatheredBytes = 0;
    for (const watch of this.#due) gatheredBytes += this.#endRound(watch);
    this.#due = [];
    const savedMs = this.#roomMs(gatheredBytes);
    this.#feature.earn(savedMs, gatheredBytes);
    this.#feature.settle(this.#roundMs, savedMs);
    if (this.#watches.some(({ isTouched }) => isTouched)) this.#wake(LOOK_MS);
  }

  /** @returns Free bytes that are in fewer pieces now, or whose arena was given back. */
  #endRound(watch: Watch): number {
    const { pool } = watch;
    watch.scatteredBytes = this.#tellLevel(watch).scatteredBytes;
    const evacuatedCount = pool.compaction.evacuatedCount - watch.evacuatedCount;
    watch.evacuatedCount = pool.compaction.evacuatedCount;
    if (evacuatedCount > 0) this.#giveBack(watch, evacuatedCount);
    const gatheredBytes = Math.max(0, watch.lookedBytes - watch.scatteredBytes);
    return gatheredBytes + evacuatedCount * pool.arenaBytes;
  }

  /** Drops arenas that were emptied, as far as others could be had at once, and is quiet for a while. */
  #giveBack(watch: Watch, evacuatedCount: number): void {
    const { arenaBytes, arenas } = watch.pool;
    for (let count = 0; count < evacuatedCount; count++) {
      const { usedBytes, limitBytes } = this.#budget;
      const spareBytes = this.#shelf.stats().spareBytes - arenaBytes;
      if (limitBytes - usedBytes + spareBytes >= arenaBytes) this.#shelf.dropSpares(arenaBytes);
    }
    const wasNeeded = watch.arenaCount > watch.emptiedArenaCount;
    watch.quietMs = wasNeeded ? Math.min(2 * watch.quietMs, QUIET_MS_MAX) : QUIET_MS;
    watch.quietUntilMs = this.#clock.monotonicMs() + watch.quietMs;
    watch.emptiedArenaCount = arenas.length;
  }
}
