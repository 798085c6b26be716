// A shared memory as a worker sees it: tensors in RAM, in arenas that the memory's maker has opened.
// No ids, no tiers: what a worker allocates is anonymous, and goes to others by being handed over.
import { ControlPlane } from "../core/control-plane.js";
import { holdLaneLock } from "../core/lane-watch.js";
import { type Lanes, type LockCounters, requireLanes } from "../core/lanes.js";
import { SharedBytes } from "../core/linear-memory.js";
import { MisuseError, OutOfMemoryError } from "../errors.js";
import type { Dtype, Shape, TensorKind, TensorView } from "../types.js";
import { checkObject } from "./checks.js";
import { type CheckedTensor, checkTensorOptions, type TensorExtent } from "./options.js";
import { adoptMessage, type MemoryToken, type TensorMessage, TOKEN_NAMES } from "./tokens.js";

/** Size and label of a worker's tensor. */
export type WorkerTensorOptions<D extends Dtype = Dtype> = TensorExtent<D> & {
  /** A power of two up to 65,536. Default: the element's size. */
  readonly alignment?: number | undefined;
  /** Default: false. Fresh bytes are otherwise whatever their last owner left. */
  readonly zero?: boolean | undefined;
};

export interface AttachedStats {
  readonly lane: number;
  readonly lock: LockCounters;
  /** Tensors that became unreachable in this thread without having been freed. */
  readonly leakedCount: number;
}

/** Made by `attachTensorMemory` in a worker. */
export class AttachedMemory {
  readonly kind: TensorKind;
  readonly #core: ControlPlane;
  readonly #lanes: Lanes;
  readonly #arenaIds: readonly number[];
  readonly #arenas = new Map<number, SharedBytes>();
  readonly #leaks: FinalizationRegistry<Holding>;
  #leakedCount = 0;

  private constructor(core: ControlPlane, token: MemoryToken) {
    this.kind = token.kind;
    this.#core = core;
    this.#lanes = requireLanes(core.lanes);
    this.#arenaIds = token.arenas.map(({ id }) => id);
    for (const { id, buffer } of token.arenas) this.#arenas.set(id, new SharedBytes(buffer));
    this.#leaks = new FinalizationRegistry((holding) => {
      this.#leakedCount += 1;
      // A pin that leaked too: a view of it may still be in use, so the block stays.
      if (core.pinCountOf(holding.slot) === 0) core.free(holding.slot, holding.generation);
    });
  }

  /** @throws {MisuseError} `bad-option` — not a token, or somebody has attached with it before. */
  static async attach(token: MemoryToken): Promise<AttachedMemory> {
    checkObject(token, "attachTensorMemory", TOKEN_NAMES);
    await holdLaneLock(token.lockName);
    return new AttachedMemory(await ControlPlane.attach(token), token);
  }

  /** Number of this worker among the threads that work on the memory. */
  get lane(): number {
    return this.#core.lane;
  }

  /**
   * Allocates a tensor of this worker.
   *
   * @throws {OutOfMemoryError} No arena of the token has room. Its maker can open more, and share anew.
   * @throws {MisuseError} `bad-*`.
   * @throws {TierError} `busy` — other threads did not let it in for a second.
   */
  allocate<D extends Dtype = "u8">(options: WorkerTensorOptions<D>): AttachedTensor<D> {
    const checked = this.#check(options);
    const tensor = this.#tryAllocate(checked);
    if (tensor !== null) return tensor as AttachedTensor<D>;
    const counters = this.#arenaIds.map((id) => this.#core.arenaCounters(id));
    const sum = (pick: (of: (typeof counters)[number]) => number) =>
      counters.reduce((total, each) => total + pick(each), 0);
    throw new OutOfMemoryError({
      requestedBytes: checked.byteLength,
      freeBytes: sum(({ freeBytes }) => freeBytes),
      largestFreeBlockBytes: Math.max(0, ...counters.map((each) => each.largestFreeBlockBytes)),
      pinnedBytes: 0,
      budgetBytes: sum(({ capacityBytes }) => capacityBytes),
      remediesTried: [],
      advice: "Free tensors, or let the memory's maker open another arena and share anew.",
    });
  }

  /** As {@link allocate}, but null in place of an `OutOfMemoryError`. */
  tryAllocate<D extends Dtype = "u8">(options: WorkerTensorOptions<D>): AttachedTensor<D> | null {
    return this.#tryAllocate(this.#check(options)) as AttachedTensor<D> | null;
  }

  /**
   * Makes a tensor that another thread has handed over one of this worker.
   *
   * @throws {MisuseError} `not-owner` — somebody else has adopted it; `stale-handle`,
   *   `foreign-handle`, `bad-*` — not a message of this memory.
   */
  adopt<D extends Dtype = Dtype>(message: TensorMessage): AttachedTensor<D> {
    const checked = adoptMessage(this.#core, this.#lanes, message);
    const { slot, generation, arena } = message;
    if (!this.#arenas.has(arena.id)) this.#arenas.set(arena.id, new SharedBytes(arena.buffer));
    return this.#tensorOf(checked, { slot, generation }) as unknown as AttachedTensor<D>;
  }

  stats(): AttachedStats {
    return { lane: this.lane, lock: this.#lanes.lockCounters, leakedCount: this.#leakedCount };
  }

  #check(options: WorkerTensorOptions): CheckedTensor {
    checkObject(options, "allocate", ["shape", "dtype", "byteLength", "alignment", "zero"]);
    return checkTensorOptions({ ...options, kind: this.kind } as never);
  }

  #tryAllocate(checked: CheckedTensor): AttachedTensor | null {
    for (const id of this.#arenaIds) {
      const slot = this.#core.allocate(id, checked.byteLength, checked.alignment);
      if (slot === 0) continue;
      const generation = this.#core.generationOf(slot);
      const tensor = this.#tensorOf(checked, { slot, generation });
      if (checked.isZeroed) {
        this.#bytesOf(slot).view("u8", this.#core.offsetOf(slot), checked.byteLength).fill(0);
      }
      return tensor;
    }
    return null;
  }

  #tensorOf(checked: CheckedTensor, holding: Holding): AttachedTensor {
    const tensor = new AttachedTensor(checked, holding, {
      core: this.#core,
      lanes: this.#lanes,
      bytesOf: (slot) => this.#bytesOf(slot),
      forget: (given) => this.#leaks.unregister(given),
    });
    this.#leaks.register(tensor, holding, holding);
    return tensor;
  }

  #bytesOf(slot: number): SharedBytes {
    return this.#arenas.get(this.#core.arenaOf(slot)) as SharedBytes;
  }
}

/** What a tensor holds; outlives the tensor when that leaks. */
interface Holding {
  readonly slot: number;
  readonly generation: number;
}

interface AttachedOwner {
  readonly core: ControlPlane;
  readonly lanes: Lanes;
  bytesOf(slot: number): SharedBytes;
  forget(holding: Holding): void;
}

/** A tensor that belongs to this worker. */
export class AttachedTensor<D extends Dtype = Dtype> {
  readonly kind: TensorKind;
  readonly dtype: D;
  readonly shape: Shape;
  readonly byteLength: number;
  readonly #holding: Holding;
  readonly #owner: AttachedOwner;
  #view: TensorView<D> | null = null;
  #viewEpoch = 0;
  #isGone = false;

  /** @internal Tensors are made by {@link AttachedMemory}. */
  constructor(checked: CheckedTensor, holding: Holding, owner: AttachedOwner) {
    this.kind = checked.kind;
    this.dtype = checked.dtype as D;
    this.shape = checked.shape;
    this.byteLength = checked.byteLength;
    this.#holding = holding;
    this.#owner = owner;
  }

  /** Freed, or handed over. */
  get isFreed(): boolean {
    return this.#isGone;
  }

  /** Pins the tensor and shows its bytes. @throws {MisuseError} `freed`, `pin-limit`. */
  pin(): AttachedPin<D> {
    this.#checkHeld();
    const { core } = this.#owner;
    const { slot, generation } = this.#holding;
    const epoch = core.pin(slot, generation);
    if (this.#view === null || this.#viewEpoch !== epoch) {
      const bytes = this.#owner.bytesOf(slot);
      const view = bytes.view(this.dtype, core.offsetOf(slot), this.byteLength);
      this.#view = view as TensorView<D>;
      this.#viewEpoch = epoch;
    }
    return new AttachedPin(this, this.#view, () => core.unpin(slot, generation));
  }

  /** @throws {MisuseError} `freed` — it was freed or handed over before; `pinned`. */
  free(): void {
    this.#checkHeld();
    this.#owner.core.free(this.#holding.slot, this.#holding.generation);
    this.#end();
  }

  /**
   * Gives the tensor away: post what this returns to another thread, which adopts it. Until then it is
   * nobody's, and stays if nobody ever does.
   *
   * @throws {MisuseError} `freed`, `pinned`.
   */
  handOver(): TensorMessage {
    this.#checkHeld();
    const { core, lanes } = this.#owner;
    const { slot, generation } = this.#holding;
    const arena = { id: core.arenaOf(slot), buffer: this.#owner.bytesOf(slot).buffer };
    lanes.handOver(slot, generation);
    this.#end();
    const { kind, dtype, shape } = this;
    return { kind, dtype, shape, slot, generation, arena };
  }

  /** {@link free}, unless it is gone already. */
  [Symbol.dispose](): void {
    if (!this.#isGone) this.free();
  }

  #checkHeld(): void {
    if (this.#isGone) throw new MisuseError("freed", "the tensor was freed or handed over");
  }

  #end(): void {
    this.#isGone = true;
    this.#view = null;
    this.#owner.forget(this.#holding);
  }
}

/** Keeps the bytes of a worker's tensor where they are. */
export class AttachedPin<D extends Dtype = Dtype> {
  readonly tensor: AttachedTensor<D>;
  #view: TensorView<D> | null;
  readonly #unpin: () => void;

  /** @internal Pins are made by {@link AttachedTensor.pin}. */
  constructor(tensor: AttachedTensor<D>, view: TensorView<D>, unpin: () => void) {
    this.tensor = tensor;
    this.#view = view;
    this.#unpin = unpin;
  }

  /**
   * The elements, row-major, on shared memory. Platform APIs and native runtimes may refuse that: give
   * them a copy.
   *
   * @throws {MisuseError} `unpinned` — the pin was disposed.
   */
  get view(): TensorView<D> {
    if (this.#view === null) throw new MisuseError("unpinned", "the pin was disposed");
    return this.#view;
  }

  /** Ends the pin. May be called again. */
  [Symbol.dispose](): void {
    if (this.#view === null) return;
    this.#view = null;
    this.#unpin();
  }
}
