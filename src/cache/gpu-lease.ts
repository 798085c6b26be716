// What the GPU level gives out: a lease of a tensor's copy, and the copy itself, of which the residency record knows.
import { MisuseError, TierError } from "../errors.js";
import type { GpuBuffer, GpuDevice } from "../gpu/gpu-device.js";
import { checkObject, checkSignal } from "../memory/checks.js";
import type { PinAccess } from "../memory/pin.js";
import type { TierKey } from "../tier/tier.js";
import type { Dtype } from "../types.js";
import type { PrefetchCounters } from "./prefetch-window.js";
import type { DeviceCopy, TensorRecord } from "./tensor-record.js";

/** Whoever keeps the buffers. */
interface CopyOwner {
  readInto(copy: GpuCopy, target: Uint8Array): Promise<void>;
  drop(copy: GpuCopy): void;
}

/** How often what was done, and what there is. */
export interface GpuLevelStats {
  readonly hitCount: number;
  readonly uploadCount: number;
  readonly readbackCount: number;
  /** Buffers given up without a readback, and after one. */
  readonly evictedCount: number;
  readonly demotedCount: number;
  readonly leaseCount: number;
  /** Tensors with a copy there, valid or stale. */
  readonly copyCount: number;
  readonly lossCount: number;
  /** Tensors that devices were lost with, and had no other copy. */
  readonly lostCount: number;
  /** Buffers asked of devices so far. */
  readonly createdCount: number;
  readonly capacityBytes: number;
  /** Of all buffers, those that wait for their next use included. */
  readonly physicalBytes: number;
  /** Of arenas, and of buffers that `buffers()` gave out. */
  readonly heldBytes: number;
  /** What became of the tensors that `prefetch` brought: issued = used + wasted + late + outstanding. */
  readonly prefetch: PrefetchCounters;
}

/** What a lease is for. */
export type GpuAccess = PinAccess | "overwrite";

/** What is asked of a lease. @throws {MisuseError} `bad-option`. @internal */
export function checkLeaseOptions(options: unknown) {
  const given = checkObject(options, "acquire", ["access", "signal"]);
  const { access: mode = "read", signal } = given;
  if (mode !== "read" && mode !== "write" && mode !== "overwrite") {
    throw new MisuseError("bad-option", 'access is "read", "write" or "overwrite"');
  }
  const access: PinAccess = mode === "read" ? "read" : "write";
  return { mode, access, signal: checkSignal(signal) };
}

/** @internal */
export interface GpuCopyParts {
  readonly key: TierKey;
  readonly record: TensorRecord;
  readonly buffer: GpuBuffer;
  /** Of the record, whose bytes the buffer holds. */
  readonly version: number;
  readonly onArrival: () => void;
}

/** A tensor's bytes in a buffer. @internal */
export class GpuCopy implements DeviceCopy {
  readonly key: TierKey;
  readonly record: TensorRecord;
  readonly byteLength: number;
  readonly buffer: GpuBuffer;
  readonly #owner: CopyOwner;
  version: number;
  leaseCount = 0;
  /** Number of the use. */
  lastUse = 0;
  isWriting = false;
  /** The device is lost. */
  isGone = false;

  #onArrival: (() => void) | null;

  constructor(owner: CopyOwner, parts: GpuCopyParts) {
    this.#onArrival = parts.onArrival;
    this.#owner = owner;
    this.key = parts.key;
    this.record = parts.record;
    this.buffer = parts.buffer;
    this.version = parts.version;
    this.byteLength = parts.record.byteLength;
  }

  /** It was brought for somebody who has no lease of it yet, and stays until then. */
  get isArriving(): boolean {
    return this.#onArrival !== null;
  }

  /** Whoever it was brought for has a lease, or wants none any more. */
  arrive(): void {
    this.#onArrival?.();
    this.#onArrival = null;
  }

  get isCurrent(): boolean {
    return this.record.device === this && this.version === this.record.version;
  }

  /** Nobody uses it, and it is as long as the tensor is now. */
  get isReusable(): boolean {
    return this.leaseCount === 0 && this.byteLength === this.record.byteLength;
  }

  checkUnused(): void {
    if (this.leaseCount > 0) throw new MisuseError("pinned", "the tensor is leased on the GPU");
  }

  /** @throws {TierError} `busy`. */
  checkUnwritten(): void {
    if (!this.isWriting) return;
    throw new TierError("busy", "gpu", "the tensor is being written on the GPU");
  }

  async readInto(target: Uint8Array): Promise<"intact"> {
    this.checkUnwritten();
    await this.#owner.readInto(this, target);
    return "intact";
  }

  drop(): void {
    this.#owner.drop(this);
  }
}

/**
 * A tensor's buffer on the GPU. Dispose it as soon as the work over it has been submitted: what is submitted before
 * the buffer has its next use is done before that.
 */
export class GpuLease<D extends Dtype = Dtype> {
  readonly access: PinAccess;
  readonly id: string;
  readonly dtype: D;
  readonly shape: readonly number[];
  /** Bytes of the tensor, at the beginning of the buffer; what is behind them may be anything. */
  readonly byteLength: number;
  /** Of this device are the buffer, and the commands over it. */
  readonly device: GpuDevice;
  #copy: GpuCopy | null;
  readonly #onEnd: (copy: GpuCopy) => void;

  /** @internal Made by `memory.gpu.acquire`. */
  constructor(
    copy: GpuCopy,
    parts: {
      readonly id: string;
      readonly access: PinAccess;
      readonly device: GpuDevice;
      readonly onEnd: (copy: GpuCopy) => void;
    },
  ) {
    const { record, byteLength } = copy;
    this.id = parts.id;
    this.access = parts.access;
    this.device = parts.device;
    this.dtype = record.dtype as D;
    this.shape = record.shape;
    this.byteLength = byteLength;
    this.#copy = copy;
    this.#onEnd = parts.onEnd;
  }

  /**
   * The whole buffer: of its size class, so it may be longer than the tensor; for storage and copies.
   *
   * @throws {MisuseError} `unpinned` — the lease was disposed.
   */
  get buffer(): GpuBuffer {
    if (this.#copy === null) throw new MisuseError("unpinned", "the lease was disposed");
    return this.#copy.buffer;
  }

  /** Ends the lease. May be called again. */
  [Symbol.dispose](): void {
    const copy = this.#copy;
    if (copy === null) return;
    this.#copy = null;
    this.#onEnd(copy);
  }
}
