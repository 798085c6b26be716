// A doubly linked list over dense indexes, in flat arrays that grow by doubling.

const END = -1;
const ABSENT = -2;

/** Every operation is O(1), amortised over growth. */
export class IndexList {
  #next = new Int32Array(64).fill(ABSENT);
  #previous = new Int32Array(64).fill(ABSENT);
  #first = END;
  #last = END;

  has(index: number): boolean {
    return index < this.#next.length && this.#next[index] !== ABSENT;
  }

  /** `index` must not be in the list. */
  append(index: number): void {
    this.#reserve(index);
    this.#next[index] = END;
    this.#previous[index] = this.#last;
    if (this.#last === END) this.#first = index;
    else this.#next[this.#last] = index;
    this.#last = index;
  }

  /** `index` must be in the list. */
  remove(index: number): void {
    const next = this.#next[index] as number;
    const previous = this.#previous[index] as number;
    if (previous === END) this.#first = next;
    else this.#next[previous] = next;
    if (next === END) this.#last = previous;
    else this.#previous[next] = previous;
    this.#next[index] = ABSENT;
  }

  /** From first to last. The index given last may be removed while walking. */
  *[Symbol.iterator](): Generator<number> {
    let index = this.#first;
    while (index !== END) {
      const next = this.#next[index] as number;
      yield index;
      index = next;
    }
  }

  #reserve(index: number): void {
    if (index < this.#next.length) return;
    const length = 2 ** Math.ceil(Math.log2(index + 1));
    const next = new Int32Array(length).fill(ABSENT);
    const previous = new Int32Array(length).fill(ABSENT);
    next.set(this.#next);
    previous.set(this.#previous);
    this.#next = next;
    this.#previous = previous;
  }
}
