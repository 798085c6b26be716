// Makes tensors, pins, resizes and frees them: what every step of a program does many times, so it
// stays free of calls and objects that can be saved. Sees seams only.
import type { Clock } from "../clock.js";
import type { ControlPlane } from "../core/control-plane.js";
import { requireLanes } from "../core/lanes.js";
import { MisuseError } from "../errors.js";
import type { ArenaShelf } from "../memory/arena-shelf.js";
import { callSite } from "../memory/call-site.js";
import type { EventHub } from "../memory/events.js";
import { LeakWatch } from "../memory/leak-watch.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import {
  type CheckedTensor,
  checkShape,
  checkTensorOptions,
  type TensorOptions,
} from "../memory/options.js";
import { Pin, type PinAccess } from "../memory/pin.js";
import { Tensor, type TensorOwner } from "../memory/tensor.js";
import type { TensorMessage } from "../memory/tokens.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { StatsSink } from "../stats/stats-sink.js";
import { describe, type Shape, type TensorKind } from "../types.js";
import type { Directory } from "./directory.js";
import type { Disposables } from "./disposables.js";
import type { Guards } from "./guards.js";
import type { LifetimeCollector } from "./lifetime-collector.js";
import type { MemorySwapper } from "./memory-swapper.js";
import type { Reclaimer } from "./reclaimer.js";
import type { SharedTensors } from "./shared-tensors.js";
import { nameOf, type TensorRecord } from "./tensor-record.js";

export interface TensorAllocatorOptions {
  readonly core: ControlPlane;
  readonly shelf: ArenaShelf;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  readonly reclaimer: Reclaimer;
  readonly disposables: Disposables;
  readonly policy: EvictionPolicy;
  readonly events: EventHub;
  /** null: lifetimes are nobody's business. */
  readonly collector: LifetimeCollector | null;
  readonly sharing: SharedTensors;
  /** Only in debug mode. */
  readonly guards: Guards | null;
  readonly sink: StatsSink;
  readonly clock: Clock;
  /** One in so many allocations is timed; 0: none. */
  readonly timedOneIn: number;
}

export class TensorAllocator implements TensorOwner {
  readonly leaks: LeakWatch<TensorRecord>;
  readonly #core: ControlPlane;
  readonly #shelf: ArenaShelf;
  readonly #pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly #directory: Directory;
  readonly #swapper: MemorySwapper;
  readonly #reclaimer: Reclaimer;
  readonly #disposables: Disposables;
  readonly #policy: EvictionPolicy;
  readonly #collector: LifetimeCollector | null;
  readonly #sharing: SharedTensors;
  readonly #guards: Guards | null;
  readonly #sink: StatsSink;
  readonly #clock: Clock;
  readonly #timedOneIn: number;
  /** Allocations until one is timed; below 0: none ever is. */
  #untilTimed: number;
  #isClosed = false;

  constructor(options: TensorAllocatorOptions) {
    this.#core = options.core;
    this.#shelf = options.shelf;
    this.#pools = options.pools;
    this.#directory = options.directory;
    this.#swapper = options.swapper;
    this.#reclaimer = options.reclaimer;
    this.#disposables = options.disposables;
    this.#policy = options.policy;
    this.#collector = options.collector;
    this.#sharing = options.sharing;
    this.#guards = options.guards;
    this.#sink = options.sink;
    this.#clock = options.clock;
    this.#timedOneIn = options.timedOneIn;
    this.#untilTimed = options.timedOneIn;
    this.leaks = new LeakWatch(options.events, (record) => {
      // A pin that was never disposed: a view of it may still be in use, so the block stays.
      if (this.#core.pinCountOf(record.slot) === 0) this.#release(record);
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** From here on every call is refused. */
  close(): void {
    this.#isClosed = true;
  }

  /** @throws {MisuseError} `closed`. */
  checkOpen(): void {
    if (this.#isClosed) throw new MisuseError("closed", "the memory is closed");
  }

  /**
   * @param owner Whom the tensor asks. Default: this.
   * @throws {OutOfMemoryError} @throws {MisuseError} `bad-*`, `duplicate-id`, `closed`.
   */
  allocate(options: TensorOptions, owner: TensorOwner = this): Tensor {
    this.#untilTimed -= 1;
    const isTimed = this.#untilTimed === 0;
    if (isTimed) this.#untilTimed = this.#timedOneIn;
    const startMs = isTimed ? this.#clock.monotonicMs() : 0;
    const checked = this.#check(options);
    const pool = this.#pools.get(checked.kind) as MemoryPool;
    const slot = this.#reclaimer.place(pool, checked.byteLength, checked.alignment);
    const tensor = this.#attach(checked, pool, slot, owner);
    if (isTimed) this.#sink.time("allocate", this.#clock.monotonicMs() - startMs);
    return tensor;
  }

  /** As {@link allocate}, but null in place of an `OutOfMemoryError`. */
  tryAllocate(options: TensorOptions): Tensor | null {
    const checked = this.#check(options);
    const pool = this.#pools.get(checked.kind) as MemoryPool;
    const slot = this.#reclaimer.tryPlace(pool, checked.byteLength, checked.alignment);
    return slot === 0 ? null : this.#attach(checked, pool, slot, this);
  }

  pin(record: TensorRecord, access: PinAccess): Pin {
    this.#checkResident(record);
    if (record.shared !== null && access === "write") this.#sharing.own(record);
    const holder = record.shared ?? record;
    const { slot } = holder;
    if (record.life !== null) this.#collector?.used(record.life);
    if (holder.id !== null) this.#policy.touch(holder.index);
    const epoch = this.#core.pin(slot, holder.generation);
    if (holder.view === null || holder.viewEpoch !== epoch) {
      const offset = this.#core.offsetOf(slot);
      holder.view = this.#shelf.viewOf(slot, epoch, holder.dtype, offset, holder.byteLength);
      holder.viewEpoch = epoch;
    }
    return new Pin(this.#core, record, access, holder.view);
  }

  /** From now on pressure may drop a named tensor of bytes of its own, or may not. */
  markDisposable(record: TensorRecord, isDisposable: boolean): void {
    this.checkOpen();
    if (record.isFreed) throw new MisuseError("freed", "the tensor was freed");
    if (record.id === null || record.shared !== null) {
      throw new MisuseError(
        "unsupported",
        "only a named tensor that shares no bytes is disposable",
      );
    }
    this.#disposables.mark(record, isDisposable);
  }

  free(record: TensorRecord): void {
    this.checkOpen();
    if (record.isDropped) {
      record.isDropped = false;
      this.#disposables.forgetDropped(nameOf(record));
      return;
    }
    if (record.isFreed) throw new MisuseError("freed", "the tensor was freed before");
    if (record.shared !== null) this.#sharing.release(record);
    else this.#release(record);
    if (record.id === null) this.leaks.unwatch(record);
    this.#guards?.throwOverrun();
  }

  /**
   * Frees tensors together, in one call into the core as far as they are resident and idle. Those
   * that were freed before are passed over.
   *
   * @returns An error for each that is pinned; the rest is freed.
   */
  freeAll(records: readonly TensorRecord[]): Error[] {
    const errors: Error[] = [];
    const together: TensorRecord[] = [];
    for (const record of records) {
      if (record.isFreed) continue;
      const isAlone = record.transfer === null && record.device === null;
      if (record.isResident && isAlone && this.#guards === null) {
        together.push(record);
        continue;
      }
      try {
        this.free(record);
      } catch (error) {
        errors.push(error as Error);
      }
    }
    const emptied = new Map<number, MemoryPool>();
    let last = 0;
    for (const { slot, pool } of together) {
      const arena = this.#core.arenaOf(slot);
      if (arena !== last) emptied.set(arena, pool);
      last = arena;
    }
    const refused = new Set<TensorRecord>();
    for (const { index, error } of this.#core.freeAll(together)) {
      refused.add(together[index] as TensorRecord);
      errors.push(error);
    }
    for (const record of together) {
      if (refused.has(record)) continue;
      this.#swapper.releaseFreed(record);
      this.#forget(record);
      if (record.id === null) this.leaks.unwatch(record);
    }
    for (const [arena, pool] of emptied) pool.closeIfEmpty(arena);
    return errors;
  }

  /** A tensor of this memory over the block that it has adopted: anonymous and resident. */
  adopt(checked: CheckedTensor, slot: number): Tensor {
    return this.#attach(checked, this.#pools.get(checked.kind) as MemoryPool, slot, this);
  }

  /** Gives an anonymous tensor away: it is freed as far as this memory goes. */
  handOver(record: TensorRecord): TensorMessage {
    this.#checkResident(record);
    const { slot, generation, kind, dtype, shape } = record;
    if (record.id !== null) {
      throw new MisuseError("unsupported", "only anonymous tensors change hands");
    }
    requireLanes(this.#core.lanes).handOver(slot, generation);
    const arena = this.#shelf.share(this.#core.arenaOf(slot));
    this.#swapper.releaseFreed(record);
    this.#forget(record);
    this.leaks.unwatch(record);
    return { kind, dtype, shape, slot, generation, arena };
  }

  /** Gives a resident tensor another shape; its first bytes stay. */
  resize(record: TensorRecord, shape: Shape): void {
    this.#checkResident(record);
    const checked = checkShape(shape, record.dtype);
    if (record.shared !== null) this.#sharing.own(record);
    this.#swapper.earlyCopies.giveUp(record);
    const { slot, generation, alignment, pool } = record;
    const { byteLength } = checked;
    const coarsest = pool.alignmentFor(byteLength, alignment);
    if (!this.#core.tryResize(slot, generation, pool.blockBytes(byteLength), coarsest)) {
      const other = this.#reclaimer.placeBeside(record, byteLength);
      const otherGeneration = this.#core.generationOf(other);
      const keptBytes = Math.min(record.byteLength, byteLength);
      const target = this.#shelf.arenaOf(other).bytes(this.#core.offsetOf(other), keptBytes);
      target.set(this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), keptBytes));
      this.#core.exchange(slot, generation, other, otherGeneration);
      pool.free(other, otherGeneration);
    }
    this.#swapper.reshape(record, checked.shape, byteLength);
  }

  #check(options: TensorOptions): CheckedTensor {
    this.checkOpen();
    const checked = checkTensorOptions(options);
    const { id } = checked;
    if (id !== null && this.#directory.get(id) !== undefined) {
      throw new MisuseError("duplicate-id", `the id ${describe(id)} is in use`);
    }
    return checked;
  }

  #attach(checked: CheckedTensor, pool: MemoryPool, slot: number, owner: TensorOwner): Tensor {
    const isNew = checked.id === null || this.#directory.droppedIndex(checked.id) === null;
    const record = this.#directory.add(checked, pool);
    if (isNew) this.#disposables.want(record);
    else this.#collector?.noteWanted(nameOf(record));
    if (record.id !== null) this.#collector?.register(record, checked.site, checked.lifetimeMs);
    if (this.#guards !== null) record.callSite = callSite();
    this.#swapper.attach(record, slot);
    if (checked.isZeroed) {
      this.#shelf.arenaOf(slot).bytes(this.#core.offsetOf(slot), checked.byteLength).fill(0);
    }
    const tensor = new Tensor(record, owner);
    if (record.id === null) this.leaks.watch(tensor, record);
    return tensor;
  }

  #checkResident(record: TensorRecord): void {
    this.checkOpen();
    if (record.isDropped) {
      throw new MisuseError("not-resident", "the tensor was dropped under pressure: make it again");
    }
    if (record.isFreed) throw new MisuseError("freed", "the tensor was freed");
    if (!(record.shared ?? record).isResident) {
      throw new MisuseError("not-resident", "the tensor was moved to a colder tier: use acquire");
    }
  }

  #release(record: TensorRecord): void {
    this.#swapper.release(record);
    this.#forget(record);
  }

  #forget(record: TensorRecord): void {
    // It may have been disposable before.
    if (record.id !== null) this.#disposables.freed(record);
    this.#directory.remove(record);
    if (record.life !== null) this.#collector?.freed(record.life);
  }
}
