// The one record of a tensor's residency: where its bytes are, which copies are valid, clean or
// dirty, pinned, in flight. Cache, swapper and collector are policies over this record.

import type { LifetimeSample } from "../lifetime/lifetime-predictor.js";
import type { MemoryPool } from "../memory/memory-pool.js";
import type { Dtype, Layout, TensorErrorBudget, TensorKind, TensorView } from "../types.js";

/** The copy in the colder tier. */
export interface ColdCopy {
  readonly generation: number;
  readonly codecId: number;
  readonly storedBytes: number;
  /** The record survives power loss. */
  readonly isDurable: boolean;
  /** Value of {@link TensorRecord.version} whose bytes it holds. */
  readonly version: number;
  /** Its values are not exactly those that the tensor had. */
  readonly isInexact: boolean;
  /** When the record loses its worth, in milliseconds since 1970; 0: never. */
  readonly expiresMs: number;
  /** The saved record, which outlives the tensor; otherwise the swapped-out copy. */
  readonly isSaved: boolean;
}

/** The copy on a GPU. */
export interface DeviceCopy {
  /** Value of {@link TensorRecord.version} whose bytes it holds. */
  readonly version: number;
  readonly leaseCount: number;
  /** A lease for writing is open: the bytes may change at any moment, and nobody else gets them. */
  readonly isWriting: boolean;
  /** @throws {MisuseError} `pinned` — it is leased. */
  checkUnused(): void;
  /**
   * @param target As long as the tensor.
   * @throws {TierError} `busy` — a lease for writing is open; `device-lost`, `io`, `closed`.
   */
  readInto(target: Uint8Array): Promise<"intact">;
  /** The record has no use for it any more; a lease of it stays good. */
  drop(): void;
}

export interface Transfer {
  /** Settles with the transfer and never rejects; waiters look at the record again. */
  readonly settled: Promise<void>;
}

/** What the collector knows of a registered tensor. */
export interface TensorLife {
  readonly sample: LifetimeSample;
  /** As was predicted at the allocation; Infinity when nothing was. */
  readonly expectedMs: number;
  readonly allocatedMs: number;
  /** When it was pinned last, or allocated. */
  usedMs: number;
  useCount: number;
  /** It seemed over when it was looked at, and waits for being given up. */
  isDue: boolean;
  /** It is leaving because it seems over. */
  isChosen: boolean;
  /** It was given up because it seemed over, and has not been used since. */
  isCollected: boolean;
}

export interface TensorRecordOptions {
  /** null for an anonymous tensor. */
  readonly id: string | null;
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly byteLength: number;
  readonly alignment: number;
  readonly tag: string;
  readonly isDisposable: boolean;
  /** null: what is said about its tag or kind. */
  readonly errorBudget: TensorErrorBudget | null;
  /** null: nobody has told. */
  readonly recomputeMs: number | null;
}

export class TensorRecord {
  /** Dense number for policies; used again after the tensor is gone. */
  readonly index: number;
  /** null for an anonymous tensor: it is never demoted, because nothing could acquire it again. */
  readonly id: string | null;
  readonly kind: TensorKind;
  readonly dtype: Dtype;
  /** Changes, like the byte length, only when the tensor is resized. */
  shape: readonly number[];
  readonly layout: Layout;
  byteLength: number;
  readonly alignment: number;
  readonly tag: string;
  /** May be dropped under pressure instead of written. Changed by `Disposables.mark` alone. */
  isDisposable: boolean;
  readonly errorBudget: TensorErrorBudget | null;
  /** What computing it again would take, in milliseconds, as was told last; null if nobody has. */
  recomputeMs: number | null;
  /** It was used as a part of a chain. */
  isChained = false;
  readonly pool: MemoryPool;
  /** null: it is not registered with the collector. */
  life: TensorLife | null = null;

  /** The hot copy; slot 0 when the tensor is not resident. */
  slot = 0;
  generation = 0;
  /** The view made at `viewEpoch`; stale at any other epoch of the slot. */
  view: TensorView | null = null;
  viewEpoch = 0;

  /** Changes whenever the bytes may have changed. */
  version = 1;
  /** Pins through which a caller may be writing. */
  writePinCount = 0;
  cold: ColdCopy | null = null;
  /** The {@link version} that came back from a copy that was not exact; 0 if none did. */
  inexactVersion = 0;
  /** There may be a swapped-out copy in the tier, valid or not; it goes with the tensor. */
  hasSwapCopy = false;
  /** There is a saved record in the tier, of these bytes or of older ones. */
  hasSavedRecord = false;
  transfer: Transfer | null = null;
  /** Called at the very end of a load, in the same turn in which the tensor became resident. */
  waiters: Set<() => void> | null = null;
  /** The content that holds this tensor's bytes; null: the tensor has bytes of its own. */
  shared: TensorRecord | null = null;
  /** How many tensors share this content; 0 for a tensor. */
  referenceCount = 0;
  isFreed = false;
  /** Freed by pressure, not by its owner. */
  isDropped = false;
  /** Where it was allocated; only in debug mode. */
  callSite: string | null = null;
  /** The engine's collector will tell when nothing reaches the tensor any more. */
  isWatched = false;
  /** The only copy was found damaged, or was lost with its device. */
  isLost = false;
  /** What is thrown for that; null: it was damaged. */
  lossCause: Error | null = null;
  /** Its copy on a GPU, valid or stale; null: it has none. */
  device: DeviceCopy | null = null;

  constructor(index: number, options: TensorRecordOptions, pool: MemoryPool) {
    this.index = index;
    this.id = options.id;
    this.kind = options.kind;
    this.dtype = options.dtype;
    this.shape = options.shape;
    this.layout = options.layout;
    this.byteLength = options.byteLength;
    this.alignment = options.alignment;
    this.tag = options.tag;
    this.isDisposable = options.isDisposable;
    this.errorBudget = options.errorBudget;
    this.recomputeMs = options.recomputeMs;
    this.pool = pool;
  }

  get isResident(): boolean {
    return this.slot !== 0;
  }

  /** A valid colder copy holds the same bytes. */
  get isClean(): boolean {
    return this.cold !== null && this.cold.version === this.version && this.writePinCount === 0;
  }

  /** The copy on the GPU is valid, and no other one is. */
  get isOnlyOnDevice(): boolean {
    return this.slot === 0 && this.device?.version === this.version && !this.isClean;
  }

  /** Gives the tensor another shape; its bytes change with it. */
  reshape(shape: readonly number[], byteLength: number): void {
    this.shape = shape;
    this.byteLength = byteLength;
    this.view = null;
    this.viewEpoch = 0;
    this.version += 1;
  }

  /** Binds or unbinds the hot copy. */
  bind(slot: number, generation: number): void {
    this.slot = slot;
    this.generation = generation;
    this.view = null;
    this.viewEpoch = 0;
  }
}

/** Whatever is moved has a name: an anonymous tensor never gets this far. */
export function nameOf(record: TensorRecord): string {
  return record.id as string;
}
