// All tensor records of one memory, by id and by dense index.
import { TensorRecord, type TensorRecordOptions } from "./tensor-record.js";

export class Directory {
  readonly #byId = new Map<string, TensorRecord>();
  readonly #byIndex: (TensorRecord | undefined)[] = [];
  readonly #freeIndexes: number[] = [];
  #anonymousCount = 0;

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): TensorRecord | undefined {
    return this.#byId.get(id);
  }

  at(index: number): TensorRecord {
    return this.#byIndex[index] as TensorRecord;
  }

  /** @param id null for an anonymous tensor. A caller's id must not be in the directory yet. */
  add(
    id: string | null,
    options: Omit<TensorRecordOptions, "index" | "id" | "isNamed">,
  ): TensorRecord {
    const index = this.#freeIndexes.pop() ?? this.#byIndex.length;
    const isNamed = id !== null;
    // A lone surrogate cannot be part of a caller's id.
    const record = new TensorRecord({
      ...options,
      index,
      isNamed,
      id: id ?? `\ud800${this.#anonymousCount++}`,
    });
    this.#byIndex[index] = record;
    this.#byId.set(record.id, record);
    return record;
  }

  remove(record: TensorRecord): void {
    this.#byId.delete(record.id);
    this.#byIndex[record.index] = undefined;
    this.#freeIndexes.push(record.index);
  }

  [Symbol.iterator](): IterableIterator<TensorRecord> {
    return this.#byId.values();
  }
}
