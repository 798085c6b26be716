// All arenas of one memory: creates them inside the budget, keeps emptied ones as spares for any
// pool, and drops spares on request. A dropped arena counts against the budget until the engine has
// collected it, because its bytes are resident until then.
import type { Arena, ArenaFactory } from "../arena/arena.js";
import type { ControlPlane } from "../core/control-plane.js";
import type { SharedArena } from "../core/lanes.js";
import type { Dtype, TensorView } from "../types.js";
import type { Budget } from "./budget.js";

/** An arena that a pool has open. */
export interface PoolArena {
  /** Number of the arena in the control plane. */
  readonly id: number;
  readonly arena: Arena;
  /** Other threads know it by its number, so it stays open. */
  isShared: boolean;
  /** It is emptied for somebody: nobody else allocates in it. */
  isHeld: boolean;
}

export interface ArenaShelfOptions {
  readonly core: ControlPlane;
  readonly budget: Budget;
  readonly createArena: ArenaFactory;
  readonly granuleShift: number;
  /** Told the anchor of an arena that is dropped, to let go of views on it. */
  readonly onDrop: (anchor: object) => void;
}

export interface ArenaShelfStats {
  readonly spareCount: number;
  readonly spareBytes: number;
  readonly addedCount: number;
  readonly droppedCount: number;
}

interface KeptView {
  readonly view: TensorView;
  readonly dtype: Dtype;
  readonly epoch: number;
}

/** Views of slots from here on are not kept. */
const KEPT_VIEWS_MAX = 16_384;

export class ArenaShelf {
  /** Somebody waits for arenas who is to have the next one: nobody is given any. */
  isHeld = false;
  readonly #core: ControlPlane;
  readonly #budget: Budget;
  readonly #createArena: ArenaFactory;
  readonly #granuleShift: number;
  readonly #onDrop: (anchor: object) => void;
  readonly #spares: Arena[] = [];
  /** By the control plane's number; the hot path resolves a slot's arena here. */
  readonly #open: (PoolArena | undefined)[] = [];
  /** By slot; a view costs more than an allocation. */
  #views: (KeptView | undefined)[] = [];
  readonly #retired: FinalizationRegistry<number>;
  #addedCount = 0;
  #droppedCount = 0;

  constructor(options: ArenaShelfOptions) {
    this.#core = options.core;
    this.#budget = options.budget;
    this.#createArena = options.createArena;
    this.#granuleShift = options.granuleShift;
    this.#onDrop = options.onDrop;
    this.#retired = new FinalizationRegistry((bytes) => this.#budget.release("retired", bytes));
  }

  /**
   * Opens an arena for a pool: a spare, else a new one inside the budget.
   *
   * @param capacityBytes Least length; a multiple of a wasm page.
   * @param capacityBytesMax Greatest length of a spare.
   * @returns null when neither is to be had, or {@link isHeld}.
   */
  tryOpen(pool: number, capacityBytes: number, capacityBytesMax: number): PoolArena | null {
    if (this.isHeld) return null;
    const arena =
      this.#takeSpare(capacityBytes, capacityBytesMax) ?? this.#tryCreate(capacityBytes);
    if (arena === null) return null;
    let id = 0;
    try {
      id = this.#core.openArena(pool, arena.capacityBytes, this.#granuleShift);
    } finally {
      // Refused, or poisoned: its bytes are charged.
      if (id === 0) this.#spares.push(arena);
    }
    if (id === 0) return null;
    const opened: PoolArena = { id, arena, isShared: false, isHeld: false };
    this.#open[id] = opened;
    return opened;
  }

  /** Takes an emptied arena back as a spare. */
  close(opened: PoolArena): void {
    if (this.#core.isArenaOpen(opened.id)) this.#core.closeArena(opened.id);
    this.#open[opened.id] = undefined;
    this.#spares.push(opened.arena);
  }

  /** After a recovery: closes what the interrupted call had opened and nobody was told of. */
  reconcile(): void {
    for (let id = 1; id < this.#core.arenaCapacity; id++) {
      if (this.#core.isArenaOpen(id) && this.#open[id] === undefined) this.#core.closeArena(id);
    }
  }

  /** Marks the arena of a live slot as one that other threads know, and gives it to them. */
  share(id: number): SharedArena {
    const opened = this.#open[id] as PoolArena;
    opened.isShared = true;
    return { id, buffer: opened.arena.anchor as SharedArrayBuffer };
  }

  /** The data plane of a live slot's block. */
  arenaOf(slot: number): Arena {
    return (this.#open[this.#core.arenaOf(slot)] as PoolArena).arena;
  }

  /**
   * A view of a live slot's block, the same one as before if it is the same block.
   *
   * @param epoch Of the slot: another block, or another place, has another one.
   */
  viewOf(
    slot: number,
    epoch: number,
    dtype: Dtype,
    offset: number,
    byteLength: number,
  ): TensorView {
    const kept = this.#views[slot];
    if (kept?.epoch === epoch && kept.dtype === dtype && kept.view.byteLength === byteLength) {
      return kept.view;
    }
    const view = this.arenaOf(slot).view(dtype, offset, byteLength);
    if (slot < KEPT_VIEWS_MAX) this.#views[slot] = { view, dtype, epoch };
    return view;
  }

  /**
   * Drops spares, the longest first, until `bytes` bytes are on their way back to the system.
   *
   * @returns Bytes dropped; 0, and nothing is dropped, when all spares together are fewer.
   */
  dropSpares(bytes: number): number {
    if (bytes <= 0 || this.stats().spareBytes < bytes) return 0;
    this.#spares.sort((left, right) => left.capacityBytes - right.capacityBytes);
    let droppedBytes = 0;
    while (droppedBytes < bytes) droppedBytes += this.#drop(this.#spares.pop() as Arena);
    return droppedBytes;
  }

  stats(): ArenaShelfStats {
    return {
      spareCount: this.#spares.length,
      spareBytes: this.#spares.reduce((sum, { capacityBytes }) => sum + capacityBytes, 0),
      addedCount: this.#addedCount,
      droppedCount: this.#droppedCount,
    };
  }

  // An arena of a tensor's own may serve a smaller such tensor, but not one half its size.
  #takeSpare(capacityBytes: number, capacityBytesMax: number): Arena | null {
    const index = this.#spares.findIndex(
      (spare) =>
        spare.capacityBytes >= capacityBytes &&
        spare.capacityBytes <= capacityBytesMax &&
        spare.capacityBytes < 2 * capacityBytes,
    );
    return index < 0 ? null : (this.#spares.splice(index, 1)[0] as Arena);
  }

  #tryCreate(capacityBytes: number): Arena | null {
    if (!this.#budget.tryCharge("arenas", capacityBytes)) return null;
    let arena: Arena | null = null;
    try {
      arena = this.#createArena(capacityBytes);
    } finally {
      if (arena === null) this.#budget.release("arenas", capacityBytes);
    }
    if (arena !== null) this.#addedCount += 1;
    return arena;
  }

  #drop(arena: Arena): number {
    // A view keeps the arena's memory alive.
    this.#views = this.#views.map((kept) =>
      kept?.view.buffer === arena.anchor ? undefined : kept,
    );
    this.#onDrop(arena.anchor);
    this.#droppedCount += 1;
    this.#budget.move("arenas", "retired", arena.capacityBytes);
    this.#retired.register(arena.anchor, arena.capacityBytes);
    return arena.capacityBytes;
  }
}
