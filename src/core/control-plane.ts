// The host's side of core.wasm: one instance keeps the metadata of every arena. Layer: core.
//
// It never sees tensor bytes. Results are unsigned here and nowhere else; shortage is a zero with a
// status beside it; misuse of a handle becomes a MisuseError in `refuse`.
import * as abi from "../../assembly/abi.js";
import { MisuseError, PoisonedError, TierError } from "../errors.js";
import { freeBatches } from "./batch.js";
import { addCachedBlocks, addFreeBlocks, type BlockCounts } from "./block-counts.js";
import type { BlockHandle, BlockInfo, FreeRefusal, Move } from "./block-info.js";
import { type ClassCacheCounters, readClassCaches } from "./class-caches.js";
import type { ArenaCounters, PoolCounters } from "./counters.js";
import { invariantName } from "./invariants.js";
import { Lanes, type LaneToken } from "./lanes.js";
import { isSharedMemory, LinearMemory } from "./linear-memory.js";
import { isOrdinary, misuseOf } from "./refusals.js";
import { type ControlPlaneOptions, createTables } from "./tables.js";
import { type CoreExports, instantiateSharedCore } from "./wasm-modules.js";

/** Most arenas, and most blocks, that one control plane can have. */
export const ARENA_CAPACITY_MAX = abi.ARENA_CAPACITY_MAX;
export const SLOT_CAPACITY_MAX = abi.SLOT_CAPACITY_MAX;

const NO_WORDS = new Int32Array(0);

export class ControlPlane {
  readonly byteLength: number;
  readonly slotCapacity: number;
  /** The lane of this thread; the first one in a plane that is not shared. */
  readonly lane: number;
  /** What several threads do with the plane; null in one that is not shared. */
  readonly lanes: Lanes | null;
  readonly #core: CoreExports;
  /** The exports themselves, for calls that find the guard taken almost never. */
  readonly #tryAllocate: CoreExports["arenaAllocate"];
  readonly #tryFree: CoreExports["slotFree"];
  /** Address of the status of the last refusal. */
  readonly #statusAddress: number;
  // Numbers start as numbers and arrays as arrays: of a field that was undefined once, the engine
  // looks up at every use what it holds.
  readonly #base: number = 0;
  readonly #words: Uint32Array;
  readonly #signedWords: Int32Array = NO_WORDS;
  readonly #hotWord: number = 0;
  /** Word of the generation in the row of slot 0. */
  readonly #generationWord: number = 0;
  readonly #coldWord: number;
  /** The batch lies behind the control plane, at the end of its memory. */
  readonly #batchAddress: number;

  private constructor(
    core: CoreExports,
    memory: LinearMemory,
    { module, base, lane }: Pick<LaneToken, "module" | "base" | "lane">,
    batchBytes: number,
  ) {
    this.#base = base;
    this.lane = lane;
    this.byteLength = memory.byteLength;
    this.#words = new Uint32Array(memory.wasm.buffer);
    this.#signedWords = new Int32Array(memory.wasm.buffer);
    this.lanes = isSharedMemory(memory.wasm)
      ? new Lanes(core, { memory: memory.wasm, module, base, lane }, (code) => this.refuse(code))
      : null;
    this.#tryAllocate = core.arenaAllocate;
    this.#tryFree = core.slotFree;
    this.#core = this.lanes?.core ?? core;
    this.#statusAddress = this.lanes?.statusAddress ?? base + abi.CONTROL_OFF_STATUS;
    this.slotCapacity = this.#header(abi.CONTROL_OFF_SLOT_CAPACITY);
    this.#hotWord = (base + this.#header(abi.CONTROL_OFF_HOT)) / 4;
    this.#generationWord = this.#hotWord + abi.HOT_OFF_GENERATION / 4;
    this.#coldWord = (base + this.#header(abi.CONTROL_OFF_COLD)) / 4;
    this.#batchAddress = memory.byteLength - batchBytes;
  }

  /**
   * @throws {MisuseError} `bad-option` — the tables do not fit 4 GiB.
   * @throws {OutOfMemoryError} The platform refuses the memory for them.
   */
  static async create(options: ControlPlaneOptions): Promise<ControlPlane> {
    const { core, memory, place, batchBytes } = await createTables(options);
    return new ControlPlane(core, memory, place, batchBytes);
  }

  /**
   * The same plane as another lane, in another thread.
   *
   * @throws {MisuseError} `bad-option` — the token is none, or somebody has attached with it before.
   */
  static async attach(token: LaneToken): Promise<ControlPlane> {
    const { memory, module, base, lane } = token;
    const core = await instantiateSharedCore(memory, module, lane);
    if (core.controlAttach(base) !== abi.STATUS_OK || core.laneAttach(base) !== abi.STATUS_OK) {
      throw new MisuseError("bad-option", "the token is not that of a free lane");
    }
    return new ControlPlane(core, new LinearMemory(memory), token, 0);
  }

  /** @returns The arena's id, or 0 when the arena table or the metadata region is full. */
  openArena(pool: number, capacityBytes: number, granuleShift: number): number {
    const granules = Math.floor(capacityBytes / 2 ** granuleShift);
    return this.#zeroOrThrow(this.#core.arenaOpen(this.#base, pool, granules, granuleShift) >>> 0);
  }

  /** The arena must hold no live block. */
  closeArena(arena: number): void {
    this.refuse(this.#core.arenaClose(this.#base, arena) >>> 0);
  }

  /**
   * @param requestedBytes 1 to 2^32 − 1.
   * @param alignment A power of two.
   * @returns A slot, or 0.
   */
  allocate(arena: number, requestedBytes: number, alignment: number): number {
    const allocate = this.#tryAllocate;
    const slot = allocate(this.#base, arena, requestedBytes, alignment);
    if (slot !== 0) return slot;
    if (this.lanes === null) return this.#zeroOrThrow(0);
    return this.#zeroOrThrow(
      this.#core.arenaAllocate(this.#base, arena, requestedBytes, alignment),
    );
  }

  /** Gives the whole of an empty arena to one block. @returns A slot, or 0. */
  allocateWhole(arena: number, requestedBytes: number): number {
    return this.#zeroOrThrow(this.#core.arenaAllocateWhole(this.#base, arena, requestedBytes));
  }

  /** @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`. */
  free(slot: number, generation: number): void {
    const free = this.#tryFree;
    const status = free(this.#base, slot, generation);
    // STATUS_OK; an imported constant would be loaded.
    if (status === 0) return;
    this.refuse(
      status === abi.STATUS_BUSY ? this.#core.slotFree(this.#base, slot, generation) : status,
    );
  }

  /**
   * Frees many blocks in one call into the core, or in one for every {@link BATCH_HANDLES_MAX} of
   * them. What is refused does not stop the rest.
   *
   * @returns The refusals, as {@link free} throws them; none as a rule.
   */
  freeAll(handles: readonly BlockHandle[]): FreeRefusal[] {
    const free = (count: number) => {
      const refusedCount = this.#core.slotFreeBatch(this.#base, this.#batchAddress, count);
      const status = this.#word(this.#statusAddress);
      if (refusedCount !== 0 && status === abi.STATUS_BUSY) this.refuse(status);
      return refusedCount;
    };
    const refusals: FreeRefusal[] = [];
    for (const { index, status } of freeBatches(
      this.#signedWords,
      this.#batchAddress,
      handles,
      free,
    )) {
      try {
        this.refuse(status);
      } catch (error) {
        refusals.push({ index, error: error as Error });
      }
    }
    return refusals;
  }

  /**
   * Resizes a block where it is, and changes its epoch.
   *
   * @param requestedBytes 1 to 2^32 − 1.
   * @param alignment A power of two.
   * @returns false if the block would have to move; nothing has changed then.
   * @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`.
   */
  tryResize(slot: number, generation: number, requestedBytes: number, alignment: number): boolean {
    const status = this.#core.slotResize(this.#base, slot, generation, requestedBytes, alignment);
    if (status === abi.STATUS_NO_ROOM) return false;
    if (status !== abi.STATUS_OK) this.refuse(status);
    return true;
  }

  /**
   * Exchanges the blocks of two slots whose arenas are of one pool, and changes both epochs.
   *
   * @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`.
   */
  exchange(slot: number, generation: number, other: number, otherGeneration: number): void {
    this.refuse(this.#core.slotExchange(this.#base, slot, generation, other, otherGeneration));
  }

  /**
   * Pins a block: it neither moves nor leaves until {@link unpin}.
   *
   * @returns The slot's epoch, never 0. A view made at another epoch is stale.
   * @throws {MisuseError} `stale-handle`, `foreign-handle`, `pin-limit`.
   */
  pin(slot: number, generation: number): number {
    const epoch = this.#core.slotPin(this.#base, slot, generation);
    if (epoch === 0) this.refuse(this.#word(this.#statusAddress));
    return epoch;
  }

  /** @throws {MisuseError} `stale-handle`, `foreign-handle`, `unpinned`. */
  unpin(slot: number, generation: number): void {
    const status = this.#core.slotUnpin(this.#base, slot, generation);
    if (status !== abi.STATUS_OK) this.refuse(status);
  }

  /** @throws {MisuseError} `stale-handle`, `foreign-handle`. */
  resolve(slot: number, generation: number): void {
    const status = this.#core.slotResolve(this.#base, slot, generation);
    if (status !== abi.STATUS_OK) this.refuse(status);
  }

  // Rows are read straight from the table: a call costs more than the load. The slot must be live.

  generationOf(slot: number): number {
    return this.#signedWords[this.#generationWord + slot * 4] as number;
  }

  arenaOf(slot: number): number {
    return this.#stateWord(slot) >>> 16;
  }

  /** A number that stands for where in its arena a live block starts. */
  placeOf(slot: number): number {
    return this.#signedWords[this.#hotWord + slot * 4] as number;
  }

  /** Bytes from the arena's base to the block. */
  offsetOf(slot: number): number {
    const offset = this.#words[this.#hotWord + slot * 4] as number;
    return offset * this.#unitBytes(this.arenaOf(slot));
  }

  requestedBytesOf(slot: number): number {
    return this.#words[this.#hotWord + slot * 4 + abi.HOT_OFF_REQUESTED / 4] as number;
  }

  pinCountOf(slot: number): number {
    if (this.#stateOf(slot) !== abi.SLOT_STATE_PINNED) return 0;
    const word = (slot * abi.COLD_BYTES + abi.COLD_OFF_PINS) / 4;
    return (this.#words[this.#coldWord + word] as number) & 0xffff;
  }

  isLive(slot: number): boolean {
    const state = this.#stateOf(slot);
    return state === abi.SLOT_STATE_LIVE || state === abi.SLOT_STATE_PINNED;
  }

  /** Bytes of the block, requested and rounded up. */
  grantedBytesOf(slot: number): number {
    return (this.#core.slotUnits(this.#base, slot) >>> 0) * this.#unitBytes(this.arenaOf(slot));
  }

  // --- Compaction: plan in the core, bytes moved by the data plane, commit or veto per move --------

  /**
   * Starts a plan for one arena; an older plan is dropped.
   *
   * @param needBytes Bytes that are to be free in a row; the plan ends when they are. Default: 0, which
   *   asks for as many as can be.
   * @param maySlide Whether a move may overlap its own source. Its bytes are then copied and committed
   *   at once, and copied back before a veto. Default: false.
   */
  beginCompaction(arena: number, needBytes = 0, maySlide = false): void {
    this.#core.compactBegin(this.#base, arena, needBytes, maySlide);
  }

  /**
   * Starts a plan that moves the blocks of an arena into another one of its pool; an older plan is
   * dropped. What finds no place there stays; so does everything if only one of the two has slabs.
   */
  beginEvacuation(arena: number, into: number): void {
    this.#core.compactEvacuate(this.#base, arena, into);
  }

  /** The next move, whose target is already claimed, or null when there is no plan or no more of it. */
  nextMove(): Move | null {
    const slot = this.#zeroOrThrow(this.#core.compactNext(this.#base) >>> 0);
    if (slot === 0) return null;
    const unitBytes = this.#unitBytes(this.arenaOf(slot));
    return {
      slot,
      into: this.#header(abi.CONTROL_OFF_PLAN_INTO),
      sourceOffset: this.#header(abi.CONTROL_OFF_PLAN_SOURCE) * unitBytes,
      targetOffset: this.#header(abi.CONTROL_OFF_PLAN_TARGET) * unitBytes,
      byteLength: this.requestedBytesOf(slot),
    };
  }

  /** Binds the block to its target. @returns false when it was pinned or freed meanwhile. */
  commitMove(): boolean {
    const status = this.#core.compactCommit(this.#base) >>> 0;
    if (status === abi.STATUS_PINNED || status === abi.STATUS_STALE) return false;
    this.refuse(status);
    return true;
  }

  /** Gives the target of the pending move back. */
  vetoMove(): void {
    this.refuse(this.#core.compactVeto(this.#base) >>> 0);
  }

  /** Gives the target of the pending move back; {@link nextMove} offers the same block again. */
  postponeMove(): void {
    this.refuse(this.#core.compactPostpone(this.#base) >>> 0);
  }

  // --- Figures -------------------------------------------------------------------------------------

  poolCounters(pool: number): PoolCounters {
    const address = this.#base + this.#header(abi.CONTROL_OFF_POOLS) + pool * abi.POOL_BYTES;
    const wide = (offset: number) => this.#wide(address + offset);
    let allocationCount = wide(abi.POOL_OFF_ALLOCATIONS);
    let cachedBytes = 0;
    let liveCount = 0;
    let driftBytes = 0;
    for (let arena = 1; arena < this.arenaCapacity; arena++) {
      if (!this.isArenaOpen(arena) || this.#arena(arena, abi.ARENA_OFF_POOL) !== pool) continue;
      const cached = this.#cached(arena);
      allocationCount += cached.takenCount;
      cachedBytes += cached.bytes;
      liveCount += this.arenaLiveCount(arena);
      driftBytes += this.lanes?.figures(arena).driftBytes ?? 0;
    }
    const requestedBytes =
      wide(abi.POOL_OFF_REQUESTED_PEAK) - wide(abi.POOL_OFF_HEADROOM) + driftBytes;
    const claimedBytes = wide(abi.POOL_OFF_CLAIMED);
    return {
      requestedBytes,
      requestedBytesPeak: Math.max(wide(abi.POOL_OFF_REQUESTED_PEAK), requestedBytes),
      grantedBytes: claimedBytes - cachedBytes,
      claimedBytes,
      claimedBytesPeak: wide(abi.POOL_OFF_CLAIMED_PEAK),
      allocationCount,
      freeCount: allocationCount - liveCount,
      liveCount,
    };
  }

  arenaCounters(arena: number): ArenaCounters {
    const granuleBytes = 2 ** this.#arena(arena, abi.ARENA_OFF_GRANULE_SHIFT);
    const capacityBytes = this.#arena(arena, abi.ARENA_OFF_CAPACITY) * granuleBytes;
    const liveCount = this.arenaLiveCount(arena);
    const tree = this.#base + this.#arena(arena, abi.ARENA_OFF_TREE);
    const isTarget =
      this.#header(abi.CONTROL_OFF_PLAN_SLOT) !== 0 &&
      this.#header(abi.CONTROL_OFF_PLAN_INTO) === arena;
    // What an empty arena has cached is given back before a request is refused; the target of a pending
    // move is not.
    const orders =
      liveCount === 0 && !isTarget
        ? this.#arena(arena, abi.ARENA_OFF_CAPACITY)
        : this.#word(tree + abi.TREE_OFF_MASK);
    const row = this.#arenaAddress(arena);
    const grantedBytes = this.#wide(row + abi.ARENA_OFF_CLAIMED) - this.#cached(arena).bytes;
    return {
      capacityBytes,
      grantedBytes,
      requestedBytes:
        (this.#wide(row + abi.ARENA_OFF_USAGE) % 2 ** abi.USAGE_COUNT_SHIFT) +
        (this.lanes?.figures(arena).driftBytes ?? 0),
      freeBytes: capacityBytes - grantedBytes,
      largestFreeBlockBytes: orders === 0 ? 0 : 2 ** (31 - Math.clz32(orders)) * granuleBytes,
      slabCount: this.#arena(arena, abi.ARENA_OFF_SLAB_COUNT),
      liveCount,
      pinnedCount: this.#arena(arena, abi.ARENA_OFF_PINNED_COUNT),
    };
  }

  /** Adds an arena's free blocks, by the orders of its tree, and those that its class caches hold. */
  countBlocks(arena: number, free: BlockCounts, cached: BlockCounts): void {
    addFreeBlocks(this.#words, this.#base, this.#arenaAddress(arena), free);
    addCachedBlocks(this.#words, this.#base, this.#arenaAddress(arena), cached);
  }

  /** Bytes of the longest free piece of an arena: of free blocks that touch one another. */
  longestFreeBytes(arena: number): number {
    const granules = this.#core.arenaLongestFree(this.#base, arena) >>> 0;
    return granules * 2 ** this.#arena(arena, abi.ARENA_OFF_GRANULE_SHIFT);
  }

  arenaLiveCount(arena: number): number {
    const settledCount =
      this.#arena(arena, abi.ARENA_OFF_USAGE + 4) >>> (abi.USAGE_COUNT_SHIFT - 32);
    return this.lanes === null ? settledCount : settledCount + this.lanes.figures(arena).driftCount;
  }

  isHandleLive(slot: number, generation: number): boolean {
    return this.isLive(slot) && this.generationOf(slot) === generation;
  }

  /** Every live slot of this lane, upwards. Walks the slot table. */
  *liveSlots(): Generator<number> {
    const end = this.#header(abi.CONTROL_OFF_SLOT_FRESH);
    for (let slot = 1; slot < end; slot++) {
      if (this.isLive(slot) && this.laneOf(slot) === this.lane) yield slot;
    }
  }

  /** The lane that owns the block of a live slot; 0 if nobody does. */
  laneOf(slot: number): number {
    const word = (slot * abi.COLD_BYTES + abi.COLD_OFF_PINS) / 4;
    return (this.#words[this.#coldWord + word] as number) >>> 16;
  }

  /**
   * Every live block of an arena, in no order. Walks the slot table: for maps, not for hot paths.
   *
   * @param arena Default: 0, which stands for all arenas.
   */
  *blocks(arena = 0): Generator<BlockInfo> {
    const end = this.#header(abi.CONTROL_OFF_SLOT_FRESH);
    for (let slot = 1; slot < end; slot++) {
      if (this.isLive(slot) && (arena === 0 || this.arenaOf(slot) === arena)) {
        yield {
          slot,
          offset: this.offsetOf(slot),
          grantedBytes: this.grantedBytesOf(slot),
          requestedBytes: this.requestedBytesOf(slot),
          pinCount: this.pinCountOf(slot),
        };
      }
    }
  }

  get liveCount(): number {
    let liveCount = 0;
    for (let arena = 1; arena < this.arenaCapacity; arena++) {
      if (this.isArenaOpen(arena)) liveCount += this.arenaLiveCount(arena);
    }
    return liveCount;
  }

  /** Whether another block could be named; slot 0 is nobody's. */
  get hasFreeSlot(): boolean {
    return this.liveCount < this.slotCapacity - 1;
  }

  /** Walks every invariant. @returns 0, or the code of the first one broken ({@link invariantName}). */
  check(): number {
    const code = this.#core.check(this.#base) >>> 0;
    if (code === abi.STATUS_BUSY && this.lanes !== null) this.refuse(code);
    return code;
  }

  /**
   * Rebuilds the books from the slot table after a call that was interrupted.
   *
   * @throws {PoisonedError} The slot table itself is damaged. Nothing can be changed any more.
   */
  recover(): void {
    const code = this.#core.recover(this.#base) >>> 0;
    if (code === abi.STATUS_BUSY) this.refuse(code);
    if (code !== 0) {
      throw new PoisonedError(`the slot table is damaged (${invariantName(code)})`);
    }
  }

  isArenaOpen(arena: number): boolean {
    return this.#arena(arena, abi.ARENA_OFF_STATE) === abi.ARENA_STATE_OPEN;
  }

  get arenaCapacity(): number {
    return this.#header(abi.CONTROL_OFF_ARENA_CAPACITY);
  }

  /** Turns a status other than OK into the error it means. */
  refuse(status: number): void {
    if (status === abi.STATUS_OK) return;
    if (status !== abi.STATUS_BUSY) throw misuseOf(status);
    if (this.lanes?.isPoisoned === false) {
      throw new TierError("busy", "memory", "another worker is changing the heap: try again");
    }
    throw new PoisonedError("the core was interrupted in the middle of a change: recover()");
  }

  // A zero is an ordinary refusal unless the status beside it says misuse.
  #zeroOrThrow(result: number): number {
    if (result !== 0) return result;
    const status = this.#word(this.#statusAddress);
    if (!isOrdinary(status)) this.refuse(status);
    return 0;
  }

  #word(address: number): number {
    return this.#words[address / 4] as number;
  }

  #wide(address: number): number {
    return this.#word(address) + this.#word(address + 4) * 2 ** 32;
  }

  #header(offset: number): number {
    return this.#word(this.#base + offset);
  }

  #stateWord(slot: number): number {
    return this.#words[this.#hotWord + slot * 4 + abi.HOT_OFF_SIZING / 4] as number;
  }

  #stateOf(slot: number): number {
    return (this.#stateWord(slot) >>> 8) & 0xff;
  }

  #cached(arena: number): ClassCacheCounters {
    const address = this.#base + this.#arena(arena, abi.ARENA_OFF_CACHES);
    const classCount = this.#arena(arena, abi.ARENA_OFF_CACHE_CLASS_COUNT);
    const cached = readClassCaches(this.#words, address, classCount);
    if (this.lanes === null) return cached;
    const { cachedBytes, takenCount } = this.lanes.figures(arena);
    return { bytes: cached.bytes + cachedBytes, takenCount: cached.takenCount + takenCount };
  }

  /** Bytes in which the offsets of an arena's slots count. */
  #unitBytes(arena: number): number {
    return 1 << this.#arena(arena, abi.ARENA_OFF_UNIT_SHIFT);
  }

  #arenaAddress(arena: number): number {
    return this.#base + this.#header(abi.CONTROL_OFF_ARENAS) + arena * abi.ARENA_BYTES;
  }

  #arena(arena: number, offset: number): number {
    return this.#word(this.#arenaAddress(arena) + offset);
  }
}
