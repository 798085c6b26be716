// Stored bytes, as they come, back to a tensor: cut into units, which are decoded one after the other.
import type { UnitCoder } from "../codec/codec.js";
import type { BytesAt } from "./staging.js";

/** Takes stored bytes in order. */
export interface Sink {
  /** @returns false when the bytes are malformed. */
  push(bytes: Uint8Array): boolean | Promise<boolean>;
  /** All bytes were pushed. @returns Whether they made the whole tensor. */
  end(): boolean | Promise<boolean>;
  /** Resolves once the target is not written any more, whatever came before. */
  leave(): Promise<void> | void;
}

/** Of bytes that are stored as they are. */
export function plainSink(target: BytesAt): Sink {
  let offset = 0;
  return {
    push: (bytes) => {
      target(offset, bytes.byteLength).set(bytes);
      offset += bytes.byteLength;
      return true;
    },
    end: () => true,
    leave: () => {},
  };
}

/** Cuts stored bytes into units. */
export class UnitCutter {
  readonly #coder: UnitCoder;
  readonly #room: Uint8Array;
  #filled = 0;

  /** @param room For one unit. */
  constructor(coder: UnitCoder, room: Uint8Array) {
    this.#coder = coder;
    this.#room = room;
  }

  /** Whether no unit has begun. */
  get isBetween(): boolean {
    return this.#filled === 0;
  }

  /** The units that end in these bytes, each valid until the next is asked for; null: malformed, and the last. */
  *cut(bytes: Uint8Array): Generator<Uint8Array | null> {
    const { headBytes } = this.#coder;
    let rest = bytes;
    while (rest.byteLength > 0) {
      if (this.#filled === 0 && rest.byteLength >= headBytes) {
        const unitBytes = this.#coder.unitBytes(rest);
        if (unitBytes === null) return yield null;
        if (unitBytes <= rest.byteLength) {
          yield rest.subarray(0, unitBytes);
          rest = rest.subarray(unitBytes);
          continue;
        }
      }
      let wantedBytes = headBytes;
      if (this.#filled >= headBytes) {
        const unitBytes = this.#coder.unitBytes(this.#room);
        if (unitBytes === null) return yield null;
        wantedBytes = unitBytes;
      }
      const count = Math.min(wantedBytes - this.#filled, rest.byteLength);
      this.#room.set(rest.subarray(0, count), this.#filled);
      this.#filled += count;
      rest = rest.subarray(count);
      if (this.#filled > headBytes && this.#filled === wantedBytes) {
        this.#filled = 0;
        yield this.#room.subarray(0, wantedBytes);
      }
    }
  }
}

/** Has units decoded by the thread that pushes them. */
export class UnitStream implements Sink {
  readonly #cutter: UnitCutter;
  readonly #rawBytes: number;
  readonly #decode: (unit: Uint8Array, offset: number) => number | null;
  #rawOffset = 0;

  /**
   * @param room For one unit.
   * @param decode Decodes a unit to that offset of the tensor; null if it is malformed.
   */
  constructor(
    coder: UnitCoder,
    room: Uint8Array,
    rawBytes: number,
    decode: (unit: Uint8Array, offset: number) => number | null,
  ) {
    this.#cutter = new UnitCutter(coder, room);
    this.#rawBytes = rawBytes;
    this.#decode = decode;
  }

  push(bytes: Uint8Array): boolean {
    for (const unit of this.#cutter.cut(bytes)) {
      if (unit === null || this.#rawOffset === this.#rawBytes) return false;
      const byteLength = this.#decode(unit, this.#rawOffset);
      if (byteLength === null) return false;
      this.#rawOffset += byteLength;
    }
    return true;
  }

  end(): boolean {
    return this.#rawOffset === this.#rawBytes && this.#cutter.isBetween;
  }

  leave(): void {}
}
