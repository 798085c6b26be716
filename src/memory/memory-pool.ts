// The arenas of one tensor kind, with one budget. Grows by arenas, never by bytes.
import { type BlockCount, type BlockCounts, sortedBlockCounts } from "../core/block-counts.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { ArenaCounters, PoolCounters } from "../core/counters.js";
import { WASM_PAGE_BYTES } from "../core/linear-memory.js";
import type { TensorKind } from "../types.js";
import type { ArenaShelf, PoolArena } from "./arena-shelf.js";
import { type FragmentationLevel, fragmentationLevel } from "./fragmentation.js";

/** What compaction has done in a pool since the beginning. */
export interface CompactionTotals {
  /** Plans begun: one for each arena of a round, and more for one that is emptied. */
  readonly planCount: number;
  /** Blocks moved. */
  readonly moveCount: number;
  readonly movedBytes: number;
  /** Moves given up because the block was pinned or freed meanwhile. */
  readonly vetoCount: number;
  /** Arenas that were emptied into others and handed back. */
  readonly evacuatedCount: number;
}

export interface PoolStats extends PoolCounters {
  readonly kind: TensorKind;
  /** One row for each open arena, in the order in which they are asked for room. */
  readonly arenas: readonly ArenaCounters[];
  /** Infinity when the pool draws from the common budget alone. */
  readonly budgetBytes: number;
  /** Length of an ordinary arena. */
  readonly arenaBytes: number;
  readonly arenaCount: number;
  readonly capacityBytes: number;
  readonly capacityBytesPeak: number;
  readonly freeBytes: number;
  readonly largestFreeBlockBytes: number;
  readonly pinnedCount: number;
  /**
   * 1 − free bytes in the longest free piece of each arena ÷ free bytes; 0 when nothing is free. What is
   * cached, or free in slabs, is in no such piece.
   */
  readonly externalFragmentation: number;
  /** What {@link PoolStats.externalFragmentation} amounts to. */
  readonly fragmentationLevel: FragmentationLevel;
  readonly externalFragmentationPeak: number;
  /** 1 − requested ÷ granted; 0 when nothing is granted. */
  readonly internalFragmentation: number;
  /** Bytes that compaction has moved: {@link CompactionTotals.movedBytes}. */
  readonly compactedBytes: number;
  readonly compaction: CompactionTotals;
  /** Free blocks of the arenas' order trees, shortest first. What is free in slabs is not among them. */
  readonly freeBlocks: readonly BlockCount[];
  /**
   * Freed blocks that are kept for the next request of their size class, shortest first. What worker
   * threads keep is not among them.
   */
  readonly cachedBlocks: readonly BlockCount[];
}

/** The free space of a pool's arenas. */
export interface PoolFreeSpace {
  readonly freeBytes: number;
  readonly largestFreeBlockBytes: number;
  readonly capacityBytes: number;
  readonly externalFragmentation: number;
}

export interface MemoryPoolOptions {
  readonly kind: TensorKind;
  readonly index: number;
  readonly budgetBytes: number;
  /** Length of an ordinary arena; a power of two. A longer tensor gets an arena of its own. */
  readonly arenaBytes: number;
  /** Bytes behind every tensor. Default: 0. */
  readonly canaryBytes?: number;
  /** Blocks of at least this length start at a multiple of it; a power of two up to 65,536. Default: 1. */
  readonly alignmentBytes?: number;
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
}

export class MemoryPool {
  readonly kind: TensorKind;
  readonly budgetBytes: number;
  readonly arenaBytes: number;
  /** Counted by the compactor. */
  readonly compaction: { -readonly [Total in keyof CompactionTotals]: number } = {
    planCount: 0,
    moveCount: 0,
    movedBytes: 0,
    vetoCount: 0,
    evacuatedCount: 0,
  };
  /** Told of every free; does almost nothing. */
  onFreed: () => void = () => {};
  readonly #index: number;
  readonly #canaryBytes: number;
  readonly #alignmentBytes: number;
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #arenas: PoolArena[] = [];
  #capacityBytes = 0;
  #capacityBytesPeak = 0;
  #externalFragmentationPeak = 0;

  constructor(options: MemoryPoolOptions) {
    this.kind = options.kind;
    this.budgetBytes = options.budgetBytes;
    this.arenaBytes = options.arenaBytes;
    this.#index = options.index;
    this.#canaryBytes = options.canaryBytes ?? 0;
    this.#alignmentBytes = options.alignmentBytes ?? 1;
    this.#core = options.core;
    this.#shelf = options.shelf;
  }

  /** Bytes in blocks that are live. */
  get grantedBytes(): number {
    return this.#core.poolCounters(this.#index).grantedBytes;
  }

  /** What the pool's own budget leaves for further arenas. */
  get roomBytes(): number {
    return this.budgetBytes - this.#capacityBytes;
  }

  /** What a tensor of `bytes` asks the core for: its bytes and, in debug mode, a canary. */
  blockBytes(bytes: number): number {
    return bytes + this.#canaryBytes;
  }

  /** Where a tensor of `bytes` starts that asks for this alignment: as it asks, or at a coarser step of the pool's. */
  alignmentFor(bytes: number, alignment: number): number {
    const isCoarser = this.#alignmentBytes > alignment && bytes >= this.#alignmentBytes;
    return isCoarser ? this.#alignmentBytes : alignment;
  }

  /** Length of the arena that a tensor of `bytes` needs. */
  arenaBytesFor(bytes: number): number {
    const blockBytes = this.blockBytes(bytes);
    if (blockBytes <= this.arenaBytes) return this.arenaBytes;
    return Math.ceil(blockBytes / WASM_PAGE_BYTES) * WASM_PAGE_BYTES;
  }

  get arenas(): readonly PoolArena[] {
    return this.#arenas;
  }

  /** @returns A slot, or 0 when no open arena has room. One call into the core per arena tried. */
  tryAllocate(bytes: number, alignment: number): number {
    const blockBytes = this.blockBytes(bytes);
    if (blockBytes > this.arenaBytes) return this.#tryAllocateWhole(blockBytes);
    const coarsest = this.alignmentFor(bytes, alignment);
    for (const { id, isHeld } of this.#arenas) {
      if (isHeld) continue;
      const slot = this.#core.allocate(id, blockBytes, coarsest);
      if (slot !== 0) return slot;
    }
    return 0;
  }

  /** Opens one more arena that can hold `bytes`, inside both budgets. */
  tryAddArena(bytes: number): boolean {
    const capacityBytes = this.arenaBytesFor(bytes);
    if (capacityBytes > this.roomBytes) return false;
    const opened = this.#shelf.tryOpen(this.#index, capacityBytes, this.roomBytes);
    if (opened === null) return false;
    this.#arenas.push(opened);
    this.#capacityBytes += opened.arena.capacityBytes;
    this.#capacityBytesPeak = Math.max(this.#capacityBytesPeak, this.#capacityBytes);
    return true;
  }

  /**
   * Frees a block, and hands its arena back if that emptied it, unless it is the pool's last.
   *
   * @throws {MisuseError} `stale-handle`, `foreign-handle`, `pinned`.
   */
  free(slot: number, generation: number): void {
    const id = this.#core.arenaOf(slot);
    this.#core.free(slot, generation);
    this.closeIfEmpty(id);
  }

  /**
   * Hands an arena back if it is empty and not the pool's last. Called whenever something was freed.
   *
   * @param id Its number in the core.
   */
  closeIfEmpty(id: number): void {
    this.onFreed();
    if (this.#core.arenaLiveCount(id) > 0) return;
    const emptied = this.#arenas.find((opened) => opened.id === id);
    if (emptied === undefined || emptied.isShared) return;
    const isOrdinary = emptied.arena.capacityBytes === this.arenaBytes;
    if (this.#arenas.length > 1 || !isOrdinary) this.#close(emptied);
  }

  /** Hands every empty arena back to the shelf. */
  releaseEmptyArenas(): void {
    for (const opened of [...this.#arenas]) {
      if (this.#core.arenaLiveCount(opened.id) === 0 && !opened.isShared) this.#close(opened);
    }
  }

  /** After a recovery: ends the closing that was interrupted, if it was one. */
  reconcile(): void {
    for (const opened of [...this.#arenas]) {
      if (!this.#core.isArenaOpen(opened.id)) this.#close(opened);
    }
  }

  /** Whether moving blocks could make `bytes` free in a row in an arena where they are not now. */
  canCompactFor({ id }: PoolArena, bytes: number): boolean {
    return this.#core.arenaCounters(id).freeBytes >= bytes;
  }

  /** Makes an arena the last one that is asked for room. */
  putLast(opened: PoolArena): void {
    this.#arenas.splice(this.#arenas.indexOf(opened), 1);
    this.#arenas.push(opened);
  }

  /** Blocks ever freed. Cost: one look at each arena and its class caches. */
  get freeCount(): number {
    return this.#core.poolCounters(this.#index).freeCount;
  }

  /** Cost: a look at each arena. */
  freeSpace(): PoolFreeSpace {
    let freeBytes = 0;
    let largestFreeBlockBytes = 0;
    let longestFreeBytes = 0;
    for (const { id } of this.#arenas) {
      const counters = this.#core.arenaCounters(id);
      freeBytes += counters.freeBytes;
      longestFreeBytes += this.#core.longestFreeBytes(id);
      largestFreeBlockBytes = Math.max(largestFreeBlockBytes, counters.largestFreeBlockBytes);
    }
    const externalFragmentation = freeBytes === 0 ? 0 : 1 - longestFreeBytes / freeBytes;
    const capacityBytes = this.#capacityBytes;
    return { freeBytes, largestFreeBlockBytes, capacityBytes, externalFragmentation };
  }

  /** Notes the external fragmentation of this moment for the peak; called when a request is refused. */
  notePressure(): void {
    this.#externalFragmentationPeak = Math.max(
      this.#externalFragmentationPeak,
      this.freeSpace().externalFragmentation,
    );
  }

  /** Cost: a bounded number of looks at each arena, however many blocks are in it. */
  stats(): PoolStats {
    let pinnedCount = 0;
    const free: BlockCounts = new Map();
    const cached: BlockCounts = new Map();
    const arenas = this.#arenas.map(({ id }) => this.#core.arenaCounters(id));
    for (const { pinnedCount: count } of arenas) pinnedCount += count;
    for (const { id } of this.#arenas) {
      this.#core.countBlocks(id, free, cached);
    }
    const counters = this.#core.poolCounters(this.#index);
    const space = this.freeSpace();
    const { externalFragmentation } = space;
    return {
      ...counters,
      kind: this.kind,
      arenas,
      budgetBytes: this.budgetBytes,
      arenaBytes: this.arenaBytes,
      arenaCount: this.#arenas.length,
      ...space,
      capacityBytesPeak: this.#capacityBytesPeak,
      pinnedCount,
      fragmentationLevel: fragmentationLevel(externalFragmentation),
      externalFragmentationPeak: this.#externalFragmentationPeak,
      internalFragmentation:
        counters.grantedBytes === 0 ? 0 : 1 - counters.requestedBytes / counters.grantedBytes,
      compactedBytes: this.compaction.movedBytes,
      compaction: { ...this.compaction },
      freeBlocks: sortedBlockCounts(free),
      cachedBlocks: sortedBlockCounts(cached),
    };
  }

  #tryAllocateWhole(bytes: number): number {
    for (const { id, arena, isHeld } of this.#arenas) {
      if (isHeld || arena.capacityBytes < bytes || this.#core.arenaLiveCount(id) > 0) continue;
      const slot = this.#core.allocateWhole(id, bytes);
      if (slot !== 0) return slot;
    }
    return 0;
  }

  #close(opened: PoolArena): void {
    this.#shelf.close(opened);
    this.#arenas.splice(this.#arenas.indexOf(opened), 1);
    this.#capacityBytes -= opened.arena.capacityBytes;
  }
}
