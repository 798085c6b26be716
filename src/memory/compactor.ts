// Moves blocks so that the free space of each arena becomes one piece: on demand for one request, or in
// steps of limited bytes and time that go on where the last one stopped. The core plans, the arenas
// copy. There is one plan at a time, so this is the only one who starts any.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { PoolArena } from "./arena-shelf.js";
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

const NO_LIMITS: CompactionLimits = {
  bytesMovedMax: Number.POSITIVE_INFINITY,
  durationMsMax: Number.POSITIVE_INFINITY,
};

/** An arena whose plan is under way, or is still to begin. */
interface Task {
  readonly pool: MemoryPool;
  readonly opened: PoolArena;
}

export class Compactor {
  readonly #core: ControlPlane;
  readonly #pools: ReadonlyMap<unknown, MemoryPool>;
  readonly #clock: Clock;
  /** Arenas of the round under way; the first one has a plan if `#isPlanned`. */
  #tasks: Task[] = [];
  #isPlanned = false;

  constructor(parts: {
    readonly core: ControlPlane;
    readonly pools: ReadonlyMap<unknown, MemoryPool>;
    readonly clock: Clock;
  }) {
    this.#core = parts.core;
    this.#pools = parts.pools;
    this.#clock = parts.clock;
  }

  /** Compacts every arena in turn, as far as the limits allow, and goes on with the next call. */
  step(limits: CompactionLimits): CompactionResult {
    const endMs = this.#clock.monotonicMs() + limits.durationMsMax;
    if (this.#tasks.length === 0) this.#tasks = this.#allTasks();
    let movedBytes = 0;
    for (let task = this.#tasks[0]; task !== undefined; task = this.#tasks[0]) {
      if (!task.pool.arenas.includes(task.opened)) {
        this.#endTask();
        continue;
      }
      if (!this.#isPlanned) this.#core.beginCompaction(task.opened.id, 0, true);
      this.#isPlanned = true;
      const result = this.#run(task, { ...limits, movedBytes, endMs });
      movedBytes += result.movedBytes;
      if (!result.isFinished) return { movedBytes, isFinished: false };
      this.#endTask();
    }
    return { movedBytes, isFinished: true };
  }

  /**
   * Moves blocks of a pool until some arena of it has `bytes` free in a row, or none can have. A round
   * of steps that is under way begins its arena anew.
   *
   * @returns Bytes moved.
   */
  makeRoom(pool: MemoryPool, bytes: number): number {
    this.#isPlanned = false;
    let movedBytes = 0;
    for (const opened of pool.arenas) {
      if (!pool.canCompactFor(opened, bytes)) continue;
      this.#core.beginCompaction(opened.id, bytes, true);
      movedBytes += this.#run(
        { pool, opened },
        { ...NO_LIMITS, movedBytes: 0, endMs: Infinity },
      ).movedBytes;
      if (this.#core.longestFreeBytes(opened.id) >= bytes) break;
    }
    return movedBytes;
  }

  #allTasks(): Task[] {
    const tasks: Task[] = [];
    for (const pool of this.#pools.values()) {
      for (const opened of pool.arenas) tasks.push({ pool, opened });
    }
    return tasks;
  }

  #endTask(): void {
    this.#tasks.shift();
    this.#isPlanned = false;
  }

  /** Moves what the plan under way offers. */
  #run(
    { pool, opened }: Task,
    limits: { readonly bytesMovedMax: number; readonly movedBytes: number; readonly endMs: number },
  ): CompactionResult {
    let movedBytes = 0;
    for (let move = this.#core.nextMove(); move !== null; move = this.#core.nextMove()) {
      const stepBytes = limits.movedBytes + movedBytes;
      const isOver = stepBytes + move.byteLength > limits.bytesMovedMax;
      if (stepBytes > 0 && (isOver || this.#clock.monotonicMs() >= limits.endMs)) {
        this.#core.postponeMove();
        pool.noteCompacted(movedBytes);
        return { movedBytes, isFinished: false };
      }
      opened.arena.move(move.sourceOffset, move.targetOffset, move.byteLength);
      if (this.#core.commitMove()) movedBytes += move.byteLength;
    }
    pool.noteCompacted(movedBytes);
    return { movedBytes, isFinished: true };
  }
}
