// Seam: a tier whose objects lie in buffers of a GPU, which it lends to kernels. What `Tier` says holds for it; an
// object is a whole buffer, so it takes its size class.
//
// After the loss of the device the tier asks its owner for another one when it is used next, and the
// objects are gone: reading one is `device-lost`, until it is deleted or stored again.
import type { Clock } from "../clock.js";
import type { GpuBuffer, GpuDevice } from "../gpu/gpu-device.js";
import type { Random } from "../random.js";
import type { Tier, TierKey } from "./tier.js";

export interface DeviceTierStats {
  /** Buffers asked of the device so far; those that readbacks pass through are counted too. */
  readonly createdCount: number;
  /** Requests that a free buffer has served. */
  readonly reusedCount: number;
  /** Devices lost so far. */
  readonly lossCount: number;
}

export interface DeviceTier extends Tier {
  /** The device of now, for kernels over lent buffers. null: it is lost, and no other one has been needed yet. */
  readonly device: GpuDevice | null;
  /** The longest object that one buffer holds, in bytes; 0 without a device. */
  readonly objectBytesMax: number;
  /** Called once for each loss of a device, after its objects have gone. */
  onLost: ((reason: string) => void) | null;
  /** Bytes that an object of this length takes: those of the buffer's size class. */
  grantedBytes(byteLength: number): number;
  /** The buffer of an object, or null. It is the object's until the object is replaced or deleted. */
  bufferOf(key: TierKey): GpuBuffer | null;
  /**
   * Stores an object of that length whose bytes are anything, under a key that is not in use.
   *
   * @throws {TierError} `device-lost`, `closed`.
   */
  reserve(key: TierKey, byteLength: number): Promise<"stored" | "no-space">;
  /**
   * Does work on the device under the scopes of its errors, one after the other: scopes are a stack, and
   * runs that overlap would get each other's errors.
   *
   * @throws {OutOfMemoryError} The device ran out of memory for it.
   * @throws {TierError} `device-lost`; `io` — the device refused a part of it. @throws As the work does.
   */
  guard<T>(work: () => Promise<T>): Promise<T>;
  deviceStats(): DeviceTierStats;
}

/** Makes the GPU tier of a memory: what `webgpuTier()` of `tierheap/tiers/webgpu` returns. */
export type DeviceTierFactory = (parts: {
  /** Bytes of all buffers together, those that wait for their next use included. */
  readonly capacityBytes: number;
  readonly clock: Clock;
  readonly random: Random;
}) => DeviceTier;
