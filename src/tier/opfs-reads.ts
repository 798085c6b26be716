// Reads on their way to the worker of the OPFS tier. A message costs more than what a short read does there, so
// those that are asked for at about the same time share one, and one answer.
import { type PrivateBytes, privateLength } from "../util/private-bytes.js";
import type { MessageBuffers } from "./message-buffers.js";
import type { PartsRead, ReadPart } from "./opfs-messages.js";
import { SystemError } from "./system-error.js";

interface PendingRead extends ReadPart {
  readonly targets: readonly PrivateBytes[];
  resolve(byteLength: number): void;
  reject(error: unknown): void;
}

/** Messages under way: while the worker has one, the page looks at what came with the other. */
const SENT_COUNT_MAX = 2;
/** Bytes of one message, unless a single read has more: few enough that there is something to look at early. */
const BATCH_BYTES_MAX = 2 ** 19;
/** Microtasks in which who was just told of one read can have asked for the next one. */
const GATHER_TICK_COUNT = 30;

/** Sends one message. */
export type SendReads = (parts: readonly ReadPart[], lent: PrivateBytes) => Promise<PartsRead>;

export class OpfsReads {
  readonly #send: SendReads;
  readonly #buffers: MessageBuffers;
  readonly #queue: PendingRead[] = [];
  #sentCount = 0;
  #isGathering = false;

  /** @param buffers Where memory for messages comes from, and goes back to. */
  constructor(send: SendReads, buffers: MessageBuffers) {
    this.#send = send;
    this.#buffers = buffers;
  }

  /**
   * Fills the targets, one behind the other. Nothing is written to them before all bytes are here.
   *
   * @returns Bytes read. @throws The platform's own error, by its code.
   */
  read(number: number, targets: readonly PrivateBytes[], offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const byteLength = privateLength(targets);
      this.#queue.push({ number, offset, byteLength, targets, resolve, reject });
      this.#wake();
    });
  }

  #wake(): void {
    if (this.#isGathering || this.#queue.length === 0 || this.#sentCount === SENT_COUNT_MAX) return;
    this.#isGathering = true;
    this.#gather().catch(() => {});
  }

  /** Waits as long as more reads come at once, then sends them. Never rejects. */
  async #gather(): Promise<void> {
    for (let count = 0; count < this.#queue.length; ) {
      count = this.#queue.length;
      for (let tick = 0; tick < GATHER_TICK_COUNT; tick++) await Promise.resolve();
    }
    this.#isGathering = false;
    while (this.#queue.length > 0 && this.#sentCount < SENT_COUNT_MAX) {
      this.#sendBatch(this.#takeBatch()).catch(() => {});
    }
  }

  #takeBatch(): PendingRead[] {
    let count = 0;
    let bytes = 0;
    for (const { byteLength } of this.#queue) {
      bytes += byteLength;
      if (count > 0 && bytes > BATCH_BYTES_MAX) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  /** Never rejects: who waits is told. */
  async #sendBatch(batch: readonly PendingRead[]): Promise<void> {
    this.#sentCount += 1;
    const parts = batch.map(({ number, offset, byteLength }) => ({ number, offset, byteLength }));
    const lent = this.#buffers.take(batch.reduce((sum, { byteLength }) => sum + byteLength, 0));
    let answer: PartsRead;
    try {
      answer = await this.#send(parts, lent);
    } catch (error) {
      for (const { reject } of batch) reject(error);
      return;
    } finally {
      // The next message first: the worker has it while this one is looked at.
      this.#sentCount -= 1;
      this.#wake();
    }
    const { outcomes, bytes } = answer;
    let start = 0;
    batch.forEach((pending, index) => {
      settle(pending, outcomes[index] ?? 0, bytes.subarray(start, start + pending.byteLength));
      start += pending.byteLength;
    });
    this.#buffers.give(bytes);
  }
}

function settle(
  { targets, resolve, reject }: PendingRead,
  outcome: PartsRead["outcomes"][number],
  bytes: Uint8Array,
): void {
  if (typeof outcome !== "number") {
    reject(new SystemError(outcome.code, outcome.message));
    return;
  }
  let start = 0;
  for (const target of targets) {
    const part = bytes.subarray(start, Math.min(outcome, start + target.byteLength));
    target.set(part);
    start += part.byteLength;
  }
  resolve(outcome);
}
