// All tensor records of one memory, by dense index, and the named ones by id.
import type { MemoryPool } from "../memory/memory-pool.js";
import { nameOf, TensorRecord, type TensorRecordOptions } from "./tensor-record.js";

/** Dropped tensors whose number is kept; the longest dropped are forgotten. */
const DROPPED_COUNT_MAX = 65_536;

export class Directory {
  readonly #byId = new Map<string, TensorRecord>();
  readonly #byIndex: (TensorRecord | undefined)[] = [];
  readonly #freeIndexes: number[] = [];
  /** Numbers of dropped tensors by id, the longest dropped first. */
  readonly #dropped = new Map<string, number>();

  get size(): number {
    return this.#byIndex.length - this.#freeIndexes.length - this.#dropped.size;
  }

  /** The record that holds the bytes of that tensor: of a shared one, its content. */
  get(id: string): TensorRecord | undefined {
    const record = this.#byId.get(id);
    return record?.shared ?? record;
  }

  /** The tensor's own record, or the content of that name. */
  named(id: string): TensorRecord | undefined {
    return this.#byId.get(id);
  }

  /** One above the highest index that was ever in use. */
  get indexEnd(): number {
    return this.#byIndex.length;
  }

  /** The record of an index, or undefined where none is. */
  find(index: number): TensorRecord | undefined {
    return this.#byIndex[index];
  }

  /** The record of an index in use. */
  at(index: number): TensorRecord {
    return this.#byIndex[index] as TensorRecord;
  }

  /** The id, if there is one, must not be in the directory yet. */
  add(options: TensorRecordOptions, pool: MemoryPool): TensorRecord {
    const { id } = options;
    const index = this.#takeIndex(id);
    const record = new TensorRecord(index, options, pool);
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

  /**
   * Removes a named record, but keeps its number for when its id comes back.
   *
   * @returns A number that is free from now on, because there are too many; else null.
   */
  drop(record: TensorRecord): number | null {
    const id = nameOf(record);
    this.#byId.delete(id);
    this.#byIndex[record.index] = undefined;
    this.#dropped.set(id, record.index);
    if (this.#dropped.size <= DROPPED_COUNT_MAX) return null;
    return this.forgetDropped(this.#dropped.keys().next().value as string);
  }

  /** The number of a dropped tensor, or null. */
  droppedIndex(id: string): number | null {
    return this.#dropped.get(id) ?? null;
  }

  /** Frees the number of a dropped tensor. @returns It, or null when there is none of that id. */
  forgetDropped(id: string): number | null {
    const index = this.#dropped.get(id) ?? null;
    if (index === null) return null;
    this.#dropped.delete(id);
    this.#freeIndexes.push(index);
    return index;
  }

  #takeIndex(id: string | null): number {
    const dropped = id === null || this.#dropped.size === 0 ? undefined : this.#dropped.get(id);
    if (dropped === undefined) return this.#freeIndexes.pop() ?? this.#byIndex.length;
    this.#dropped.delete(id as string);
    return dropped;
  }

  *[Symbol.iterator](): Generator<TensorRecord> {
    for (const record of this.#byIndex) if (record !== undefined) yield record;
  }
}
