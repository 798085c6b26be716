// The private buffers through which bytes pass between arenas and tiers. Few, fixed, charged to the
// budget from the start; a transfer without a buffer waits its turn.
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";

/** A view on part of the bytes of a block that stays where it is. */
export type BytesAt = (offset: number, byteLength: number) => Uint8Array;

export interface StagingBuffer {
  /** Two halves, which are filled in turns. */
  readonly halves: readonly [PrivateBytes, PrivateBytes];
  /** Room for one unit of a codec. */
  readonly unit: Uint8Array;
}

export class Staging {
  readonly #idle: StagingBuffer[] = [];
  readonly #waiters: ((buffer: StagingBuffer) => void)[] = [];

  /** @param unitBytes Of a codec's longest unit; 0 without a codec. */
  constructor(bufferCount: number, chunkBytes: number, unitBytes = 0) {
    const halfBytes = chunkBytes >> 1;
    for (let index = 0; index < bufferCount; index++) {
      const halves = [privateBytes(halfBytes), privateBytes(halfBytes)] as const;
      this.#idle.push({ halves, unit: privateBytes(unitBytes) });
    }
  }

  /** Runs `work` with a buffer that is its own until it settles. */
  async use<T>(work: (buffer: StagingBuffer) => Promise<T>): Promise<T> {
    const buffer =
      this.#idle.pop() ??
      (await new Promise<StagingBuffer>((resolve) => {
        this.#waiters.push(resolve);
      }));
    try {
      return await work(buffer);
    } finally {
      const next = this.#waiters.shift();
      if (next === undefined) this.#idle.push(buffer);
      else next(buffer);
    }
  }
}
