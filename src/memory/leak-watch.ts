// Notices anonymous tensors, and those of fixed shapes, that became unreachable without having been freed.
// A named tensor is never a leak: its id still reaches it.
//
// To register an object with the engine's collector costs more than the rest of an allocation, and
// nothing is found unreachable before the turn of the event loop ends. So a tensor is registered
// only if it outlives the turn in which it was allocated.
import type { TensorKind } from "../types.js";
import type { EventHub } from "./events.js";

export interface LeakStats {
  readonly leakedCount: number;
  readonly leakedBytes: number;
}

/** What stays of a tensor when nothing reaches it any more. It must not reach the tensor itself. */
export interface Leakable {
  readonly kind: TensorKind;
  readonly byteLength: number;
  readonly tag: string;
  /** Where it was allocated; only in debug mode. */
  readonly callSite: string | null;
  readonly isFreed: boolean;
  /** Written by the watch. */
  isWatched: boolean;
}

/** Tensors of one turn that are kept before the freed ones among them are let go. */
const FRESH_COUNT_MAX = 1024;

export class LeakWatch<L extends Leakable> {
  readonly #registry: FinalizationRegistry<L>;
  /** Tensors of this turn, and their records at the same places. */
  #freshTensors: object[] = [];
  #freshRecords: L[] = [];
  #isSettling = false;
  #leakedCount = 0;
  #leakedBytes = 0;

  /** @param release Frees the tensor's block if it may; nothing can reach the tensor any more. */
  constructor(events: EventHub, release: (record: L) => void) {
    this.#registry = new FinalizationRegistry((record) => {
      if (record.isFreed) return;
      this.#leakedCount += 1;
      this.#leakedBytes += record.byteLength;
      const { kind, byteLength, tag, callSite } = record;
      release(record);
      events.emit({ type: "leak", kind, bytes: byteLength, tag, callSite });
    });
  }

  /** Watches a fresh tensor. */
  watch(tensor: object, record: L): void {
    this.#freshTensors.push(tensor);
    this.#freshRecords.push(record);
    if (this.#freshRecords.length === FRESH_COUNT_MAX) this.#settle();
    if (this.#isSettling) return;
    this.#isSettling = true;
    this.afterTurn(() => {
      this.#isSettling = false;
      this.#settle();
    });
  }

  /** Calls `work`, which never throws, when the turn's own work is done. */
  afterTurn(work: () => void): void {
    Promise.resolve()
      .then(work)
      .catch(() => {});
  }

  /** Watches a tensor that has outlived its turn. */
  register(tensor: object, record: L): void {
    this.#registry.register(tensor, record, record);
    record.isWatched = true;
  }

  /** Ends the watch over a freed tensor. */
  unwatch(record: L): void {
    if (record.isWatched) this.#registry.unregister(record);
  }

  stats(): LeakStats {
    return { leakedCount: this.#leakedCount, leakedBytes: this.#leakedBytes };
  }

  #settle(): void {
    const tensors = this.#freshTensors;
    for (const [index, record] of this.#freshRecords.entries()) {
      if (!record.isFreed) this.register(tensors[index] as object, record);
    }
    this.#freshTensors = [];
    this.#freshRecords = [];
  }
}
