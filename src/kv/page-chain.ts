// The full pages of one cache, in order: written or found, aged, cut, dropped. Layer: kv.
import { MisuseError, OutOfMemoryError } from "../errors.js";
import type { KvLayout } from "./kv-layout.js";
import type { KvExtra, PageAddress, PageKeys } from "./page-key.js";
import type { PagePlan, PagePlans } from "./page-plan.js";
import type { Page, PageTable } from "./page-table.js";

/** What chains of one model have in common. */
export interface PageChainParts {
  readonly layout: KvLayout;
  readonly keys: PageKeys;
  readonly plans: PagePlans;
  readonly table: PageTable;
}

/** Puts a page's rows of one layer into `[heads, pageTokens, headDim]` each. */
export type RowWriter = (layerIndex: number, keys: Uint8Array, values: Uint8Array) => void;

/** Rows of a page, by layer: where they lie, and which one comes first. */
export type RowReader = (
  layerIndex: number,
  parts: { readonly keys: boolean; readonly values: boolean },
) => { keys: Uint8Array; values: Uint8Array; strideRows: number; row: number };

/** Shows `count` rows from the row `row` of a cache on. Synchronous. */
export type ShowRows = (row: number, count: number, source: RowReader) => void;

/** A full page of a cache. */
interface Held {
  page: Page;
  readonly index: number;
  attentionMass: number | null;
}

/** How many pages are made resident ahead of the one that is read. */
const READ_AHEAD = 8;

export class PageChain {
  readonly #parts: PageChainParts;
  #held: Held[] = [];
  #pageCount = 0;
  #last: PageAddress | null = null;
  /** Pages left, so later rows depend on more than the tokens before them. */
  #isPrivate = false;

  constructor(parts: PageChainParts) {
    this.#parts = parts;
  }

  /** Full pages so far; those that left are counted. */
  get pageCount(): number {
    return this.#pageCount;
  }

  get heldCount(): number {
    return this.#held.length;
  }

  /** Its address names all tokens of full pages. */
  get last(): PageAddress | null {
    return this.#last;
  }

  /** Some page cannot be found by its name. */
  get hasPrivate(): boolean {
    return this.#isPrivate || this.#held.some(({ page }) => page.isPrivate);
  }

  get byteLength(): number {
    return this.#held.reduce((sum, { page }) => sum + page.tensor.byteLength, 0);
  }

  get ids(): string[] {
    return this.#held.map(({ page }) => page.id);
  }

  /** Numbers of the pages that are held, oldest first. */
  get indexes(): number[] {
    return this.#held.map(({ index }) => index);
  }

  /** The same pages for another cache. */
  fork(): PageChain {
    const fork = new PageChain(this.#parts);
    fork.#held = this.#held.map((held) => ({ ...held }));
    for (const { page } of fork.#held) this.#parts.table.retain(page);
    fork.#pageCount = this.#pageCount;
    fork.#last = this.#last;
    fork.#isPrivate = this.#isPrivate;
    return fork;
  }

  /** Gives up all pages, the last one first. */
  free(): void {
    this.#cutTo(0);
  }

  /**
   * Holds the pages of tokens that follow, written where nobody has them.
   *
   * @param rowsOf A writer for each of the pages, 0-based.
   * @returns Pages that the caller adds or releases. When it throws, nothing is held.
   */
  async hold(
    tokens: Uint32Array,
    extras: readonly Required<KvExtra>[],
    rowsOf: (number: number) => RowWriter,
  ): Promise<Page[]> {
    const { keys, plans } = this.#parts;
    const { pageTokens } = plans;
    const pages: Page[] = [];
    let last = this.#last;
    try {
      for (let number = 0; (number + 1) * pageTokens <= tokens.length; number++) {
        const own = tokens.subarray(number * pageTokens, (number + 1) * pageTokens);
        const index = this.#pageCount + number;
        const address = await keys.address(last, index * pageTokens, own, extras);
        const plan = plans.planAt(index, index + 1, null);
        pages.push(await this.#write(address, plan, rowsOf(number)));
        last = address;
      }
      return pages;
    } catch (error) {
      this.release(pages);
      throw error;
    }
  }

  /** Gives up pages that were not added. */
  release(pages: readonly Page[]): void {
    for (const page of [...pages].reverse()) this.#parts.table.release(page);
  }

  /** Takes over pages that the caller holds. */
  add(pages: readonly Page[]): void {
    for (const page of pages) {
      this.#held.push({ page, index: this.#pageCount, attentionMass: null });
      this.#pageCount += 1;
      this.#last = page.address;
    }
  }

  /**
   * The page with that number, where everything before it is as it was when it was the last one.
   *
   * @returns null where nothing of the page is wanted.
   * @throws {MisuseError} `unsupported` — it, or the one before it, has left.
   */
  pageToCut(pageIndex: number, isWanted: boolean): Page | null {
    const keptCount = this.#held.filter(({ index }) => index < pageIndex).length;
    const isBehindGap = pageIndex > 0 && this.#held[keptCount - 1]?.index !== pageIndex - 1;
    const cut = this.#held[keptCount];
    if (isBehindGap || (isWanted && cut?.index !== pageIndex)) {
      throw new MisuseError("unsupported", "the page of that token has left the cache");
    }
    return isWanted ? (cut as Held).page : null;
  }

  /** Gives up the pages from a number on that {@link pageToCut} allows. */
  cut(pageIndex: number): void {
    this.#pageCount = pageIndex;
    this.#cutTo(this.#held.filter(({ index }) => index < pageIndex).length);
  }

  /** Writes pages anew whose place makes them shorter now. Where there is no room they stay. */
  async age(): Promise<void> {
    const { layout, plans, table } = this.#parts;
    if (layout.isUniform) return;
    for (const held of this.#held) {
      const { page, index, attentionMass } = held;
      const plan = plans.planAt(index, this.#pageCount, attentionMass);
      if (plan === page.plan || plan.byteLength >= page.plan.byteLength) continue;
      try {
        const { lease, sections } = await table.lease(page);
        try {
          held.page = await this.#write(page.address, plan, (layerIndex, keys, values) => {
            const parts = { keys: true, values: true };
            const rows = plans.decode(page.plan, sections, layerIndex, parts);
            keys.set(rows.keys);
            values.set(rows.values);
          });
        } finally {
          lease[Symbol.dispose]();
        }
      } catch (error) {
        if (error instanceof OutOfMemoryError) return;
        throw error;
      }
      table.release(page);
    }
  }

  /** Gives up what the layout does not keep. */
  dropUnkept(): void {
    const { layout } = this.#parts;
    const isKept = ({ index }: Held) => layout.keeps(index, this.#pageCount);
    const gone = this.#held.filter((held) => !isKept(held));
    if (gone.length === 0) return;
    this.#held = this.#held.filter(isKept);
    this.release(gone.map(({ page }) => page));
    this.#isPrivate = true;
  }

  /** @param masses One for each page that is held. */
  noteAttention(masses: readonly number[]): void {
    this.#held.forEach((held, index) => {
      held.attentionMass = masses[index] as number;
    });
  }

  /** Shows the rows of pages from one row on to before another, page by page, in order. */
  async visit(from: number, to: number, show: ShowRows): Promise<void> {
    const { plans, table } = this.#parts;
    const strideRows = plans.pageTokens;
    const firstPage = Math.floor(from / strideRows);
    const wanted = this.#held.slice(firstPage, Math.ceil(to / strideRows));
    const leases: ReturnType<PageTable["lease"]>[] = [];
    const ask = () => {
      const held = wanted[leases.length];
      if (held === undefined) return;
      const asked = table.lease(held.page);
      // Whoever comes to it hears of its failure.
      asked.catch(() => {});
      leases.push(asked);
    };
    let done = 0;
    try {
      for (let ahead = 0; ahead < READ_AHEAD; ahead++) ask();
      for (const [number, { page }] of wanted.entries()) {
        const { lease, sections } = await (leases[number] as ReturnType<PageTable["lease"]>);
        try {
          const start = (firstPage + number) * strideRows;
          const row = Math.max(from, start);
          const count = Math.min(to, start + strideRows) - row;
          show(row, count, (index, parts) => {
            const rows = plans.decode(page.plan, sections, index, parts);
            return { ...rows, strideRows, row: row - start };
          });
        } finally {
          lease[Symbol.dispose]();
          done = number + 1;
        }
        ask();
      }
    } finally {
      for (const asked of leases.slice(done)) {
        await asked.then(({ lease }) => lease[Symbol.dispose]()).catch(() => {});
      }
    }
  }

  /** Holds a page, in exact form when its own cannot keep these rows: what is not finite, for one. */
  async #write(address: PageAddress, plan: PagePlan, rows: RowWriter): Promise<Page> {
    const { table, plans } = this.#parts;
    const write = (each: PagePlan) =>
      table.hold(address, each, (sections) => plans.encode(each, sections, rows), this.#isPrivate);
    try {
      return await write(plan);
    } catch (error) {
      if (!(error instanceof MisuseError) || plan === plans.exact) throw error;
      return write(plans.exact);
    }
  }

  #cutTo(heldCount: number): void {
    this.release(this.#held.splice(heldCount).map(({ page }) => page));
    this.#last = this.#held.at(-1)?.page.address ?? null;
  }
}
