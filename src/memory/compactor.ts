// Moves blocks so that the free space of each arena becomes one piece, and out of arenas whose blocks fit
// into others: on demand, or in steps of limited bytes and time that go on where the last one stopped. The
// core plans, the arenas copy. There is one plan at a time, so this is the only one who starts any.
import type { Clock } from "../clock.js";
import type { Move } from "../core/block-info.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { PoolArena } from "./arena-shelf.js";
import { chooseEvacuation, type PlanStep, packForRest } from "./evacuation.js";
import type { MemoryPool } from "./memory-pool.js";

/** What a step of compaction did. */
export interface CompactionResult {
  /** Bytes copied. */
  readonly movedBytes: number;
  /** Nothing is left to move; otherwise the next step goes on. */
  readonly isFinished: boolean;
}

/** Where a step of compaction ends. */
export interface CompactionLimits {
  /** Bytes. A longer block moves alone, in a step of its own. */
  readonly bytesMovedMax: number;
  /** Milliseconds after which no further block is begun. */
  readonly durationMsMax: number;
}

/** A pool that a round is about. */
export interface CompactionScope {
  readonly pool: MemoryPool;
  /** Whether arenas that it can do without are emptied, too. */
  readonly mayEvacuate: boolean;
}

/** The limits of one step, and what of them is used up. */
interface Course {
  readonly bytesMovedMax: number;
  readonly endMs: number;
  movedBytes: number;
}

/** An arena to compact or to empty, and the plans for it that are still to be carried out. */
interface Task {
  readonly pool: MemoryPool;
  readonly source: PoolArena;
  /** Whether it is to become empty. */
  readonly isEvacuation: boolean;
  readonly steps: PlanStep[];
  /** How often more steps may be added for what found no place. */
  retriesLeft: number;
}

/** Evacuations that need more tries than this are given up. */
const RETRY_COUNT = 4;

const unlimited = (): Course => ({
  bytesMovedMax: Number.POSITIVE_INFINITY,
  endMs: Number.POSITIVE_INFINITY,
  movedBytes: 0,
});

export class Compactor {
  readonly #core: ControlPlane;
  readonly #pools: ReadonlyMap<unknown, MemoryPool>;
  readonly #clock: Clock;
  /** The round under way; the first step of the first task has a plan if `#isPlanned`. */
  #tasks: Task[] = [];
  /** The round is not about everything. */
  #isPartial = false;
  #isPlanned = false;
  /** How much had been freed in a pool when blocks of its lightest arena found no place. */
  readonly #vain = new WeakMap<MemoryPool, number>();

  constructor(parts: {
    readonly core: ControlPlane;
    readonly pools: ReadonlyMap<unknown, MemoryPool>;
    readonly clock: Clock;
  }) {
    this.#core = parts.core;
    this.#pools = parts.pools;
    this.#clock = parts.clock;
  }

  /**
   * Empties arenas that can be done without, then compacts every arena, as far as the limits allow, and
   * goes on with the next call.
   *
   * @param scopes What a round is about that begins now. Default: everything, and a round about less ends.
   */
  step(
    { bytesMovedMax, durationMsMax }: CompactionLimits,
    scopes: readonly CompactionScope[] | null = null,
  ): CompactionResult {
    const endMs = this.#clock.monotonicMs() + durationMsMax;
    const course = { bytesMovedMax, endMs, movedBytes: 0 };
    if (this.#tasks.length === 0 || (scopes === null && this.#isPartial)) {
      this.reset();
      const all = [...this.#pools.values()].map((pool) => ({ pool, mayEvacuate: true }));
      this.#tasks = this.#allTasks(scopes ?? all);
      this.#isPartial = scopes !== null;
    }
    for (let task = this.#tasks[0]; task !== undefined; task = this.#tasks[0]) {
      if (!this.#run(task, course)) return { movedBytes: course.movedBytes, isFinished: false };
      this.#tasks.shift();
      const next = task.isEvacuation ? this.#evacuationOf(task.pool) : null;
      if (next !== null) this.#tasks.unshift(next);
    }
    return { movedBytes: course.movedBytes, isFinished: true };
  }

  /**
   * Moves blocks of a pool until some arena of it has `bytes` free in a row, or none can have. A round
   * of steps that is under way begins its arena anew.
   *
   * @returns Bytes moved.
   */
  makeRoom(pool: MemoryPool, bytes: number): number {
    this.reset();
    const course = unlimited();
    for (const source of [...pool.arenas]) {
      if (!pool.canCompactFor(source, bytes)) continue;
      const steps: PlanStep[] = [{ type: "pack", into: source, needBytes: bytes }];
      this.#run({ pool, source, isEvacuation: false, steps, retriesLeft: 0 }, course);
      if (this.#core.longestFreeBytes(source.id) >= bytes) break;
    }
    return course.movedBytes;
  }

  /**
   * Moves all blocks of one arena of a pool into its others, and hands it back to the shelf. A round of
   * steps that is under way begins its arena anew.
   *
   * @returns Whether an arena was handed back: false, as a rule without a move, if none can be emptied.
   */
  evacuate(pool: MemoryPool): boolean {
    this.reset();
    const task = this.#evacuationOf(pool);
    if (task === null) return false;
    this.#run(task, unlimited());
    return !pool.arenas.includes(task.source);
  }

  /** Whether some arena of a pool could be emptied now. Moves nothing. Cost: as the choice of one. */
  canEvacuate(pool: MemoryPool): boolean {
    if (pool.arenas.length < 2 || this.#vain.get(pool) === pool.freeCount) return false;
    return chooseEvacuation(this.#core, pool) !== null;
  }

  /** Forgets the plan under way: somebody else has ended it, or is about to. */
  reset(): void {
    this.#isPlanned = false;
  }

  #allTasks(scopes: readonly CompactionScope[]): Task[] {
    const tasks: Task[] = [];
    for (const { pool, mayEvacuate } of scopes) {
      const evacuation = mayEvacuate ? this.#evacuationOf(pool) : null;
      if (evacuation !== null) tasks.push(evacuation);
      for (const source of pool.arenas) {
        const steps: PlanStep[] = [{ type: "pack", into: source, needBytes: 0 }];
        tasks.push({ pool, source, isEvacuation: false, steps, retriesLeft: 0 });
      }
    }
    return tasks;
  }

  #evacuationOf(pool: MemoryPool): Task | null {
    if (pool.arenas.length < 2 || this.#vain.get(pool) === pool.freeCount) return null;
    const evacuation = chooseEvacuation(this.#core, pool);
    if (evacuation === null) return null;
    // What is allocated meanwhile goes elsewhere.
    pool.putLast(evacuation.source);
    return { pool, ...evacuation, isEvacuation: true, retriesLeft: RETRY_COUNT };
  }

  /** Carries out what is left of a task. @returns false when the limits ended it. */
  #run(task: Task, course: Course): boolean {
    const { pool, source, steps } = task;
    for (let step = steps[0]; step !== undefined; step = steps[0]) {
      if (!pool.arenas.includes(source) || this.#isVain(task)) break;
      if (pool.arenas.includes(step.into) && !(task.isEvacuation && step.into.isHeld)) {
        if (!this.#isPlanned) this.#begin(task, step);
        if (!this.#moveAll(task, step, course)) return false;
      }
      this.#isPlanned = false;
      steps.shift();
      if (task.isEvacuation && steps.length === 0) this.#extend(task);
    }
    this.#isPlanned = false;
    if (task.isEvacuation && pool.arenas.includes(source)) this.#endEvacuation(task);
    return true;
  }

  #begin({ pool, source }: Task, step: PlanStep): void {
    pool.compaction.planCount += 1;
    if (step.type === "move") this.#core.beginEvacuation(source.id, step.into.id);
    else this.#core.beginCompaction(step.into.id, step.needBytes, true);
    this.#isPlanned = true;
  }

  /** Whether an arena that is to become empty cannot: something in it is pinned, or others know it. */
  #isVain({ source, isEvacuation }: Task): boolean {
    if (!isEvacuation) return false;
    return source.isShared || this.#core.arenaCounters(source.id).pinnedCount > 0;
  }

  /** Adds steps for what is left in an arena that is to become empty. */
  #extend(task: Task): void {
    const { pool, source, steps } = task;
    if (task.retriesLeft === 0 || this.#core.arenaLiveCount(source.id) === 0) return;
    task.retriesLeft -= 1;
    steps.push(...packForRest(this.#core, pool, source));
  }

  #endEvacuation(task: Task): void {
    const { pool, source } = task;
    pool.closeIfEmpty(source.id);
    if (!pool.arenas.includes(source)) pool.compaction.evacuatedCount += 1;
    else if (!this.#isVain(task)) this.#vain.set(pool, pool.freeCount);
  }

  /** Moves what the plan under way offers. @returns false when the limits ended it. */
  #moveAll({ pool, source }: Task, step: PlanStep, course: Course): boolean {
    const from = step.type === "move" ? source : step.into;
    for (let move = this.#core.nextMove(); move !== null; move = this.#core.nextMove()) {
      const isOver = course.movedBytes + move.byteLength > course.bytesMovedMax;
      if (course.movedBytes > 0 && (isOver || this.#clock.monotonicMs() >= course.endMs)) {
        this.#core.postponeMove();
        return false;
      }
      this.#copy(from, step.into, move);
      if (!this.#core.commitMove()) {
        pool.compaction.vetoCount += 1;
        continue;
      }
      course.movedBytes += move.byteLength;
      pool.compaction.moveCount += 1;
      pool.compaction.movedBytes += move.byteLength;
    }
    return true;
  }

  #copy(from: PoolArena, into: PoolArena, move: Move): void {
    const { sourceOffset, targetOffset, byteLength } = move;
    if (from === into) from.arena.move(sourceOffset, targetOffset, byteLength);
    else {
      const target = into.arena.bytes(targetOffset, byteLength);
      target.set(from.arena.bytes(sourceOffset, byteLength));
    }
  }
}
