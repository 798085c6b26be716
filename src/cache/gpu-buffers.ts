// Whole buffers out of a memory's GPU budget, for what a runtime keeps on the device by itself, such as the KV of a
// chat while it is answered. They are no tensors: nobody evicts them, and nothing of them is kept.
import { MisuseError, TierError } from "../errors.js";
import type { GpuBuffer, GpuDevice } from "../gpu/gpu-device.js";
import type { TierKey } from "../tier/tier.js";
import { checkBytes } from "../types.js";
import { lentBytes } from "../util/private-bytes.js";
import type { GpuRoom } from "./gpu-room.js";

/** Made by `memory.gpu.buffers()`; one for each device. */
export class GpuBuffers {
  /** Of this device are all its buffers. */
  readonly device: GpuDevice;
  readonly #room: GpuRoom;
  readonly #keys = new Map<GpuBuffer, TierKey>();
  #ended: TierError | null = null;

  /** @internal */
  constructor(room: GpuRoom, device: GpuDevice) {
    this.#room = room;
    this.device = device;
  }

  /** The device is lost, or the memory was closed: its buffers are gone. */
  get isLost(): boolean {
    return this.#ended !== null || this.#room.tier.device !== this.device;
  }

  /** @throws {TierError} `device-lost`; `closed` — the memory is. */
  checkAlive(): void {
    if (this.#ended !== null) throw this.#ended;
    if (this.isLost) throw this.#room.lostMeanwhile();
  }

  /**
   * A buffer of at least so many bytes, for storage and copies, out of `budgets.gpu`. Its bytes are anything.
   *
   * @throws {OutOfMemoryError} The budget has no room beside what is leased and held, or the device binds no buffer so
   *   long; tensors that nobody has leased have left for it by then.
   * @throws {MisuseError} `bad-size`. @throws {TierError} `device-lost`, `closed`.
   * @remarks Whoever has it gives it back. Makes none while a free one of the same size class is there.
   */
  async acquire(byteLength: number): Promise<GpuBuffer> {
    this.checkAlive();
    const { key, buffer } = await this.#room.hold(checkBytes(byteLength, "byteLength"));
    if (this.isLost) {
      this.#room.giveBack(key);
      this.checkAlive();
    }
    this.#keys.set(buffer, key);
    return buffer;
  }

  /** Takes a buffer back; the next request of its size class gets it. Does nothing for one that is not held. */
  release(buffer: GpuBuffer): void {
    const key = this.#keys.get(buffer);
    if (key === undefined) return;
    this.#keys.delete(buffer);
    this.#room.giveBack(key);
  }

  /**
   * Does work on the device under the scopes of its errors, one after the other: scopes are a stack, and
   * runs that overlap would get each other's errors.
   *
   * @throws {OutOfMemoryError} The device ran out of memory for it.
   * @throws {TierError} `device-lost`; `io` — the device refused a part of it. @throws As the work does.
   */
  async guard<T>(work: () => Promise<T>): Promise<T> {
    this.checkAlive();
    return this.#room.tier.guard(work);
  }

  /**
   * Reads bytes of a buffer that was acquired here.
   *
   * @param offset Bytes from its beginning.
   * @param target As long as what is read.
   * @throws {MisuseError} `freed` — the buffer is not held.
   * @throws {TierError} `device-lost`; `io` — the device refused the copy.
   * @remarks What is asked for in one turn shares the copies and the round trips.
   */
  async read(buffer: GpuBuffer, offset: number, target: Uint8Array): Promise<void> {
    this.checkAlive();
    const key = this.#keys.get(buffer);
    if (key === undefined) throw new MisuseError("freed", "the buffer is not held");
    const reader = await this.#room.tier.openRead(key);
    const count = (await reader?.read(offset, lentBytes(target))) ?? 0;
    await reader?.close();
    if (count === target.byteLength) return;
    throw new TierError(
      "io",
      this.#room.tier.name,
      "the buffer is shorter than what was asked for",
    );
  }

  /** The buffers are gone. @internal */
  end(error: TierError): void {
    this.#ended ??= error;
    this.#keys.clear();
  }
}
