// Notices anonymous tensors that became unreachable without having been freed. A named tensor is
// never a leak: its id still reaches it.
import type { TensorRecord } from "../cache/tensor-record.js";
import type { EventHub } from "./events.js";
import type { Tensor } from "./tensor.js";

interface Watched {
  readonly record: TensorRecord;
  readonly callSite: string | null;
}

export interface LeakStats {
  readonly leakedCount: number;
  readonly leakedBytes: number;
}

export class LeakWatch {
  readonly #isDebug: boolean;
  readonly #registry: FinalizationRegistry<Watched>;
  #leakedCount = 0;
  #leakedBytes = 0;

  /** @param release Frees the tensor's block; nothing can reach it any more. */
  constructor(isDebug: boolean, events: EventHub, release: (record: TensorRecord) => void) {
    this.#isDebug = isDebug;
    this.#registry = new FinalizationRegistry(({ record, callSite }) => {
      if (record.isFreed) return;
      this.#leakedCount += 1;
      this.#leakedBytes += record.byteLength;
      const { kind, byteLength, tag } = record;
      release(record);
      events.emit({ type: "leak", kind, bytes: byteLength, tag, callSite });
    });
  }

  watch(tensor: Tensor, record: TensorRecord): void {
    if (record.id === null)
      this.#registry.register(tensor, { record, callSite: this.#callSite() }, record);
  }

  unwatch(record: TensorRecord): void {
    if (record.id === null) this.#registry.unregister(record);
  }

  stats(): LeakStats {
    return { leakedCount: this.#leakedCount, leakedBytes: this.#leakedBytes };
  }

  /** The caller's frames, without those of this library. Costs microseconds: debug mode only. */
  #callSite(): string | null {
    if (!this.#isDebug) return null;
    const lines = (new Error().stack ?? "").split("\n").slice(1);
    const entry = lines.findLastIndex((line) => ENTRY_FRAME.test(line));
    return lines
      .slice(entry + 1)
      .map((line) => line.trim())
      .join("\n");
  }
}

/** The calls by which callers enter the library; unknown after minification, and then all is shown. */
const ENTRY_FRAME = /\b(?:TensorMemory\.(?:allocate|tryAllocate)|Scope\.allocate)\b/;
