// All KV caches of one model in one memory: makes them, finds what a new chat has in common with earlier
// ones, saves and restores them.
import { CorruptionError, MisuseError, OutOfMemoryError } from "../errors.js";
import { checkObject } from "../memory/checks.js";
import { describe } from "../types.js";
import { ContentFeatures, type FeatureStats } from "./content-features.js";
import { KvCache, type KvCacheParts } from "./kv-cache.js";
import type { KvHeap } from "./kv-heap.js";
import { type KvLayout, pagedLayout } from "./kv-layout.js";
import type { KvLayerShape } from "./page-form.js";
import {
  areEqual,
  checkExtras,
  checkTokens,
  type KvExtra,
  type PageAddress,
  PageKeys,
} from "./page-key.js";
import { type PagePlan, PagePlans } from "./page-plan.js";
import { type Page, PageTable, type PageTableStats } from "./page-table.js";
import { planSavedChat, readSavedChat, type SavedChat } from "./saved-chat.js";

export interface KvCachesOptions {
  /** Names the model and its weights: caches of another one are never found. */
  readonly fingerprint: string;
  /** One for each layer; layers may differ. Or one shape, and how many layers have it. */
  readonly layers: readonly KvLayerShape[] | (KvLayerShape & { readonly count: number });
  /** Default: `pagedLayout`, exact pages that all stay. */
  readonly layout?: KvLayout;
  /** Tokens of a page, 1 or more. Default: 64. Higher shares less of chats that begin alike. */
  readonly pageTokens?: number;
  /**
   * Prefixes are shared only under the same salt: a tenant's name, where tenants must not learn from each
   * other's hits. Default: empty. Nothing is shared between namespaces of memories in any case.
   */
  readonly salt?: string;
  /** @internal Digits of a key in a page's id. Default: all 64. Tests let names collide. */
  readonly idDigits?: number;
}

/** What a chat begins with. */
export interface KvQuery {
  /** Default: those of the saved chat. */
  readonly tokens?: ArrayLike<number>;
  /** What the tokens stand for besides themselves. Default: none; without tokens, what was saved. */
  readonly extras?: readonly KvExtra[];
  /** Of the model that will continue; must be that of these caches. Default: not compared. */
  readonly fingerprint?: string;
  /** A chat that was saved under this id: the rows behind its last full page are found too. */
  readonly id?: string;
}

export interface KvCachesStats extends PageTableStats {
  readonly layout: string;
  /** Caches that were not freed yet. */
  readonly cacheCount: number;
  /** Restores, so far. */
  readonly restoreCount: number;
  /** Tokens of restores: asked for, and found. */
  readonly askedTokens: number;
  readonly foundTokens: number;
  readonly features: FeatureStats;
}

const PREFIX = "tierheap/kv/";
const PAGE_TOKENS = 64;
const KEY_DIGITS = 64;
/** Pages of a restore that are looked for, or on their way, at once. */
const AT_ONCE = 8;

/** One table for each memory: caches of any layout may share its pages, and count them together. */
const tables = new WeakMap<KvHeap, PageTable>();

function checkLayers(given: KvCachesOptions["layers"]): readonly KvLayerShape[] {
  if (Array.isArray(given) && given.length > 0) return given.map((layer) => ({ ...layer }));
  const { count, ...shape } = given as KvLayerShape & { readonly count: number };
  if (!Array.isArray(given) && Number.isSafeInteger(count) && count >= 1) {
    return Array.from({ length: count }, () => shape);
  }
  throw new MisuseError("bad-option", "layers are shapes, or one shape with a count");
}

/** The caches of one model. Made by `openKvCaches`. */
export class KvCaches {
  readonly fingerprint: string;
  readonly layers: readonly KvLayerShape[];
  readonly pageTokens: number;
  /** Outputs of the model's encoders. */
  readonly features: ContentFeatures;
  readonly #heap: KvHeap;
  readonly #parts: KvCacheParts;
  readonly #live = new Set<KvCache>();
  #tailCount = 0;
  #restoreCount = 0;
  #askedTokens = 0;
  #foundTokens = 0;
  #isClosed = false;

  /** @internal */
  constructor(heap: KvHeap, options: KvCachesOptions) {
    const known = ["fingerprint", "layers", "layout", "pageTokens", "salt", "idDigits"];
    checkObject(options, "openKvCaches", known);
    const { fingerprint, layout = pagedLayout, pageTokens = PAGE_TOKENS, salt = "" } = options;
    if (typeof fingerprint !== "string" || fingerprint === "" || typeof salt !== "string") {
      throw new MisuseError("bad-option", "fingerprint and salt are text");
    }
    if (!Number.isSafeInteger(pageTokens) || pageTokens < 1) {
      throw new MisuseError("bad-option", "pageTokens is an integer, 1 or more");
    }
    if (typeof layout?.formOf !== "function" || typeof layout.keeps !== "function") {
      throw new MisuseError("bad-option", "layout is a KvLayout");
    }
    this.fingerprint = fingerprint;
    this.layers = checkLayers(options.layers);
    this.pageTokens = pageTokens;
    this.#heap = heap;
    const { layers } = this;
    const plans = new PagePlans(layers, pageTokens, layout);
    // Also lets a layout refuse the layers before there is any row.
    const isExact = plans.planAt(0, 1, null) === plans.exact && layout.isUniform;
    const layoutName = isExact ? "" : layout.name;
    const keys = new PageKeys({ fingerprint, salt, layers, pageTokens, layoutName });
    const model = JSON.stringify([fingerprint, salt]);
    this.features = new ContentFeatures(heap, `${PREFIX}features/${model}/`);
    this.#parts = {
      ...{ heap, fingerprint, layout, keys, live: this.#live },
      plans,
      table: tableOf(heap, options.idDigits ?? KEY_DIGITS),
      nextTailId: () => {
        for (;;) {
          const id = `${PREFIX}tail/${++this.#tailCount}`;
          if (heap.tensor(id) === null) return id;
        }
      },
    };
  }

  /**
   * An empty cache, for one sequence: a batch is several.
   *
   * @param options.extras What the first tokens stand for besides themselves, or what changes the model for
   *   all of them.
   * @throws {MisuseError} `bad-option`, `closed`.
   */
  create(options: { readonly extras?: readonly KvExtra[] } = {}): KvCache {
    this.#checkOpen();
    return new KvCache(this.#parts, checkExtras(options.extras));
  }

  /**
   * How many of the tokens a restore would bring, as far as names tell. Reads no rows.
   *
   * @returns Whole pages.
   * @throws {MisuseError} `bad-option`, `foreign-cache`, `closed`.
   * @throws As `TensorMemory.estimateRestore`.
   */
  async match(query: KvQuery): Promise<number> {
    this.#checkQuery(query);
    const tokens = checkTokens(query.tokens ?? []);
    let count = 0;
    for await (const _ of this.#known(tokens, checkExtras(query.extras))) count += this.pageTokens;
    return count;
  }

  /**
   * A cache that begins with the longest part of these tokens whose rows are in the memory or in its
   * tiers, in whole pages; with the id of a saved chat, to the token.
   *
   * @returns Always a cache; its `tokenCount` says how much was found. Compute the rest and append it.
   * @throws {MisuseError} `foreign-cache` — the caches are of another model; `bad-option`, `closed`.
   * @throws {OutOfMemoryError} What was found does not fit.
   * @throws As `TensorMemory.acquire`, but for damage, which is a miss.
   * @remarks Each page says which tokens it belongs to, and that is compared: another page under the
   *   same name is a miss. A page keeps the form that it has.
   */
  async restore(query: KvQuery): Promise<KvCache> {
    this.#checkQuery(query);
    const saved = query.id === undefined ? null : await this.#readSaved(query.id);
    try {
      // What is asked for by tokens is compared in whole.
      const isAsSaved = query.tokens === undefined && query.extras === undefined;
      const tokens = checkTokens(query.tokens ?? saved?.chat.tokens ?? []);
      const extras = isAsSaved ? (saved?.chat.extras ?? []) : checkExtras(query.extras);
      this.#restoreCount += 1;
      this.#askedTokens += tokens.length;
      const pages = await this.#hold(this.#known(tokens, extras));
      const pagedTokens = pages.length * this.pageTokens;
      const tailTokens = saved === null ? 0 : this.#tailTokensOf(saved.chat, pages, tokens, extras);
      const count = pagedTokens + tailTokens;
      const cache = await KvCache.begin(this.#parts, {
        pages,
        tokens: tokens.subarray(0, count),
        extras: extras.filter(({ at }) => at < count),
        tailSections: tailTokens > 0 ? (saved as { chat: SavedChat }).chat.tailSections : null,
      });
      this.#foundTokens += count;
      return cache;
    } finally {
      saved?.end();
    }
  }

  /**
   * Makes a cache outlive the process: its pages, and under the id its tokens and the rows behind the last
   * full page. What was saved under the id before is replaced.
   *
   * @returns `"no-space"` when the tier is off or full; what was saved before may be gone then.
   * @throws {MisuseError} `foreign-cache` — made by other caches; `unsupported` — pages of it have left;
   *   `bad-id`, `re-entrant`, `freed`, `closed`.
   * @throws As `TensorMemory.save`.
   * @remarks Pages that were saved before are not written again.
   */
  async save(cache: KvCache, id: string): Promise<"stored" | "no-space"> {
    this.#checkOpen();
    if (!this.#live.has(cache)) {
      throw new MisuseError("foreign-cache", "the cache was freed, or is of other caches");
    }
    const recordId = this.#savedId(id);
    return cache.store(async ({ tokens, extras, tailHeader, tailSections }) => {
      const rows = tailSections ?? new Uint8Array(0);
      const chat = { tokens: Uint32Array.from(tokens), extras, tailHeader, tailSections: rows };
      const { byteLength, write } = planSavedChat(chat);
      const options = { kind: "KV_CACHE", shape: [byteLength], dtype: "u8", zero: true } as const;
      this.#heap.tensor(recordId)?.free();
      await this.#heap.reserve({ kind: "KV_CACHE", bytes: byteLength });
      const tensor = this.#heap.allocate({ ...options, id: recordId });
      try {
        const pin = tensor.pin();
        write(pin.bytes);
        pin[Symbol.dispose]();
        return await this.#heap.save(recordId);
      } finally {
        // The record stays.
        tensor[Symbol.dispose]();
      }
    });
  }

  /** Forgets a saved chat. Its pages stay for others. @returns Whether there was one. */
  async deleteSaved(id: string): Promise<boolean> {
    this.#checkOpen();
    return this.#heap.delete(this.#savedId(id));
  }

  /**
   * Deletes every page that no cache holds and every saved chat, of all models of the memory's namespace,
   * from all tiers.
   *
   * @returns How many.
   */
  async clear(): Promise<number> {
    this.#checkOpen();
    const ids: string[] = [];
    for (const part of ["page/", "chat/"]) {
      for await (const { id } of this.#heap.list({ prefix: PREFIX + part })) ids.push(id);
    }
    const unheld = ids.filter((id) => !this.#parts.table.isHeld(id));
    for (const id of unheld) await this.#heap.delete(id);
    return unheld.length;
  }

  stats(): KvCachesStats {
    return {
      ...this.#parts.table.stats(),
      layout: this.#parts.layout.name,
      cacheCount: this.#live.size,
      restoreCount: this.#restoreCount,
      askedTokens: this.#askedTokens,
      foundTokens: this.#foundTokens,
      features: this.features.stats(),
    };
  }

  /**
   * Frees all caches that were not freed. Their pages stay until the memory needs their room.
   *
   * @throws {MisuseError} `re-entrant` — an operation of a cache is under way.
   */
  close(): void {
    if (this.#isClosed) return;
    if ([...this.#live].some(({ isRunning }) => isRunning)) {
      throw new MisuseError("re-entrant", "an operation of a cache is under way");
    }
    this.#isClosed = true;
    for (const cache of this.#live) cache.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // --- Inside --------------------------------------------------------------------------------------

  #checkOpen(): void {
    if (this.#isClosed) throw new MisuseError("closed", "the caches are closed");
  }

  #checkQuery(query: KvQuery): void {
    this.#checkOpen();
    checkObject(query, "restore", ["tokens", "extras", "fingerprint", "id"]);
    const { fingerprint = this.fingerprint } = query;
    if (fingerprint === this.fingerprint) return;
    throw new MisuseError("foreign-cache", `the caches are not of ${describe(fingerprint)}`);
  }

  #savedId(id: string): string {
    if (typeof id === "string" && id !== "") return `${PREFIX}chat/${id}`;
    throw new MisuseError("bad-id", `${describe(id)} is not an id`);
  }

  /** The leading full pages that seem to be there. */
  async *#known(
    tokens: Uint32Array,
    extras: readonly Required<KvExtra>[],
  ): AsyncGenerator<{ address: PageAddress; plan: PagePlan }> {
    const { keys, plans, table } = this.#parts;
    let last: PageAddress | null = null;
    for (let index = 0; (index + 1) * this.pageTokens <= tokens.length; index++) {
      const first = index * this.pageTokens;
      const own = tokens.subarray(first, first + this.pageTokens);
      const address: PageAddress = await keys.address(last, first, own, extras);
      let found: PagePlan | null = null;
      for (const plan of plans.plansOf(index)) {
        if (await table.isKnown(address, plan)) {
          found = plan;
          break;
        }
      }
      if (found === null) return;
      yield { address, plan: found };
      last = address;
    }
  }

  /** Holds the leading pages that are what their names say. Some are on their way while others are looked for. */
  async #hold(known: AsyncIterable<{ address: PageAddress; plan: PagePlan }>): Promise<Page[]> {
    const { table } = this.#parts;
    const asked: Promise<Page | null>[] = [];
    const pages: Page[] = [];
    const takeNext = async (): Promise<boolean> => {
      const page = await (asked[pages.length] as Promise<Page | null>);
      if (page !== null) pages.push(page);
      return page !== null;
    };
    try {
      for await (const { address, plan } of known) {
        if (asked.length - pages.length === AT_ONCE && !(await takeNext())) break;
        const holding = table.tryHold(address, plan);
        // Whoever comes to it hears of its failure.
        holding.catch(() => {});
        asked.push(holding);
      }
      while (pages.length < asked.length && (await takeNext()));
      return pages;
    } catch (error) {
      // What fits is worth having all the same.
      if (error instanceof OutOfMemoryError && pages.length > 0) return pages;
      pages.length = 0;
      throw error;
    } finally {
      const behind = await Promise.allSettled(asked.slice(pages.length));
      for (const each of behind.reverse()) {
        if (each.status === "fulfilled" && each.value !== null) table.release(each.value);
      }
    }
  }

  async #readSaved(id: string): Promise<{ chat: SavedChat; end: () => void } | null> {
    const recordId = this.#savedId(id);
    try {
      const lease = await this.#heap.acquire(recordId, { access: "read" });
      const chat = lease === null ? null : readSavedChat(lease.bytes);
      // The tensor stays: it is clean, so it leaves without a write.
      const end = () => lease?.[Symbol.dispose]();
      if (chat !== null) return { chat, end };
      end();
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
    }
    return null;
  }

  /** How many rows of a saved tail follow these pages and belong to the tokens that are wanted. */
  #tailTokensOf(
    chat: SavedChat,
    pages: readonly Page[],
    tokens: Uint32Array,
    extras: readonly Required<KvExtra>[],
  ): number {
    const { keys, plans } = this.#parts;
    const first = pages.length * this.pageTokens;
    const own = chat.tokens.subarray(first);
    if (own.length === 0 || own.length >= this.pageTokens) return 0;
    if (chat.tailSections.length !== plans.exact.byteLength) return 0;
    const header = keys.header(pages.at(-1)?.address ?? null, first, own, extras);
    if (!areEqual(header, chat.tailHeader)) return 0;
    let count = 0;
    while (count < own.length && tokens[first + count] === own[count]) count += 1;
    return count;
  }
}

function tableOf(heap: KvHeap, digits: number): PageTable {
  const known = tables.get(heap);
  if (known !== undefined) return known;
  const table = new PageTable(heap, PREFIX, digits);
  tables.set(heap, table);
  return table;
}
