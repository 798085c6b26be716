// Buffers that go to a worker and come back with its answer. Fresh memory costs more than what is copied into it, since
// the system gives it page by page; so a few are kept.
import { type PrivateBytes, privateBytes, privatePart } from "../util/private-bytes.js";

const COUNT_MAX = 16;
const BYTES_MAX = 2 ** 22;
/** A kept buffer is at most so many times longer than what is asked for. */
const SLACK = 4;

export class MessageBuffers {
  readonly #idle: ArrayBuffer[] = [];
  #idleBytes = 0;

  /** @returns Bytes with anything in them, at the front of a buffer that may be longer. */
  take(byteLength: number): PrivateBytes {
    const at = this.#idle.findLastIndex(
      (idle) => idle.byteLength >= byteLength && idle.byteLength <= SLACK * byteLength,
    );
    // Lengths that differ a little have buffers of one length, so that these are found again.
    if (at < 0) {
      const roundBytes = 2 ** Math.ceil(Math.log2(Math.max(1, byteLength)));
      const keptBytes = roundBytes <= BYTES_MAX ? roundBytes : byteLength;
      return privatePart(privateBytes(keptBytes), 0, byteLength);
    }
    const [buffer] = this.#idle.splice(at, 1) as [ArrayBuffer];
    this.#idleBytes -= buffer.byteLength;
    return new Uint8Array(buffer, 0, byteLength) as PrivateBytes;
  }

  /** @param bytes Nobody looks at their buffer any more. */
  give({ buffer }: Uint8Array<ArrayBuffer>): void {
    if (buffer.byteLength === 0 || buffer.byteLength > BYTES_MAX) return;
    this.#idle.push(buffer);
    this.#idleBytes += buffer.byteLength;
    while (this.#idle.length > COUNT_MAX || this.#idleBytes > BYTES_MAX) {
      this.#idleBytes -= this.#idle.shift()?.byteLength ?? 0;
    }
  }
}
