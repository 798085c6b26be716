// The KV of one chat in pages: full ones, which chats that begin alike share, and a tail of its own.
// Batches are several caches. Every change happens whole or not at all.
//
// Source: W. Kwon et al., Efficient Memory Management for Large Language Model Serving with
// PagedAttention, 2023 — pages, reference counts and copy on write.
import { MisuseError } from "../errors.js";
import type { ChainHints } from "../policy/eviction-policy.js";
import type { KvHeap } from "./kv-heap.js";
import { KvTail, pageWriters, type RowSource, type TailLease, writeRows } from "./kv-tail.js";
import { PageChain, type PageChainParts, type ShowRows } from "./page-chain.js";
import type { KvLayerShape } from "./page-form.js";
import { checkExtras, checkTokens, type KvExtra } from "./page-key.js";
import {
  bytesOf,
  checkRows,
  copyHeads,
  exactRows,
  type KvRows,
  rowBytes,
  sectionOf,
} from "./page-plan.js";
import type { Page } from "./page-table.js";

/** What the caches of one model have in common. */
export interface KvCacheParts extends PageChainParts {
  readonly fingerprint: string;
  readonly heap: KvHeap;
  /** A fresh id for a tail. */
  readonly nextTailId: () => string;
  readonly live: Set<KvCache>;
}

/** A part of a chat that was saved, as far as a new cache can begin with it. */
export interface KvBeginning {
  /** Head first, held already; their holder is the new cache. */
  readonly pages: readonly Page[];
  readonly tokens: Uint32Array;
  readonly extras: readonly Required<KvExtra>[];
  /** Sections with the rows behind the last full page, or null. */
  readonly tailSections: Uint8Array | null;
}

/**
 * The KV of one chat, and the tokens it belongs to. Made by `KvCaches`.
 *
 * @remarks One operation at a time: another is refused while one is under way. Between operations
 *   pressure may demote its pages and its tail, and the next one brings them back.
 */
export class KvCache {
  readonly #parts: KvCacheParts;
  #chain: PageChain;
  #tail: KvTail | null = null;
  #tokens: number[] = [];
  #extras: Required<KvExtra>[] = [];
  #isBusy = false;
  #isFreed = false;

  /** @internal */
  constructor(parts: KvCacheParts, extras: readonly Required<KvExtra>[] = []) {
    this.#parts = parts;
    this.#chain = new PageChain(parts);
    this.#extras = [...extras];
    parts.live.add(this);
  }

  /** Takes over pages that the caller holds. @internal */
  static async begin(parts: KvCacheParts, beginning: KvBeginning): Promise<KvCache> {
    const cache = new KvCache(parts, beginning.extras);
    const { pages, tokens, tailSections } = beginning;
    cache.#chain.add(pages);
    try {
      if (tailSections !== null) {
        cache.#tail = await KvTail.allocate(parts.heap, parts.plans, parts.nextTailId());
        const lease = await cache.#tail.leaseWrite();
        lease.sections.set(tailSections);
        lease.end();
      }
      cache.#tokens = Array.from(tokens);
      cache.#chain.dropUnkept();
      cache.touch();
      return cache;
    } catch (error) {
      cache.free();
      throw error;
    }
  }

  /** Of the model that computed it. */
  get fingerprint(): string {
    return this.#parts.fingerprint;
  }

  get pageTokens(): number {
    return this.#parts.plans.pageTokens;
  }

  /** The tokens that it has seen, oldest first. A copy. */
  get tokens(): number[] {
    return this.#tokens.slice();
  }

  get tokenCount(): number {
    return this.#tokens.length;
  }

  /** Rows per layer, part and head: as many as tokens, unless the layout lets pages leave. */
  get rowCount(): number {
    return this.#chain.heldCount * this.pageTokens + this.#tailTokens;
  }

  /** Full pages that it holds. */
  get pageCount(): number {
    return this.#chain.heldCount;
  }

  /** Bytes of its pages, shared or not, and of its tail, in whatever tier. */
  get byteLength(): number {
    return this.#chain.byteLength + (this.#tail?.byteLength ?? 0);
  }

  /** An operation is under way. */
  get isRunning(): boolean {
    return this.#isBusy;
  }

  get isFreed(): boolean {
    return this.#isFreed;
  }

  /**
   * The token number of each row, as {@link read} and {@link gather} give them: the position for which a key
   * was rotated. A model whose keys are cached before that counts rows instead.
   */
  get positions(): number[] {
    const rows: number[] = [];
    const add = (from: number, count: number) => {
      for (let index = 0; index < count; index++) rows.push(from + index);
    };
    for (const index of this.#chain.indexes) add(index * this.pageTokens, this.pageTokens);
    add(this.#pagedTokens, this.#tailTokens);
    return rows;
  }

  /**
   * Adds tokens and their rows.
   *
   * @param tokens Integers from 0 to 2^32 − 1.
   * @param rows For each layer keys and values `[heads, tokens, headDim]` in the layer's dtype.
   * @param options.extras What these tokens stand for besides themselves, by number of token in the
   *   whole sequence: the digest of an image where its first token is.
   * @throws {MisuseError} `bad-option`, `bad-size`; `re-entrant`; `overwritten` — somebody else wrote to
   *   its tail; `freed`.
   * @throws {OutOfMemoryError} There is no room. The cache is as it was.
   * @throws As `TensorMemory.acquire`, when its tail is in a colder tier.
   * @remarks Each full page is hashed, and written unless another chat has it.
   */
  async append(
    tokens: ArrayLike<number>,
    rows: readonly KvRows[],
    options: { readonly extras?: readonly KvExtra[] } = {},
  ): Promise<void> {
    const added = checkTokens(tokens);
    checkRows(this.#parts.plans.layers, added.length, rows);
    const extras = checkExtras(options.extras);
    const first = this.#tokens.length;
    if (extras.some(({ at }) => at < first || at >= first + added.length)) {
      throw new MisuseError("bad-option", "an extra belongs to one of the tokens that are added");
    }
    if (added.length === 0) return;
    await this.#exclusive(async () => {
      const source = (firstRow: number): RowSource => ({
        rows: (index) => rows[index] as KvRows,
        strideRows: added.length,
        firstRow,
      });
      const pageTokens = this.pageTokens;
      const before = this.#tailTokens;
      const fullCount = Math.floor((before + added.length) / pageTokens);
      if (fullCount === 0) {
        const lease = await this.#leaseOwnTail();
        writeRows(this.#parts.plans, lease.sections, before, added.length, source(0));
        lease.end();
        this.#tokens.push(...added);
        this.#extras.push(...extras);
        return;
      }
      await this.#appendPages(added, [...this.#extras, ...extras], source);
      this.#extras.push(...extras);
      await this.#chain.age();
      this.#chain.dropUnkept();
      this.touch();
    });
  }

  /**
   * Forgets all tokens from `tokenCount` on: what a model guessed and was wrong about, or a text that was
   * edited there.
   *
   * @param tokenCount From 0 to `tokenCount`.
   * @throws {MisuseError} `bad-option`; `unsupported` — the page of that token has left; `re-entrant`,
   *   `freed`.
   * @throws {OutOfMemoryError} A page is cut, and there is no room for its first rows. The cache is as
   *   it was.
   * @throws As `TensorMemory.acquire`.
   * @remarks Inside the tail it costs nothing. The first rows of a page that is cut become the tail as
   *   the page's form gives them back.
   */
  async truncate(tokenCount: number): Promise<void> {
    const before = this.#tokens.length;
    if (!Number.isInteger(tokenCount) || tokenCount < 0 || tokenCount > before) {
      throw new MisuseError("bad-option", `tokenCount must be an integer from 0 to ${before}`);
    }
    await this.#exclusive(async () => {
      const pageCount = Math.floor(tokenCount / this.pageTokens);
      if (pageCount < this.#chain.pageCount) {
        const isCut = tokenCount % this.pageTokens !== 0;
        const page = this.#chain.pageToCut(pageCount, isCut);
        const tail = page === null ? null : await this.#tailOf(page);
        this.#tail?.release();
        this.#tail = tail;
        this.#chain.cut(pageCount);
      } else if (tokenCount % this.pageTokens === 0) {
        this.#tail?.release();
        this.#tail = null;
      }
      this.#tokens.length = tokenCount;
      this.#extras = this.#extras.filter(({ at }) => at < tokenCount);
    });
  }

  /**
   * A cache that begins as this one. They share all rows; whoever writes to the tail first gets a tail
   * of its own.
   *
   * @throws {MisuseError} `re-entrant`, `freed`.
   * @remarks Copies nothing.
   */
  fork(): KvCache {
    this.#checkIdle();
    const fork = new KvCache(this.#parts, this.#extras);
    fork.#chain = this.#chain.fork();
    fork.#tokens = this.#tokens.slice();
    fork.#tail = this.#tail;
    if (this.#tail !== null) this.#tail.referenceCount += 1;
    return fork;
  }

  /**
   * Copies rows of one layer.
   *
   * @param part Which of the two.
   * @param from First row. @param to Row behind the last one, at most {@link rowCount}.
   * @param into Gets `[heads, to − from, headDim]` in the layer's dtype.
   * @throws {MisuseError} `bad-option`, `bad-size`; `overwritten`, `re-entrant`, `freed`.
   * @throws As `TensorMemory.acquire`, when pages are in a colder tier.
   */
  async read(
    layerIndex: number,
    part: "keys" | "values",
    from: number,
    to: number,
    into: ArrayBufferView,
  ): Promise<void> {
    const layer = this.#parts.plans.layers[layerIndex];
    const isRange = Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to;
    if (layer === undefined || (part !== "keys" && part !== "values")) {
      throw new MisuseError("bad-option", "there is no such layer or part");
    }
    if (!isRange || to > this.rowCount) {
      throw new MisuseError("bad-option", `rows are from 0 to ${this.rowCount}`);
    }
    if (into.byteLength !== layer.heads * (to - from) * rowBytes(layer)) {
      throw new MisuseError("bad-size", "into has the bytes of the rows that are wanted");
    }
    const bytes = bytesOf(into);
    await this.#exclusive(async () => {
      await this.#visit(from, to, (row, count, source) => {
        const rows = source(layerIndex, { keys: part === "keys", values: part === "values" });
        const target = { bytes, strideRows: to - from, row: row - from };
        copyHeads(target, { ...rows, bytes: rows[part] }, layer, count);
      });
      // A page by itself would now be more recent than those that it depends on.
      this.touch();
    });
  }

  /**
   * Copies all rows to where a runtime wants them: without gaps between tokens.
   *
   * @param into For each layer keys and values `[heads, capacity, headDim]` in the layer's dtype; rows
   *   behind the last one stay as they are.
   * @param capacity Tokens from one head to the next, at least {@link rowCount}.
   * @throws As {@link read}.
   * @remarks Page by page, so that only a few pages must be resident at once.
   */
  async gather(into: readonly KvRows[], capacity: number): Promise<void> {
    if (!Number.isSafeInteger(capacity) || capacity < this.rowCount) {
      throw new MisuseError("bad-option", `capacity is at least ${this.rowCount}`);
    }
    const { layers } = this.#parts.plans;
    checkRows(layers, capacity, into);
    const parts = { keys: true, values: true };
    await this.#exclusive(async () => {
      await this.#visit(0, this.rowCount, (row, count, source) => {
        for (const [index, layer] of layers.entries()) {
          const { keys, values, ...at } = source(index, parts);
          const target = { strideRows: capacity, row };
          const { keys: toKeys, values: toValues } = into[index] as KvRows;
          copyHeads({ ...target, bytes: bytesOf(toKeys) }, { ...at, bytes: keys }, layer, count);
          copyHeads(
            { ...target, bytes: bytesOf(toValues) },
            { ...at, bytes: values },
            layer,
            count,
          );
        }
      });
      this.touch();
    });
  }

  /**
   * Tells the memory that all of it was used: under pressure its last pages leave before its first ones.
   *
   * @param hints See `TensorMemory.touchChain`.
   */
  touch(hints?: ChainHints): void {
    const { ids } = this.#chain;
    if (this.#tail !== null) ids.push(this.#tail.id);
    this.#parts.heap.touchChain(ids, hints);
  }

  /** Starts to bring in what is in colder tiers. @returns When it has arrived, or failed. */
  async prefetch(): Promise<void> {
    this.#checkIdle();
    const { ids } = this.#chain;
    if (this.#tail !== null) ids.push(this.#tail.id);
    await this.#parts.heap.prefetch(ids);
  }

  /**
   * Notes how much attention pages get, for layouts that ask: the next full page makes them decide anew.
   *
   * @param masses Shares from 0 to 1, of the full pages that it holds, oldest first.
   * @throws {MisuseError} `bad-option`, `re-entrant`, `freed`.
   */
  noteAttention(masses: ArrayLike<number>): void {
    this.#checkIdle();
    const all = Array.from(masses);
    if (all.length !== this.pageCount || !all.every((mass) => mass >= 0 && mass <= 1)) {
      throw new MisuseError("bad-option", `masses are ${this.pageCount} numbers from 0 to 1`);
    }
    this.#chain.noteAttention(all);
  }

  /** Gives up its pages, the last one first. @throws {MisuseError} `freed`, `re-entrant`. */
  free(): void {
    this.#checkIdle();
    this.#isFreed = true;
    this.#parts.live.delete(this);
    this.#tail?.release();
    this.#tail = null;
    this.#chain.free();
  }

  /** {@link free}, unless that was done before. */
  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }

  /**
   * Makes its shared pages outlive the process, and gives what only a saved chat has to `write`.
   *
   * @internal
   */
  async store(
    write: (state: {
      readonly tokens: readonly number[];
      readonly extras: readonly Required<KvExtra>[];
      readonly tailHeader: Uint8Array;
      readonly tailSections: Uint8Array | null;
    }) => Promise<"stored" | "no-space">,
  ): Promise<"stored" | "no-space"> {
    return this.#exclusive(async () => {
      const { heap, keys } = this.#parts;
      if (this.#chain.hasPrivate) {
        throw new MisuseError("unsupported", "a cache that has pages of its own cannot be saved");
      }
      for (const id of this.#chain.ids) {
        if ((await heap.save(id)) === "no-space") return "no-space";
      }
      const first = this.#pagedTokens;
      const own = Uint32Array.from(this.#tokens.slice(first));
      const tailHeader = keys.header(this.#chain.last, first, own, this.#extras);
      const { tokens } = this;
      const lease = await this.#tail?.leaseRead();
      try {
        const tailSections = lease?.sections ?? null;
        return await write({ tokens, extras: this.#extras, tailHeader, tailSections });
      } finally {
        lease?.end();
      }
    });
  }

  // --- Inside --------------------------------------------------------------------------------------

  /** Tokens of full pages, those that left included. */
  get #pagedTokens(): number {
    return this.#chain.pageCount * this.pageTokens;
  }

  get #tailTokens(): number {
    return this.#tokens.length - this.#pagedTokens;
  }

  #checkIdle(): void {
    if (this.#isFreed) throw new MisuseError("freed", "the cache was freed before");
    if (this.#isBusy) throw new MisuseError("re-entrant", "an operation of the cache is under way");
  }

  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    this.#checkIdle();
    this.#isBusy = true;
    try {
      return await work();
    } finally {
      this.#isBusy = false;
    }
  }

  /** The tail to write to: its own, and resident until the lease ends. */
  async #leaseOwnTail(): Promise<TailLease> {
    const { heap, plans, nextTailId } = this.#parts;
    const shared = this.#tail;
    if (shared !== null && shared.referenceCount === 1) return shared.leaseWrite();
    const own = await KvTail.allocate(heap, plans, nextTailId());
    try {
      const lease = await own.leaseWrite();
      try {
        if (shared !== null && this.#tailTokens > 0) {
          const read = await shared.leaseRead();
          lease.sections.set(read.sections);
          read.end();
        }
      } catch (error) {
        lease.end();
        throw error;
      }
      shared?.release();
      this.#tail = own;
      return lease;
    } catch (error) {
      own.release();
      throw error;
    }
  }

  /** Adds tokens that fill at least one page. */
  async #appendPages(
    added: Uint32Array,
    extras: readonly Required<KvExtra>[],
    source: (firstRow: number) => RowSource,
  ): Promise<void> {
    const { plans, heap, nextTailId } = this.#parts;
    const pageTokens = this.pageTokens;
    const before = this.#tailTokens;
    const waiting = Uint32Array.from([...this.#tokens.slice(this.#pagedTokens), ...added]);
    const restTokens = waiting.length % pageTokens;
    const oldTail = before > 0 ? await this.#tail?.leaseRead() : undefined;
    let pages: Page[] = [];
    let newTail: KvTail | null = null;
    try {
      const rowsOf = pageWriters(plans, { sections: oldTail?.sections, rows: before }, source);
      pages = await this.#chain.hold(waiting, extras, rowsOf);
      if (restTokens > 0) {
        newTail = await KvTail.allocate(heap, plans, nextTailId());
        const lease = await newTail.leaseWrite();
        writeRows(plans, lease.sections, 0, restTokens, source(added.length - restTokens));
        lease.end();
      }
    } catch (error) {
      this.#chain.release(pages);
      newTail?.release();
      throw error;
    } finally {
      oldTail?.end();
    }
    this.#tail?.release();
    this.#tail = newTail;
    this.#chain.add(pages);
    for (const token of added) this.#tokens.push(token);
  }

  /** A tail that begins with all rows of a page. */
  async #tailOf(page: Page): Promise<KvTail> {
    const { heap, plans, table, nextTailId } = this.#parts;
    const { lease, sections } = await table.lease(page);
    try {
      const tail = await KvTail.allocate(heap, plans, nextTailId());
      try {
        const { sections: target, end } = await tail.leaseWrite();
        const parts = { keys: true, values: true };
        const rows = (index: number) => plans.decode(page.plan, sections, index, parts);
        const { pageTokens: strideRows } = plans;
        writeRows(plans, target, 0, strideRows, { rows, strideRows, firstRow: 0 });
        end();
        return tail;
      } catch (error) {
        tail.release();
        throw error;
      }
    } finally {
      lease[Symbol.dispose]();
    }
  }

  /** Shows the rows of a range, page by page, in order. */
  async #visit(from: number, to: number, show: ShowRows): Promise<void> {
    const { plans } = this.#parts;
    const strideRows = this.pageTokens;
    const start = this.#chain.heldCount * strideRows;
    await this.#chain.visit(from, Math.min(to, start), show);
    if (to <= start || this.#tail === null) return;
    const lease = await this.#tail.leaseRead();
    try {
      const row = Math.max(from, start);
      show(row, to - row, (index) => {
        const layer = plans.layers[index] as KvLayerShape;
        const section = sectionOf(plans.exact, index, lease.sections);
        return { ...exactRows(layer, strideRows, section), strideRows, row: row - start };
      });
    } finally {
      lease.end();
    }
  }
}
