// Private memory for frames that are being built or wait to be written. Bounded; lengths repeat,
// because shapes do, so buffers are kept by their length.
import { type PrivateBytes, privateBytes } from "../util/private-bytes.js";

export class FrameBuffers {
  readonly #limitBytes: number;
  readonly #idle = new Map<number, PrivateBytes[]>();
  #idleBytes = 0;
  #usedBytes = 0;

  /** @param limitBytes Most bytes, idle ones too; one buffer may be longer. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** @returns A buffer with anything in it, or null when too much is in use. */
  tryTake(byteLength: number): PrivateBytes | null {
    if (this.#usedBytes > 0 && this.#usedBytes + byteLength > this.#limitBytes) return null;
    this.#usedBytes += byteLength;
    const found = this.#idle.get(byteLength)?.pop();
    if (found !== undefined) {
      this.#idleBytes -= byteLength;
      return found;
    }
    if (this.#usedBytes + this.#idleBytes > this.#limitBytes) this.#clear();
    return privateBytes(byteLength);
  }

  give(buffer: PrivateBytes): void {
    const { byteLength } = buffer;
    this.#usedBytes -= byteLength;
    if (this.#usedBytes + this.#idleBytes + byteLength > this.#limitBytes) return;
    const idle = this.#idle.get(byteLength);
    if (idle === undefined) this.#idle.set(byteLength, [buffer]);
    else idle.push(buffer);
    this.#idleBytes += byteLength;
  }

  #clear(): void {
    this.#idle.clear();
    this.#idleBytes = 0;
  }
}
