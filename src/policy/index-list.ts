// Doubly linked lists over dense indexes, in flat arrays that grow. An index is in at most one of the
// lists of one `IndexLists`, so that moving it from list to list needs no further memory.

const END = -1;
const ABSENT = 255;

/** Every operation is O(1), amortised over growth. 9 bytes per index. */
export class IndexLists {
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  #list = new Uint8Array(64).fill(ABSENT);
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #counts: Int32Array;

  /** @param listCount From 1 to 255. */
  constructor(listCount = 1) {
    this.#first = new Int32Array(listCount).fill(END);
    this.#last = new Int32Array(listCount).fill(END);
    this.#counts = new Int32Array(listCount);
  }

  /** The list that an index is in, or −1. */
  listOf(index: number): number {
    const list = this.#list[index] ?? ABSENT;
    return list === ABSENT ? -1 : list;
  }

  has(index: number): boolean {
    return (this.#list[index] ?? ABSENT) !== ABSENT;
  }

  count(list = 0): number {
    return this.#counts[list] as number;
  }

  /** The first index of a list, or −1. */
  first(list = 0): number {
    return this.#first[list] as number;
  }

  last(list = 0): number {
    return this.#last[list] as number;
  }

  after(index: number): number {
    return this.#next[index] as number;
  }

  before(index: number): number {
    return this.#previous[index] as number;
  }

  /** `index` must be in no list. */
  append(index: number, list = 0): void {
    this.#reserve(index);
    const last = this.#last[list] as number;
    this.#list[index] = list;
    this.#next[index] = END;
    this.#previous[index] = last;
    if (last === END) this.#first[list] = index;
    else this.#next[last] = index;
    this.#last[list] = index;
    (this.#counts[list] as number) += 1;
  }

  /** `index` must be in a list. */
  remove(index: number): void {
    const list = this.#list[index] as number;
    const next = this.#next[index] as number;
    const previous = this.#previous[index] as number;
    if (previous === END) this.#first[list] = next;
    else this.#next[previous] = next;
    if (next === END) this.#last[list] = previous;
    else this.#previous[next] = previous;
    this.#list[index] = ABSENT;
    (this.#counts[list] as number) -= 1;
  }

  /** Moves an index, which must be in a list, to the end of a list. */
  move(index: number, list = 0): void {
    if (index === this.#last[list] && this.#list[index] === list) return;
    this.remove(index);
    this.append(index, list);
  }

  /** A list from its first to its last, then others. The index given last may be removed while walking. */
  walk(list = 0, ...then: number[]): IterableIterator<number> {
    return new Walk(this, list, then, false);
  }

  /** A list from its last to its first. The index given last may be removed while walking. */
  walkBack(list = 0): IterableIterator<number> {
    return new Walk(this, list, [], true);
  }

  #reserve(index: number): void {
    const old = this.#list.length;
    if (index < old) return;
    const length = Math.max(index + 1, 2 * old);
    const next = new Int32Array(length);
    const previous = new Int32Array(length);
    const list = new Uint8Array(length).fill(ABSENT);
    next.set(this.#next);
    previous.set(this.#previous);
    list.set(this.#list);
    this.#next = next;
    this.#previous = previous;
    this.#list = list;
  }
}

/** A generator would do the same, at several times the cost per victim. */
class Walk implements IterableIterator<number> {
  readonly #lists: IndexLists;
  readonly #then: number[];
  readonly #isBack: boolean;
  #index: number;

  constructor(lists: IndexLists, list: number, then: number[], isBack: boolean) {
    this.#lists = lists;
    this.#then = then;
    this.#isBack = isBack;
    this.#index = isBack ? lists.last(list) : lists.first(list);
  }

  [Symbol.iterator](): IterableIterator<number> {
    return this;
  }

  next(): IteratorResult<number, undefined> {
    const lists = this.#lists;
    while (this.#index === END && this.#then.length > 0) {
      this.#index = lists.first(this.#then.shift());
    }
    const value = this.#index;
    if (value === END) return { done: true, value: undefined };
    this.#index = this.#isBack ? lists.before(value) : lists.after(value);
    return { done: false, value };
  }
}

/** Calls `use` for each index of a chain, deepest first. */
export function deepestFirst(chain: ArrayLike<number>, use: (index: number) => void): void {
  for (let depth = chain.length - 1; depth >= 0; depth--) use(chain[depth] as number);
}

/** A column of numbers by dense index, which grows with what is written. */
export class NumberColumn {
  #values = new Float64Array(64);

  get(index: number): number {
    return this.#values[index] ?? 0;
  }

  set(index: number, value: number): void {
    if (index >= this.#values.length) {
      const values = new Float64Array(Math.max(index + 1, 2 * this.#values.length));
      values.set(this.#values);
      this.#values = values;
    }
    this.#values[index] = value;
  }
}
