// Notices anonymous tensors that became unreachable without having been freed. A named tensor is
// never a leak: its id still reaches it.
//
// To register an object with the engine's collector costs more than the rest of an allocation, and
// nothing is found unreachable before the turn of the event loop ends. So a tensor is registered
// only if it outlives the turn in which it was allocated.
import type { TensorRecord } from "../cache/tensor-record.js";
import type { EventHub } from "./events.js";
import type { Tensor } from "./tensor.js";

export interface LeakStats {
  readonly leakedCount: number;
  readonly leakedBytes: number;
}

/** Tensors of one turn that are kept before the freed ones among them are let go. */
const FRESH_COUNT_MAX = 1024;

export class LeakWatch {
  readonly #registry: FinalizationRegistry<TensorRecord>;
  /** Tensors of this turn, and their records at the same places. */
  #freshTensors: Tensor[] = [];
  #freshRecords: TensorRecord[] = [];
  #isSettling = false;
  #leakedCount = 0;
  #leakedBytes = 0;

  /** @param release Frees the tensor's block; nothing can reach it any more. */
  constructor(events: EventHub, release: (record: TensorRecord) => void) {
    this.#registry = new FinalizationRegistry((record) => {
      if (record.isFreed) return;
      this.#leakedCount += 1;
      this.#leakedBytes += record.byteLength;
      const { kind, byteLength, tag, callSite } = record;
      release(record);
      events.emit({ type: "leak", kind, bytes: byteLength, tag, callSite });
    });
  }

  /** Watches a fresh anonymous tensor. */
  watch(tensor: Tensor, record: TensorRecord): void {
    this.#freshTensors.push(tensor);
    this.#freshRecords.push(record);
    if (this.#freshRecords.length === FRESH_COUNT_MAX) this.#settle();
    if (this.#isSettling) return;
    this.#isSettling = true;
    // Cannot reject: nothing in it throws.
    Promise.resolve()
      .then(() => {
        this.#isSettling = false;
        this.#settle();
      })
      .catch(() => {});
  }

  /** Ends the watch over a freed anonymous tensor. */
  unwatch(record: TensorRecord): void {
    if (record.isWatched) this.#registry.unregister(record);
  }

  stats(): LeakStats {
    return { leakedCount: this.#leakedCount, leakedBytes: this.#leakedBytes };
  }

  #settle(): void {
    const tensors = this.#freshTensors;
    for (const [index, record] of this.#freshRecords.entries()) {
      if (!record.isFreed) this.#register(tensors[index] as Tensor, record);
    }
    this.#freshTensors = [];
    this.#freshRecords = [];
  }

  #register(tensor: Tensor, record: TensorRecord): void {
    this.#registry.register(tensor, record, record);
    record.isWatched = true;
  }
}
