// Room for one request that others have kept from it: while it holds room, nobody else is given an arena,
// and arenas are emptied for it that nobody else allocates in. Who asks while another one holds room waits;
// who holds it waits for nobody that waits, so every turn ends. Demotes nothing itself. Loaded when a
// request is first in need of it. Sees seams only.
import type { ControlPlane } from "../core/control-plane.js";
import type { ArenaShelf, PoolArena } from "../memory/arena-shelf.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { TensorRecord } from "./tensor-record.js";

export interface RoomHoldsOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly policy: EvictionPolicy;
}

/** Gives turns, in the order in which they are asked for. */
export class RoomHolds {
  readonly #options: RoomHoldsOptions;
  #last: Promise<void> = Promise.resolve();
  /** The end of the turn under way, or null. */
  ended: Promise<void> | null = null;

  constructor(options: RoomHoldsOptions) {
    this.#options = options;
  }

  /** Waits for the turns that were asked for before. @returns A hold; {@link RoomHold.end} must be called. */
  async take(pool: MemoryPool, bytes: number): Promise<RoomHold> {
    const before = this.#last;
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#last = ended;
    await before;
    this.ended = ended;
    return new RoomHold(this.#options, pool, bytes, () => {
      this.ended = null;
      end();
    });
  }
}

/** What of an arena is named and resident, and what of that may leave now. */
interface Filling {
  count: number;
  leavingCount: number;
  leavingBytes: number;
}

/** One turn. */
export class RoomHold {
  readonly #options: RoomHoldsOptions;
  readonly #pool: MemoryPool;
  readonly #bytes: number;
  readonly #onEnd: () => void;
  readonly #held = new Set<PoolArena>();
  /** Arenas that were emptied, or that nothing left for a while. */
  readonly #passed = new Set<PoolArena>();
  #target: PoolArena | null = null;
  /** Blocks of the target at the last look. */
  #leftCount = 0;
  /** What was pinned at the last look. */
  #pinned: string | null = null;

  constructor(options: RoomHoldsOptions, pool: MemoryPool, bytes: number, onEnd: () => void) {
    this.#options = options;
    this.#pool = pool;
    this.#bytes = bytes;
    this.#onEnd = onEnd;
    this.#guard(true);
  }

  /** An arena is being emptied of which something cannot leave yet. */
  get isEmptying(): boolean {
    return this.#target !== null;
  }

  /** Looks for room where nobody else may. @param place Waits for nothing. */
  lift(place: () => number): number {
    this.#guard(false);
    try {
      return place();
    } finally {
      this.#guard(true);
    }
  }

  /**
   * The next tensor to demote: all of one arena, then of the next.
   *
   * @param mayLeave Whether a tensor may leave now.
   * @param find Chooses among those of an arena.
   * @returns null when nothing can leave the arena now, or no arena is left.
   */
  next(
    mayLeave: (record: TensorRecord) => boolean,
    find: (isIn: (record: TensorRecord) => boolean) => TensorRecord | null,
  ): TensorRecord | null {
    const { core, pools } = this.#options;
    for (;;) {
      this.#target ??= this.#choose(mayLeave);
      const target = this.#target;
      if (target === null) return null;
      this.#held.add(target);
      target.isHeld = true;
      const victim = find(({ slot }) => core.arenaOf(slot) === target.id);
      if (victim !== null) return victim;
      const isOpen = [...pools.values()].some(({ arenas }) => arenas.includes(target));
      if (isOpen && core.arenaLiveCount(target.id) > 0) return null;
      this.#passed.add(target);
      this.#target = null;
    }
  }

  /**
   * Looks whether waiting is of use, when nothing can leave: an arena that nothing has left since the last look
   * is everybody's again.
   *
   * @returns Whether others have pinned or unpinned anything since.
   */
  look(): boolean {
    const { core, directory, policy } = this.#options;
    const slots = [...policy.candidates()].map((index) => directory.at(index).slot);
    const pinned = slots.filter((slot) => core.pinCountOf(slot) > 0).join();
    const hasMoved = this.#pinned !== null && pinned !== this.#pinned;
    this.#pinned = pinned;
    if (this.#target === null) this.#passed.clear();
    else {
      const leftCount = core.arenaLiveCount(this.#target.id);
      if (leftCount === this.#leftCount) this.#passOver(this.#target);
      this.#leftCount = leftCount;
    }
    return hasMoved;
  }

  end(): void {
    this.#guard(false);
    this.#held.clear();
    this.#onEnd();
  }

  /** That which the fewest tensors cannot leave now; of those, the one that fewest bytes must leave. */
  #choose(mayLeave: (record: TensorRecord) => boolean): PoolArena | null {
    const { core, pools } = this.#options;
    const fillings = this.#fillings(mayLeave);
    const blockBytes = this.#pool.blockBytes(this.#bytes);
    let chosen: PoolArena | null = null;
    let least = { stayingCount: Number.POSITIVE_INFINITY, bytes: 0 };
    for (const pool of pools.values()) {
      for (const opened of pool.arenas) {
        const filling = fillings.get(opened.id);
        if (filling === undefined || this.#passed.has(opened)) continue;
        const isOwn = pool === this.#pool && opened.arena.capacityBytes >= blockBytes;
        // Room in another pool's arena is of use only once all of it is free: anonymous tensors stay.
        const isDrainable = filling.count === core.arenaLiveCount(opened.id) && !opened.isShared;
        if (!isDrainable && !(isOwn && filling.leavingBytes >= blockBytes)) continue;
        const stayingCount = isDrainable ? filling.count - filling.leavingCount : 1;
        const bytes = isOwn ? Math.min(filling.leavingBytes, blockBytes) : filling.leavingBytes;
        const isTie = stayingCount === least.stayingCount;
        if (isTie ? bytes >= least.bytes : stayingCount > least.stayingCount) continue;
        chosen = opened;
        least = { stayingCount, bytes };
      }
    }
    this.#leftCount = 0;
    return chosen;
  }

  #fillings(mayLeave: (record: TensorRecord) => boolean): Map<number, Filling> {
    const { core, directory, policy } = this.#options;
    const fillings = new Map<number, Filling>();
    for (const index of policy.candidates()) {
      const record = directory.at(index);
      const arena = core.arenaOf(record.slot);
      const filling = fillings.get(arena) ?? { count: 0, leavingCount: 0, leavingBytes: 0 };
      fillings.set(arena, filling);
      filling.count += 1;
      if (!mayLeave(record)) continue;
      filling.leavingCount += 1;
      filling.leavingBytes += record.byteLength;
    }
    return fillings;
  }

  #passOver(opened: PoolArena): void {
    this.#passed.add(opened);
    this.#target = null;
    opened.isHeld = false;
    this.#held.delete(opened);
  }

  #guard(isHeld: boolean): void {
    this.#options.shelf.isHeld = isHeld;
    for (const opened of this.#held) opened.isHeld = isHeld;
  }
}
