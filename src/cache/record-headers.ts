// From a tensor and one of its copies to the header that the copy's record has, and its generation.
import type { Clock } from "../clock.js";
import type { RecordHeader, RecordName } from "../record/record.js";
import { type ColdCopy, nameOf, type TensorRecord } from "./tensor-record.js";

export function headerOf(
  namespace: Omit<RecordName, "id">,
  record: TensorRecord,
  copy: Omit<ColdCopy, "version" | "isInexact">,
): RecordHeader {
  return {
    ...namespace,
    id: nameOf(record),
    kind: record.kind,
    dtype: record.dtype,
    shape: record.shape,
    layout: record.layout,
    codecId: copy.codecId,
    isDurable: copy.isDurable,
    isSaved: copy.isSaved,
    generation: copy.generation,
    expiresMs: copy.expiresMs,
    rawBytes: record.byteLength,
    storedBytes: copy.storedBytes,
  };
}

/** Numbers for records, each later than every one of this process, and of earlier ones unless the clock went back. */
export class Generations {
  readonly #clock: Clock;
  #last = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  next({ cold }: TensorRecord): number {
    const least = Math.max(this.#last, cold?.generation ?? 0) + 1;
    this.#last = Math.max(least, Math.floor(this.#clock.wallMs()));
    return this.#last;
  }
}
