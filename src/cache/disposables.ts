// Tensors that their owner can make again, such as the KV of a prompt: under pressure they may be
// dropped where others have to be written. The admission policy decides which of them are worth the
// write. Sees seams only.
//
// A dropped tensor is gone, but its number is kept for a while: when it comes back under its id, the
// policies learn that it did.
import type { EventHub } from "../memory/events.js";
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import type { Directory } from "./directory.js";
import type { MemorySwapper } from "./memory-swapper.js";
import { nameOf, type TensorRecord } from "./tensor-record.js";

export interface DisposablesOptions {
  readonly admission: AdmissionPolicy;
  readonly policy: EvictionPolicy;
  readonly directory: Directory;
  readonly swapper: MemorySwapper;
  readonly events: EventHub;
  /** There is a colder tier, even if it is full now. */
  readonly hasTier: boolean;
}

/** Victims that were disposable and dirty, by what became of them. */
export interface DisposableStats {
  readonly policy: string;
  /** Found worth their write. */
  readonly admittedCount: number;
  /** Found not worth it, and dropped. */
  readonly refusedCount: number;
  readonly refusedBytes: number;
  /** Dropped, for that or because nothing could be written. */
  readonly droppedCount: number;
  readonly droppedBytes: number;
  /** Lookups of dropped ones, and the bytes that these would have had to bring back. */
  readonly wantedAgainCount: number;
  readonly wantedAgainBytes: number;
}

export class Disposables {
  readonly #admission: AdmissionPolicy;
  readonly #policy: EvictionPolicy;
  readonly #directory: Directory;
  readonly #swapper: MemorySwapper;
  readonly #events: EventHub;
  readonly #hasTier: boolean;
  /** Those with a swapped-out copy, the longest unused first. */
  readonly #cold = new Set<TensorRecord>();
  #admittedCount = 0;
  #refusedCount = 0;
  #refusedBytes = 0;
  #wantedAgainCount = 0;
  #wantedAgainBytes = 0;
  #droppedCount = 0;
  #droppedBytes = 0;

  constructor(options: DisposablesOptions) {
    this.#admission = options.admission;
    this.#policy = options.policy;
    this.#directory = options.directory;
    this.#swapper = options.swapper;
    this.#events = options.events;
    this.#hasTier = options.hasTier;
  }

  /** Notes that a tensor was used while it was hot. */
  touch(record: TensorRecord): void {
    if (!record.isDisposable) return;
    this.#admission.touch(record.index);
    this.#refresh(record);
  }

  /** Notes that a tensor was wanted, or made, that was not hot. */
  want(record: TensorRecord): void {
    if (!record.isDisposable) return;
    this.#admission.want(record.index);
    this.#refresh(record);
  }

  /** Notes that an id was wanted. @returns Whether it is that of a dropped tensor. */
  wantDropped(id: string): boolean {
    const index = this.#directory.droppedIndex(id);
    if (index === null) return false;
    this.#admission.want(index);
    this.#wantedAgainCount += 1;
    this.#wantedAgainBytes += this.#droppedBytes / this.#droppedCount;
    return true;
  }

  /** Whether a demotable victim is to be kept: it may not be dropped, or is worth its write. */
  admits(record: TensorRecord): boolean {
    if (!record.isDisposable) return true;
    const { index, byteLength: bytes } = record;
    const isAdmitted = this.#admission.admit({ index, bytes });
    if (!this.canDrop(record)) return true;
    if (isAdmitted) this.#admittedCount += 1;
    else {
      this.#refusedCount += 1;
      this.#refusedBytes += bytes;
    }
    return isAdmitted;
  }

  /**
   * Whether a tensor may be dropped, and would be lost with it. One that was saved may not: its owner
   * would find older bytes under its id.
   */
  canDrop(record: TensorRecord): boolean {
    const isOnlyCopy = !record.isClean && !record.hasSavedRecord;
    const isLeased = record.device !== null && record.device.leaseCount > 0;
    return record.isDisposable && isOnlyCopy && !isLeased && this.#swapper.canDemote(record);
  }

  /** Whether a caller that cannot wait may drop it: with a tier, one that waits could write it. */
  canDropNow(record: TensorRecord): boolean {
    return !this.#hasTier && this.canDrop(record);
  }

  /** From now on a tensor may be dropped, or may not. */
  mark(record: TensorRecord, isDisposable: boolean): void {
    if (record.isDisposable === isDisposable) return;
    record.isDisposable = isDisposable;
    if (!isDisposable) this.#cold.delete(record);
    else if (!record.isResident && record.hasSwapCopy) this.#cold.add(record);
  }

  /** A tensor has left the heap for the tier, or for good. */
  left(record: TensorRecord): void {
    if (record.isDisposable && record.hasSwapCopy) this.#cold.add(record);
  }

  /**
   * Drops what has been unused for longest in the tier, until it held as many bytes.
   *
   * @returns Whether there was any.
   */
  async makeColdRoom(bytes: number): Promise<boolean> {
    let roomBytes = 0;
    for (const record of this.#cold) {
      if (record.isResident || record.transfer !== null || record.device !== null) continue;
      this.#cold.delete(record);
      if (record.isFreed || record.hasSavedRecord || record.isLost) continue;
      roomBytes += record.byteLength;
      this.drop(record);
      if (roomBytes >= bytes) break;
    }
    await this.#swapper.transfers.settleBackground();
    return roomBytes > 0;
  }

  #refresh(record: TensorRecord): void {
    if (this.#cold.delete(record)) this.#cold.add(record);
  }

  /** Gives up a tensor that {@link canDrop} with every copy of it, or a cold one. */
  drop(record: TensorRecord): void {
    const { byteLength: bytes } = record;
    const id = nameOf(record);
    this.#swapper.release(record);
    this.#cold.delete(record);
    record.isDropped = true;
    this.#droppedCount += 1;
    this.#droppedBytes += bytes;
    const forgotten = this.#directory.drop(record);
    if (forgotten !== null) this.forget(forgotten);
    this.#events.emit({ type: "drop", id, bytes });
  }

  /** A tensor was freed. */
  freed(record: TensorRecord): void {
    this.#cold.delete(record);
    this.forget(record.index);
  }

  /** A number will mean another tensor, or none. */
  forget(index: number): void {
    this.#policy.forget(index);
    this.#admission.forget(index);
  }

  /** Forgets a dropped tensor: its owner does not want it back. @returns Whether there was one. */
  forgetDropped(id: string): boolean {
    const index = this.#directory.forgetDropped(id);
    if (index !== null) this.forget(index);
    return index !== null;
  }

  stats(): DisposableStats {
    return {
      policy: this.#admission.name,
      admittedCount: this.#admittedCount,
      refusedCount: this.#refusedCount,
      refusedBytes: this.#refusedBytes,
      wantedAgainCount: this.#wantedAgainCount,
      wantedAgainBytes: this.#wantedAgainBytes,
      droppedCount: this.#droppedCount,
      droppedBytes: this.#droppedBytes,
    };
  }
}
