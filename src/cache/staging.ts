// The private buffers through which bytes pass between arenas and tiers. Few, fixed, charged to the
// budget from the start; a transfer without a buffer waits its turn.
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";

export class Staging {
  readonly chunkBytes: number;
  readonly #idle: PrivateBytes[] = [];
  readonly #waiters: ((buffer: PrivateBytes) => void)[] = [];

  constructor(bufferCount: number, chunkBytes: number) {
    this.chunkBytes = chunkBytes;
    for (let index = 0; index < bufferCount; index++) this.#idle.push(privateBytes(chunkBytes));
  }

  /** Runs `work` with a buffer of {@link chunkBytes} that is its own until it settles. */
  async use<T>(work: (buffer: PrivateBytes) => Promise<T>): Promise<T> {
    const buffer =
      this.#idle.pop() ??
      (await new Promise<PrivateBytes>((resolve) => {
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
