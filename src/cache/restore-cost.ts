// What it costs to let a resident tensor go: the write, and the time until it would be back. From what
// loads have shown so far and what callers have told; nothing is measured here.
import type { TensorRecord } from "./tensor-record.js";
import type { TransferSpeed } from "./transfer-speed.js";

/**
 * Milliseconds until a resident tensor would be back after it left: loaded, or computed again where
 * that is told to be quicker.
 *
 * @param speed Of loads.
 * @returns undefined where neither is known.
 */
export function expectedRestoreMs(record: TensorRecord, speed: TransferSpeed): number | undefined {
  const { cold, byteLength, isClean, recomputeMs } = record;
  const loadMs = speed.estimateMs(isClean && cold !== null ? cold.storedBytes : byteLength);
  if (loadMs === null) return recomputeMs ?? undefined;
  return recomputeMs === null ? loadMs : Math.min(loadMs, recomputeMs);
}

/** Entries next in the order among which a cheaper one may go first. */
const WINDOW_COUNT = 4;
/** How many times cheaper per byte it has to be: an equal one that needs no write is. */
const CHEAPER_TIMES = 2;

/**
 * Weighs an order of leaving by what the next few would cost. One that is passed over goes the next
 * time, so that none outstays the order by more than one choice. Tensors of a chain stay in their
 * order, because a head that left before its tail would make the tail useless.
 */
export class VictimChoice {
  readonly #speed: TransferSpeed;
  /** Index of the tensor that a cheaper one was preferred to; null when the order was followed. */
  #passedOver: number | null = null;

  /** @param speed Of loads. */
  constructor(speed: TransferSpeed) {
    this.#speed = speed;
  }

  /**
   * @param order Resident tensors that may leave, the one that should go first at the front; holes
   *   (null) are entries of the order that may not. Walked no further than is needed.
   * @returns null when none may leave.
   */
  next(order: Iterable<TensorRecord | null>): TensorRecord | null {
    let first: TensorRecord | null = null;
    let chosen: TensorRecord | null = null;
    let remaining = WINDOW_COUNT;
    for (const record of order) {
      if (first === null) {
        first = record;
        chosen = record;
        if (first !== null && (isOfChain(first) || first.index === this.#passedOver)) break;
      } else if (record !== null) {
        if (isOfChain(record)) break;
        if (this.#isMuchCheaper(record, first) && this.#isCheaper(record, chosen)) chosen = record;
      }
      if (first !== null && --remaining === 0) break;
    }
    this.#passedOver = chosen === first ? null : (first?.index ?? null);
    return chosen;
  }

  #isMuchCheaper(record: TensorRecord, other: TensorRecord): boolean {
    return CHEAPER_TIMES * this.#costPerByte(record) <= this.#costPerByte(other);
  }

  #isCheaper(record: TensorRecord, other: TensorRecord | null): boolean {
    return other === null || this.#costPerByte(record) < this.#costPerByte(other);
  }

  /** A write is taken to last as long as the load. Before anything was measured, bytes count alone. */
  #costPerByte(record: TensorRecord): number {
    const { byteLength, isClean } = record;
    const restoreMs = expectedRestoreMs(record, this.#speed) ?? byteLength;
    const writeMs = isClean ? 0 : (this.#speed.estimateMs(byteLength) ?? byteLength);
    return (restoreMs + writeMs) / byteLength;
  }
}

function isOfChain({ kind, isChained }: TensorRecord): boolean {
  return isChained || kind === "KV_CACHE";
}
