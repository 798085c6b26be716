// All tensor records of one memory, by dense index, and the named ones by id.
import type { MemoryPool } from "../memory/memory-pool.js";
import { TensorRecord, type TensorRecordOptions } from "./tensor-record.js";

export class Directory {
  readonly #byId = new Map<string, TensorRecord>();
  readonly #byIndex: (TensorRecord | undefined)[] = [];
  readonly #freeIndexes: number[] = [];

  get size(): number {
    return this.#byIndex.length - this.#freeIndexes.length;
  }

  get(id: string): TensorRecord | undefined {
    return this.#byId.get(id);
  }

  /** The record of an index in use. */
  at(index: number): TensorRecord {
    return this.#byIndex[index] as TensorRecord;
  }

  /** The id, if there is one, must not be in the directory yet. */
  add(options: TensorRecordOptions, pool: MemoryPool, allocatedMs: number): TensorRecord {
    const index = this.#freeIndexes.pop() ?? this.#byIndex.length;
    const { id } = options;
    const record = new TensorRecord(index, options, pool, allocatedMs);
    this.#byIndex[index] = record;
    if (id !== null) this.#byId.set(id, record);
    return record;
  }

  remove(record: TensorRecord): void {
    if (record.id !== null) this.#byId.delete(record.id);
    this.#byIndex[record.index] = undefined;
    this.#freeIndexes.push(record.index);
  }

  /** Lets go of the views on a buffer: what they were made for has moved away. */
  forgetViews(buffer: object): void {
    for (const record of this) if (record.view?.buffer === buffer) record.view = null;
  }

  *[Symbol.iterator](): Generator<TensorRecord> {
    for (const record of this.#byIndex) if (record !== undefined) yield record;
  }
}
