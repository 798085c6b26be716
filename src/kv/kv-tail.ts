// The rows behind the last full page of a cache: one tensor of exact sections with room for a page. Forks
// share it until one of them writes.
import { Tensor } from "../memory/tensor.js";
import { dtypeTraits } from "../types.js";
import type { KvHeap } from "./kv-heap.js";
import type { RowWriter } from "./page-chain.js";
import type { KvLayerShape } from "./page-form.js";
import {
  bytesOf,
  copyHeads,
  exactRows,
  type KvRows,
  type PagePlans,
  sectionOf,
} from "./page-plan.js";
import { leaseOf } from "./page-table.js";

const TAIL_ALIGNMENT = 64;
/** A tensor's version changes when a write pin begins and when it ends. */
const VERSIONS_PER_WRITE_PIN = 2;

/** Its sections, until the lease ends. */
export interface TailLease {
  readonly sections: Uint8Array;
  end(): void;
}

/** Rows to be written: for each layer, with so many rows from one head to the next, from a row on. */
export interface RowSource {
  readonly rows: (layerIndex: number) => KvRows;
  readonly strideRows: number;
  readonly firstRow: number;
}

export class KvTail {
  /** Caches that have it. */
  referenceCount = 1;
  readonly #heap: KvHeap;
  readonly #tensor: Tensor;
  #version: number;

  private constructor(heap: KvHeap, tensor: Tensor) {
    this.#heap = heap;
    this.#tensor = tensor;
    this.#version = Tensor.recordOf(tensor).version;
  }

  /** @throws {OutOfMemoryError} */
  static async allocate(heap: KvHeap, plans: PagePlans, id: string): Promise<KvTail> {
    const { byteLength, dtype } = plans.exact;
    const options = {
      ...({ kind: "KV_CACHE", id, dtype, tag: "kv tail", budget: "exact" } as const),
      shape: [byteLength / dtypeTraits(dtype).elementBytes],
      alignment: TAIL_ALIGNMENT,
      // What is behind the rows is read by nobody, but saved.
      zero: true,
    };
    let tensor = heap.tryAllocate(options);
    if (tensor === null) {
      const { kind, alignment } = options;
      await heap.reserve({ kind, bytes: byteLength, alignment });
      tensor = heap.allocate(options);
    }
    return new KvTail(heap, tensor);
  }

  get id(): string {
    return this.#tensor.id as string;
  }

  get byteLength(): number {
    return this.#tensor.byteLength;
  }

  release(): void {
    this.referenceCount -= 1;
    if (this.referenceCount === 0) this.#tensor[Symbol.dispose]();
  }

  /**
   * Makes it resident and pins it, for reading its sections.
   *
   * @throws As {@link leaseOf}.
   */
  async leaseRead(): Promise<TailLease> {
    const lease = await leaseOf(this.#heap, this.#tensor, this.#version);
    return { sections: lease.bytes, end: () => lease[Symbol.dispose]() };
  }

  /** As {@link leaseRead}, for {@link writeRows} or for all of its bytes. */
  async leaseWrite(): Promise<TailLease> {
    const read = await this.leaseRead();
    try {
      const pin = this.#tensor.pin();
      const end = () => {
        pin[Symbol.dispose]();
        this.#version += VERSIONS_PER_WRITE_PIN;
      };
      return { sections: pin.bytes, end };
    } finally {
      read.end();
    }
  }
}

/** Writes `count` rows of all layers into a tail's sections, from the row `at` on. */
export function writeRows(
  plans: PagePlans,
  sections: Uint8Array,
  at: number,
  count: number,
  source: RowSource,
): void {
  const { layers, pageTokens: strideRows, exact } = plans;
  layers.forEach((layer, index) => {
    const own = exactRows(layer, strideRows, sectionOf(exact, index, sections));
    const given = source.rows(index);
    for (const part of ["keys", "values"] as const) {
      const from = {
        bytes: bytesOf(given[part]),
        strideRows: source.strideRows,
        row: source.firstRow,
      };
      copyHeads({ bytes: own[part], strideRows, row: at }, from, layer, count);
    }
  });
}

/**
 * Writers of full pages: the first begins with the rows of a tail, and given rows follow.
 *
 * @param source Of given rows, from one of them on.
 */
export function pageWriters(
  { layers, pageTokens, exact }: PagePlans,
  tail: { readonly sections: Uint8Array | undefined; readonly rows: number },
  source: (firstRow: number) => RowSource,
): (number: number) => RowWriter {
  return (number) => {
    const tailRows = number === 0 ? tail.rows : 0;
    const given = source(number * pageTokens - (tail.rows - tailRows));
    return (index, ...targets) => {
      const layer = layers[index] as KvLayerShape;
      const rows = given.rows(index);
      for (const [side, part] of (["keys", "values"] as const).entries()) {
        const target = { bytes: targets[side] as Uint8Array, strideRows: pageTokens };
        if (tailRows > 0 && tail.sections !== undefined) {
          const section = sectionOf(exact, index, tail.sections);
          const bytes = exactRows(layer, pageTokens, section)[part];
          const from = { bytes, strideRows: pageTokens, row: 0 };
          copyHeads({ ...target, row: 0 }, from, layer, tailRows);
        }
        const { strideRows, firstRow: row } = given;
        const from = { bytes: bytesOf(rows[part]), strideRows, row };
        copyHeads({ ...target, row: tailRows }, from, layer, pageTokens - tailRows);
      }
    };
  };
}
