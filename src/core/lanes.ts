// What several threads do with one control plane: take lanes, give blocks to one another, take back
// what a thread had that has ended. Layer: core.
import * as abi from "../../assembly/abi.js";
import { MisuseError, PoisonedError } from "../errors.js";
import { Guard } from "./guard.js";
import { invariantName } from "./invariants.js";
import { guardedExports } from "./shared-exports.js";
import type { CoreExports } from "./wasm-modules.js";

/** What another thread needs to work on a shared control plane as one lane. Can be cloned. */
export interface LaneToken {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  readonly base: number;
  readonly lane: number;
}

/** An arena that several threads see. */
export interface SharedArena {
  /** Number of the arena in the control plane. */
  readonly id: number;
  readonly buffer: SharedArrayBuffer;
}

/** How often the guard of a shared control plane was taken, by all lanes. */
export interface LockCounters {
  readonly enteredCount: number;
  /** Entered, but only after it had been found taken. */
  readonly contendedCount: number;
  /** Given up by the core after many looks; the host then waits. */
  readonly refusedCount: number;
}

/** What lanes hold of one arena beside its own counters. */
export interface LaneFigures {
  readonly cachedBytes: number;
  readonly takenCount: number;
  /** Requested bytes and live blocks that are not in the arena's usage yet; may be below 0. */
  readonly driftBytes: number;
  readonly driftCount: number;
}

export class Lanes {
  /** The exports as this lane calls them: they wait for the guard. */
  readonly core: CoreExports;
  /** Address of the status of this lane's last refusal. */
  readonly statusAddress: number;
  readonly #token: LaneToken;
  readonly #words: Int32Array;
  readonly #guard: Guard;
  readonly #refuse: (status: number) => void;

  /** @param refuse Turns a status other than OK into the error it means. */
  constructor(core: CoreExports, token: LaneToken, refuse: (status: number) => void) {
    const { memory, base, lane } = token;
    this.#token = token;
    this.#refuse = refuse;
    this.#words = new Int32Array(memory.buffer);
    const canSleep = lane !== abi.LANE_FIRST && !("document" in globalThis);
    this.#guard = new Guard(this.#words, (base + abi.CONTROL_OFF_GUARD) / 4, canSleep);
    const row = this.#rowAddress(lane);
    this.core = guardedExports(core, this.#guard, this.#words, row);
    this.statusAddress = row + abi.LANE_OFF_STATUS;
  }

  /** Whether the plane was cut off in the middle of a change, and could not be recovered. */
  get isPoisoned(): boolean {
    return this.#guard.isPoisoned;
  }

  /** A lane for another thread, or null when all are taken. @throws {TierError} `busy`. */
  reserve(): LaneToken | null {
    const lane = this.core.laneReserve(this.#token.base);
    if (lane !== 0) return { ...this.#token, lane };
    const status = this.#words[this.statusAddress / 4] as number;
    if (status !== abi.STATUS_NO_METADATA) this.#refuse(status);
    return null;
  }

  /** Whether a thread works as that lane. */
  isAttached(lane: number): boolean {
    return this.#laneWord(lane, abi.LANE_OFF_STATE) === abi.LANE_STATE_ATTACHED;
  }

  /**
   * Takes a lane back whose thread has ended, however it ended: what it owned is freed, and a change
   * that it was in the middle of is undone or done. Also for a lane that nobody attached to.
   *
   * @returns false when the guard is busy: try again later.
   * @throws {PoisonedError} The thread left damage that cannot be repaired.
   * @throws {MisuseError} `bad-option` — no such lane.
   */
  release(lane: number): boolean {
    const status = this.core.laneRelease(this.#token.base, lane) >>> 0;
    if (status === abi.STATUS_BUSY && !this.isPoisoned) return false;
    if (status >= abi.INV_TREE_1)
      throw new PoisonedError(`the slot table is damaged (${invariantName(status)})`);
    this.#refuse(status);
    return true;
  }

  /** Gives a block to whoever {@link adopt}s it first. @throws {MisuseError} As a free. */
  handOver(slot: number, generation: number): void {
    this.#refuse(this.core.slotHandOver(this.#token.base, slot, generation));
  }

  /**
   * Makes a block that nobody owns one of this lane.
   *
   * @throws {MisuseError} `stale-handle`, `foreign-handle`; `not-owner` — nobody handed it over, or
   *   somebody else was quicker.
   */
  adopt(slot: number, generation: number): void {
    this.#refuse(this.core.slotAdopt(this.#token.base, slot, generation));
  }

  /** Blocks that were freed because their thread had ended. */
  get orphanedCount(): number {
    return this.#laneWord(0, abi.LANE_OFF_ORPHANED);
  }

  get lockCounters(): LockCounters {
    const word = (offset: number) =>
      Atomics.load(this.#words, (this.#token.base + offset) / 4) >>> 0;
    return {
      enteredCount: word(abi.CONTROL_OFF_LOCK_ENTERED),
      contendedCount: word(abi.CONTROL_OFF_LOCK_CONTENDED),
      refusedCount: word(abi.CONTROL_OFF_LOCK_REFUSED),
    };
  }

  /** What the lanes have cached of an arena, and what they have not settled. Cost: one look a lane. */
  figures(arena: number): LaneFigures {
    const arenaCapacity = this.#words[
      (this.#token.base + abi.CONTROL_OFF_ARENA_CAPACITY) / 4
    ] as number;
    const rows = this.#rowAddress(abi.LANE_COUNT_MAX + 1);
    let drift = 0n;
    let cachedBytes = 0;
    let takenCount = 0;
    for (let lane = 1; lane <= abi.LANE_COUNT_MAX; lane++) {
      if (lane !== abi.LANE_FIRST && !this.isAttached(lane)) continue;
      const row = (rows + (lane * arenaCapacity + arena) * abi.LANE_CACHE_BYTES) / 4;
      const wide = (offset: number) =>
        BigInt(this.#words[row + offset / 4 + 1] as number) * 2n ** 32n +
        BigInt((this.#words[row + offset / 4] as number) >>> 0);
      drift += wide(abi.LANE_CACHE_OFF_DRIFT);
      takenCount += Number(wide(abi.LANE_CACHE_OFF_TAKEN));
      cachedBytes += this.#words[row + abi.LANE_CACHE_OFF_CACHED / 4] as number;
    }
    const driftBytes = BigInt.asIntN(abi.USAGE_COUNT_SHIFT, drift);
    const driftCount = (drift - driftBytes) >> BigInt(abi.USAGE_COUNT_SHIFT);
    return {
      cachedBytes,
      takenCount,
      driftBytes: Number(driftBytes),
      driftCount: Number(driftCount),
    };
  }

  #rowAddress(lane: number): number {
    const { base } = this.#token;
    const lanes = this.#words[(base + abi.CONTROL_OFF_LANES) / 4] as number;
    return base + lanes + lane * abi.LANE_BYTES;
  }

  #laneWord(lane: number, offset: number): number {
    return Atomics.load(this.#words, (this.#rowAddress(lane) + offset) / 4);
  }
}

/** @throws {MisuseError} `unsupported` — the plane is not shared. */
export function requireLanes(lanes: Lanes | null): Lanes {
  if (lanes === null)
    throw new MisuseError("unsupported", "not shared: create it with shared: true");
  return lanes;
}
