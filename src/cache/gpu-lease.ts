// What the GPU level gives out: a lease of a tensor's copy, and the copy itself, of which the residency record knows.
import { MisuseError, TierError } from "../errors.js";
import type { GpuBuffer, GpuDevice } from "../gpu/gpu-device.js";
import type { PinAccess } from "../memory/pin.js";
import type { TierKey } from "../tier/tier.js";
import type { Dtype } from "../types.js";
import type { DeviceCopy, TensorRecord } from "./tensor-record.js";

/** Whoever keeps the buffers. */
interface CopyOwner {
  readInto(copy: GpuCopy, target: Uint8Array): Promise<void>;
  drop(copy: GpuCopy): void;
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

  constructor(
    owner: CopyOwner,
    parts: {
      readonly key: TierKey;
      readonly record: TensorRecord;
      readonly buffer: GpuBuffer;
      readonly version: number;
    },
  ) {
    this.#owner = owner;
    this.key = parts.key;
    this.record = parts.record;
    this.buffer = parts.buffer;
    this.version = parts.version;
    this.byteLength = parts.record.byteLength;
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
