// Writes on their way to the worker of the OPFS tier: in parts, so that the worker has one while the page copies
// the next. It takes them in order, and none behind one that failed: what is in the file is whole up to some place.
import { type PrivateBytes, privateLength, privateParts } from "../util/private-bytes.js";
import type { MessageBuffers } from "./message-buffers.js";
import type { Moved } from "./opfs-messages.js";
import { SystemError } from "./system-error.js";

/** About so many bytes of one message. */
export const PART_BYTES = 2 ** 19;
/** Messages of one write that are under way: the way to the worker takes longer than its write. */
const SENT_COUNT_MAX = 4;

/**
 * Sends one message.
 *
 * @param isBehind Nothing is written unless the part before is there whole.
 */
export type SendPart = (bytes: PrivateBytes, offset: number, isBehind: boolean) => Promise<Moved>;

/**
 * Writes the sources, one behind the other, at `offset`.
 *
 * @param buffers Where memory for messages comes from, and goes back to.
 * @returns Bytes written, without a gap. @throws As `send`; nothing is under way any more.
 */
export async function writeInParts(
  send: SendPart,
  buffers: MessageBuffers,
  sources: readonly PrivateBytes[],
  offset: number,
): Promise<number> {
  const totalBytes = privateLength(sources);
  const partBytes = Math.ceil(totalBytes / Math.max(1, Math.round(totalBytes / PART_BYTES)));
  const sent: { readonly byteLength: number; readonly moved: Promise<Moved> }[] = [];
  let writtenBytes = 0;
  /** @returns Whether the first part that is under way was written whole. */
  const isFirstWhole = async (): Promise<boolean> => {
    const first = sent.shift();
    if (first === undefined) return true;
    const { count, bytes } = await first.moved;
    buffers.give(bytes);
    writtenBytes += count;
    return count === first.byteLength;
  };
  try {
    for (let start = 0; start < totalBytes; start += partBytes) {
      if (sent.length === SENT_COUNT_MAX && !(await isFirstWhole())) return writtenBytes;
      const parts = privateParts(sources, start, partBytes);
      // A copy of its own, which is handed over: a message would take the whole buffer.
      const bytes = buffers.take(privateLength(parts));
      let end = 0;
      for (const part of parts) {
        bytes.set(part, end);
        end += part.byteLength;
      }
      const moved = send(bytes, offset + start, start > 0);
      // It is looked at in its turn.
      moved.catch(() => {});
      sent.push({ byteLength: end, moved });
    }
    while (sent.length > 0 && (await isFirstWhole()));
    return writtenBytes;
  } finally {
    await Promise.allSettled(sent.map(({ moved }) => moved));
  }
}

/** Pieces of one file that are written while its writer has others copied. */
export class WritesBehind {
  readonly #send: SendPart;
  readonly #buffers: MessageBuffers;
  /** In the order in which they were given. */
  readonly #sent: (() => Promise<void>)[] = [];

  /** @param buffers Where memory for messages comes from, and goes back to. */
  constructor(send: SendPart, buffers: MessageBuffers) {
    this.#send = send;
    this.#buffers = buffers;
  }

  /** As of a file's writer. */
  async write(source: PrivateBytes, offset: number): Promise<void> {
    // What went wrong is told before anything is copied.
    while (this.#sent.length >= SENT_COUNT_MAX) await this.#sent.shift()?.();
    const bytes = this.#buffers.take(source.byteLength);
    bytes.set(source);
    const moved = this.#send(bytes, offset, offset > 0);
    // It is looked at in its turn.
    moved.catch(() => {});
    this.#sent.push(() => this.#finish(moved, offset, source.byteLength));
  }

  async settle(): Promise<void> {
    while (this.#sent.length > 0) await this.#sent.shift()?.();
  }

  /** Writes what is left of a piece. All before it is written. */
  async #finish(sent: Promise<Moved>, offset: number, byteLength: number): Promise<void> {
    let { count, bytes } = await sent;
    for (let leftBytes = byteLength - count; leftBytes > 0; leftBytes -= count) {
      const rest = bytes.subarray(bytes.byteLength - leftBytes) as PrivateBytes;
      ({ count, bytes } = await this.#send(rest, offset + byteLength - leftBytes, true));
      if (count === 0) throw new SystemError("ENOSPC", "the file took no bytes");
    }
    this.#buffers.give(bytes);
  }
}
