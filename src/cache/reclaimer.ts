// Finds room where there seems none: tries the remedies in their fixed order, chooses victims, and
// says with numbers why a request cannot be served. Sees seams only.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { OutOfMemoryError, throwIfAborted } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import type { Budget } from "../memory/budget.js";
import type { Compactor } from "../memory/compactor.js";
import type { EventHub } from "../memory/events.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { StatsSink } from "../stats/stats-sink.js";
import type { TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { Disposables } from "./disposables.js";
import type { HeldBlocks } from "./held-blocks.js";
import type { LifetimeCollector } from "./lifetime-collector.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { PressureWatch } from "./pressure-watch.js";
import { REMEDIES_BEFORE_VICTIMS, type Remedy, SYNCHRONOUS_REMEDIES } from "./remedies.js";
import { RoomByDemotion, type RoomByDemotionOptions } from "./room-by-demotion.js";
import type { TensorRecord } from "./tensor-record.js";
import type { Victims } from "./victims.js";

export interface ReclaimerOptions extends RoomByDemotionOptions {
  readonly held: HeldBlocks;
  readonly compactor: Compactor;
  readonly events: EventHub;
  /** Gives up a prefetched guess whose room helps. @returns Whether there was one. */
  readonly giveUpGuess: (helps: (record: TensorRecord) => boolean) => boolean;
  readonly sink: StatsSink;
}

export class Reclaimer {
  readonly #core: ControlPlane;
  readonly #budget: Budget;
  readonly #shelf: ArenaShelf;
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #directory: Directory;
  readonly #swapper: MemorySwapper;
  readonly #policy: EvictionPolicy;
  readonly #disposables: Disposables;
  readonly #held: HeldBlocks;
  readonly #compactor: Compactor;
  readonly #events: EventHub;
  readonly #clock: Clock;
  readonly #tierName: string;
  readonly #giveUpGuess: ReclaimerOptions["giveUpGuess"];
  readonly #victims: Victims;
  readonly #byDemotion: RoomByDemotion;
  readonly #sink: StatsSink;
  #watch: PressureWatch | null = null;
  #collector: LifetimeCollector | null = null;
  #reservedCount = 0;
  /** Requests that demote at this moment. */
  #demotingCount = 0;

  constructor(options: ReclaimerOptions) {
    this.#core = options.core;
    this.#budget = options.budget;
    this.#shelf = options.shelf;
    this.#pools = options.pools;
    this.#directory = options.directory;
    this.#swapper = options.swapper;
    this.#policy = options.policy;
    this.#disposables = options.disposables;
    this.#held = options.held;
    this.#compactor = options.compactor;
    this.#events = options.events;
    this.#clock = options.clock;
    this.#tierName = options.tierName;
    this.#giveUpGuess = options.giveUpGuess;
    this.#victims = options.victims;
    this.#byDemotion = new RoomByDemotion(options);
    this.#sink = options.sink;
  }

  /**
   * Finds a block, trying every remedy that needs no waiting.
   *
   * @returns An unpinned slot, or 0.
   */
  tryPlace(pool: MemoryPool, bytes: number, alignment: number): number {
    if (!this.#isPossible(pool, bytes, 1)) return 0;
    const slot = pool.tryAllocate(bytes, alignment);
    if (slot === 0) return this.#tryRemedies(pool, bytes, alignment, SYNCHRONOUS_REMEDIES);
    this.#noteRoom();
    return slot;
  }

  /** @throws {OutOfMemoryError} Every remedy that needs no waiting was tried. */
  place(pool: MemoryPool, bytes: number, alignment: number): number {
    const slot = this.tryPlace(pool, bytes, alignment);
    if (slot !== 0) return slot;
    const advice = this.#core.hasFreeSlot
      ? "Free or unpin tensors, or await reserve(), which may demote."
      : `All ${this.#core.slotCapacity - 1} blocks are in use: use fewer and larger tensors, or a larger budget.`;
    throw this.#outOfMemory(pool, bytes, SYNCHRONOUS_REMEDIES, advice);
  }

  /** As {@link place}, a second block for a tensor: pinned meanwhile, so that no remedy moves it. */
  placeBeside({ slot, generation, alignment, pool }: TensorRecord, byteLength: number): number {
    this.#core.pin(slot, generation);
    try {
      return this.place(pool, byteLength, alignment);
    } finally {
      this.#core.unpin(slot, generation);
    }
  }

  /**
   * Makes sure that `count` tensors of `bytes` each can be allocated, by demoting if need be.
   *
   * @returns A promise whose first reaction gives the room up: whoever awaits this very promise comes next.
   * @throws {OutOfMemoryError}
   */
  reserve(
    pool: MemoryPool,
    request: { readonly bytes: number; readonly alignment: number; readonly count: number },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const slots: number[] = [];
    let endProgress = () => {};
    // Only a reservation that has all it wants can be waited for.
    const onComplete = () => {
      endProgress = this.#swapper.transfers.noteProgress();
    };
    const giveUp = () => {
      this.#reservedCount -= slots.length;
      for (const slot of slots.splice(0)) pool.free(slot, this.#core.generationOf(slot));
      endProgress();
    };
    const reserved = this.#reserveAll(pool, request, signal, slots, onComplete);
    reserved.then(giveUp, giveUp);
    return reserved;
  }

  async #reserveAll(
    pool: MemoryPool,
    request: { readonly bytes: number; readonly alignment: number; readonly count: number },
    signal: AbortSignal | undefined,
    slots: number[],
    onComplete: () => void,
  ): Promise<void> {
    const { bytes, alignment, count } = request;
    this.#checkPossible(pool, bytes, count);
    for (let index = 0; index < count; index++) {
      throwIfAborted(signal, this.#tierName);
      const onPlaced = () => {
        if (index === count - 1) onComplete();
        this.#reservedCount += 1;
      };
      slots.push(await this.placeDemoting(pool, bytes, alignment, onPlaced));
    }
  }

  /** Somebody waits for room. */
  get isDemoting(): boolean {
    return this.#demotingCount > 0;
  }

  /** Blocks that a reservation under way holds. */
  get reservedCount(): number {
    return this.#reservedCount;
  }

  /**
   * Finds a block where that costs nobody anything: in free room, while nobody waits for room.
   *
   * @returns An unpinned slot, or 0.
   */
  tryPlaceFree(pool: MemoryPool, bytes: number, alignment: number): number {
    if (this.#demotingCount > 0 || !this.#core.hasFreeSlot) return 0;
    const slot = pool.tryAllocate(bytes, alignment);
    if (slot !== 0 || !pool.tryAddArena(bytes)) return slot;
    return pool.tryAllocate(bytes, alignment);
  }

  /**
   * Finds a block, demoting others if need be.
   *
   * @param onPlaced Called in the turn in which the block is found.
   * @returns An unpinned slot.
   * @throws {OutOfMemoryError}
   */
  async placeDemoting(
    pool: MemoryPool,
    bytes: number,
    alignment: number,
    onPlaced: () => void,
  ): Promise<number> {
    this.#checkPossible(pool, bytes, 1);
    const slot = this.#tryWithoutVictims(pool, bytes, alignment);
    if (slot !== 0) {
      this.#noteRoom();
      onPlaced();
      return slot;
    }
    this.#demotingCount += 1;
    const startMs = this.#clock.monotonicMs();
    try {
      return await this.#byDemotion.make({
        ...{ pool, bytes },
        tryPlace: () => {
          const placed = this.#tryWithoutVictims(pool, bytes, alignment);
          if (placed !== 0) onPlaced();
          return placed;
        },
        canHelp: (record) => this.#canHelp(record, pool, bytes),
        refusal: (remedies, advice) => this.#outOfMemory(pool, bytes, remedies, advice),
      });
    } finally {
      this.#demotingCount -= 1;
      this.#sink.time("room.wait", this.#clock.monotonicMs() - startMs);
    }
  }

  #tryWithoutVictims(pool: MemoryPool, bytes: number, alignment: number): number {
    return (
      pool.tryAllocate(bytes, alignment) ||
      this.#tryRemedies(pool, bytes, alignment, REMEDIES_BEFORE_VICTIMS)
    );
  }

  /** @throws {OutOfMemoryError} Not even an empty heap could hold it: nothing else is tried. */
  #checkPossible(pool: MemoryPool, bytes: number, count: number): void {
    if (this.#isPossible(pool, bytes, count)) return;
    const mostBytes = this.#mostBytes(pool);
    const advice = `The budget leaves ${mostBytes} bytes for tensors of this kind: enlarge it.`;
    throw this.#outOfMemory(pool, bytes * count, [], advice);
  }

  #isPossible(pool: MemoryPool, bytes: number, count: number): boolean {
    const mostBytes = this.#mostBytes(pool);
    return pool.arenaBytesFor(bytes) <= mostBytes && bytes * count <= mostBytes;
  }

  /** What an empty heap could give to a pool. */
  #mostBytes(pool: MemoryPool): number {
    return Math.min(pool.budgetBytes, this.#budget.arenaLimitBytes);
  }

  /** Tries the allowed remedies in their fixed order, allocating again after each that did something. */
  #tryRemedies(
    pool: MemoryPool,
    bytes: number,
    alignment: number,
    allowed: readonly Remedy[],
  ): number {
    pool.notePressure();
    this.#watch?.measure();
    const remedies: Remedy[] = [];
    const place = (remedy: Remedy): number => {
      if (remedies.at(-1) !== remedy) remedies.push(remedy);
      return pool.tryAllocate(bytes, alignment);
    };
    // What was given up may have been the last block of an arena, which is then on the shelf.
    const placeOrAdd = (remedy: Remedy): number =>
      place(remedy) || (this.#tryAddArena(pool, bytes) ? place(remedy) : 0);
    let slot = 0;
    for (const remedy of allowed) {
      // Where blocks have run out of slots, more room does not help: only an eviction does.
      const isRoomOnly = ["add-arena", "release-idle", "compact"].includes(remedy);
      if (isRoomOnly && !this.#core.hasFreeSlot) continue;
      if (remedy === "add-arena") {
        if (this.#tryAddArena(pool, bytes)) slot = place(remedy);
      } else if (remedy === "release-idle") {
        if (this.#held.releaseIdle()) slot = placeOrAdd(remedy);
      } else if (remedy === "drop-guesses") {
        const helps = (record: TensorRecord) => this.#canHelp(record, pool, bytes);
        while (slot === 0 && this.#giveUpGuess(helps)) slot = placeOrAdd(remedy);
      } else if (remedy === "evict-clean") {
        slot = this.#tryEvictClean(pool, bytes, () => placeOrAdd(remedy));
      } else if (remedy === "drop-disposable") {
        slot = this.#tryDrop(pool, bytes, () => placeOrAdd(remedy));
      } else {
        if (this.#compactor.makeRoom(pool, bytes) > 0) slot = place(remedy);
        if (slot === 0 && this.#tryEvacuate(pool, bytes)) slot = place(remedy);
      }
      if (slot === 0) continue;
      const { kind } = pool;
      this.#events.emit({ type: "pressure", kind, requestedBytes: bytes, remedies });
      return slot;
    }
    return 0;
  }

  #tryAddArena(pool: MemoryPool, bytes: number): boolean {
    if (pool.tryAddArena(bytes)) return true;
    // Another pool may sit on an empty one.
    const { spareCount } = this.#shelf.stats();
    for (const other of this.#pools.values()) other.releaseEmptyArenas();
    return this.#shelf.stats().spareCount > spareCount && pool.tryAddArena(bytes);
  }

  /** Gets an arena that another pool can do without once its blocks have moved together. */
  #tryEvacuate(pool: MemoryPool, bytes: number): boolean {
    const arenaBytes = pool.arenaBytesFor(bytes);
    if (arenaBytes > pool.roomBytes) return false;
    for (const other of this.#pools.values()) {
      // An arena much longer than what is asked for would not be taken from the shelf.
      const isOfUse = other.arenaBytes >= arenaBytes && other.arenaBytes < 2 * arenaBytes;
      if (other === pool || !isOfUse || !this.#compactor.evacuate(other)) continue;
      if (pool.tryAddArena(bytes)) return true;
    }
    return false;
  }

  #tryEvictClean(pool: MemoryPool, bytes: number, place: () => number): number {
    const mayLeave = (record: TensorRecord) =>
      record.isClean && this.#swapper.canDemote(record) && this.#canHelp(record, pool, bytes);
    const victims = this.#victims;
    for (let over = victims.nextOver(pool, mayLeave); over !== null; ) {
      this.#swapper.evictClean(over);
      victims.left(over);
      const slot = place();
      if (slot !== 0) return slot;
      over = victims.nextOver(pool, mayLeave);
    }
    for (const index of this.#policy.candidates()) {
      const record = this.#directory.at(index);
      if (!mayLeave(record)) continue;
      this.#swapper.evictClean(record);
      const slot = place();
      if (slot !== 0) return slot;
    }
    return 0;
  }

  #tryDrop(pool: MemoryPool, bytes: number, place: () => number): number {
    for (const index of this.#policy.candidates()) {
      const record = this.#directory.at(index);
      if (!this.#disposables.canDropNow(record) || !this.#canHelp(record, pool, bytes)) continue;
      this.#disposables.drop(record);
      const slot = place();
      if (slot !== 0) return slot;
    }
    return 0;
  }

  #noteRoom(): void {
    this.#watch?.note();
    this.#collector?.note();
  }

  /** From here on what seems to be over is given up. */
  collectOver(collector: LifetimeCollector): void {
    this.#collector = collector;
  }

  /** From here on room is also made in the background. */
  watchPressure(watch: PressureWatch): void {
    this.#watch = watch;
  }

  /** Another pool's tensors make room only while this pool may take one more arena. */
  #canHelp(record: TensorRecord, pool: MemoryPool, bytes: number): boolean {
    return record.pool === pool || pool.arenaBytesFor(bytes) <= pool.roomBytes;
  }

  #outOfMemory(
    pool: MemoryPool,
    requestedBytes: number,
    remediesTried: readonly string[],
    advice: string,
  ): OutOfMemoryError {
    const stats = pool.stats();
    let pinnedBytes = 0;
    for (const { id } of pool.arenas) {
      for (const block of this.#core.blocks(id)) {
        if (block.pinCount > 0) pinnedBytes += block.grantedBytes;
      }
    }
    return new OutOfMemoryError({
      requestedBytes,
      freeBytes: stats.freeBytes,
      largestFreeBlockBytes: stats.largestFreeBlockBytes,
      pinnedBytes,
      budgetBytes: Math.min(pool.budgetBytes, this.#budget.limitBytes),
      remediesTried,
      advice,
    });
  }
}
