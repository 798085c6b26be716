// Deletions that a level of a stack could not be told of, written down in another level. What stands here
// counts as deleted, in this process and in later ones, until the level has deleted it.
//
// INV-STACK-5  A level takes an object only when no log holds a deletion of that key for it: else a later
//              process would delete what is newer.

import { TierError } from "../errors.js";
import {
  decodeDeletionPage,
  deletionPageIndex,
  deletionPageKey,
  encodeDeletionPage,
  PAGE_KEY_COUNT,
} from "../record/deletion-page.js";
import type { TierKey } from "../tier/tier.js";
import { privateBytes } from "../util/private-bytes.js";
import { isTierFailure, type StackObject, type TierLevel } from "./tier-level.js";

/** Pages of one level at most; a deletion beyond them fails. */
const PAGE_COUNT_MAX = 64;
/** A longer object under a page's key is none. */
const PAGE_BYTES_MAX = 2 ** 16;

interface Page {
  readonly index: number;
  readonly tier: string;
  readonly keys: Set<TierKey>;
  /** A write that has not begun: whoever changes the page now waits for it. */
  queued: Promise<void> | null;
  /** The last write. Never rejects. */
  last: Promise<void>;
}

/** The pages that lie in one level. */
class LevelLog {
  readonly #host: TierLevel;
  readonly #pages = new Map<number, Page>();

  constructor(host: TierLevel) {
    this.#host = host;
  }

  get pages(): Iterable<Page> {
    return this.#pages.values();
  }

  /** Reads the pages. @throws {TierError} `incompatible`, or as the level. */
  async read(indexes: Iterable<number>): Promise<void> {
    const { tier } = this.#host;
    for (const index of indexes) {
      const key = deletionPageKey(index);
      const reader = await tier.openRead(key);
      if (reader === null) continue;
      const bytes = privateBytes(Math.min(reader.byteLength, PAGE_BYTES_MAX));
      try {
        await reader.read(0, bytes);
      } finally {
        await reader.close();
      }
      const decoded = await decodeDeletionPage(bytes);
      if (decoded.verdict === "incompatible") {
        throw new TierError("incompatible", tier.name, "deletions are noted in another format");
      }
      if (decoded.verdict === "damaged") await tier.quarantine(key);
      else this.#add(index, decoded.page.tier, decoded.page.keys);
    }
  }

  /** @returns Whether the deletion is written down. @throws {TierError} It may be, or not. */
  async add(name: string, key: TierKey): Promise<boolean> {
    const pages = [...this.#pages.values()].filter(({ tier }) => tier === name);
    let page =
      pages.find(({ keys }) => keys.has(key)) ??
      pages.find(({ keys }) => keys.size < PAGE_KEY_COUNT);
    if (page === undefined) {
      if (this.#pages.size === PAGE_COUNT_MAX) return false;
      let index = 0;
      while (this.#pages.has(index)) index += 1;
      page = this.#add(index, name, []);
    }
    // It stays in the page even if the write fails: the level may have it all the same.
    page.keys.add(key);
    return this.#flush(page).then(
      () => true,
      (error: unknown) => {
        if (error === NO_SPACE) return false;
        throw error;
      },
    );
  }

  /** @throws {TierError} It stands there still, as far as anybody knows. */
  async remove(name: string, key: TierKey): Promise<void> {
    for (const page of this.#pages.values()) {
      if (page.tier !== name || !page.keys.delete(key)) continue;
      try {
        await this.#flush(page);
      } catch (error) {
        page.keys.add(key);
        if (error !== NO_SPACE) throw error;
        // The shorter page has to fit beside the longer one, which it replaces.
        throw new TierError("io", this.#host.tier.name, NO_SPACE.message);
      }
    }
  }

  #add(index: number, tier: string, keys: Iterable<TierKey>): Page {
    const last = Promise.resolve();
    const page: Page = { index, tier, keys: new Set(keys), queued: null, last };
    this.#pages.set(index, page);
    return page;
  }

  /** Writes a page, once for all who have changed it before the write begins. */
  #flush(page: Page): Promise<void> {
    if (page.queued !== null) return page.queued;
    const write = page.last.then(() => {
      page.queued = null;
      return this.#write(page);
    });
    page.queued = write;
    page.last = write.catch(() => {});
    return write;
  }

  async #write(page: Page): Promise<void> {
    const { tier } = this.#host;
    const key = deletionPageKey(page.index);
    if (page.keys.size === 0) {
      await this.#host.run(() => tier.delete(key));
      if (page.keys.size === 0 && page.queued === null) this.#pages.delete(page.index);
      return;
    }
    const bytes = await encodeDeletionPage({ tier: page.tier, keys: [...page.keys] });
    await this.#host.run(async () => {
      const writer = await tier.begin(key, bytes.byteLength);
      if (writer === "no-space") throw NO_SPACE;
      try {
        if ((await writer.write(bytes)) === "no-space") throw NO_SPACE;
        const durable = tier.capabilities.hasDurableCommit;
        if ((await writer.commit({ durable })) === "no-space") throw NO_SPACE;
      } finally {
        await writer.abort();
      }
    });
  }
}

const NO_SPACE = new RangeError("no space for a page of deletions");

/** The logs of all levels of a stack. */
export class DeletionLog {
  readonly #levels: readonly TierLevel[];
  readonly #logs = new Map<TierLevel, LevelLog>();

  /** @param levels Highest first. */
  constructor(levels: readonly TierLevel[]) {
    this.#levels = levels;
    // What need not be there at an opening could bring back what it has a note about.
    for (const level of levels) {
      if (level.isPersistent && !level.mayBeAbsent) this.#logs.set(level, new LevelLog(level));
    }
  }

  /**
   * Reads what stands in a level that was opened just now, and marks the objects.
   *
   * @param keys Of everything in the level.
   * @param objectOf Finds or makes the object of a key.
   * @throws {TierError} `incompatible`, or as the level.
   */
  async found(
    host: TierLevel,
    keys: Iterable<TierKey>,
    objectOf: (key: TierKey) => StackObject,
  ): Promise<void> {
    const indexes = [...keys].flatMap((key) => deletionPageIndex(key) ?? []);
    const log = this.#logs.get(host);
    if (log === undefined || indexes.length === 0) return;
    await log.read(indexes);
    for (const { tier, keys: deleted } of log.pages) {
      for (const level of this.#levels.filter(({ name }) => name === tier)) {
        for (const key of deleted) this.#mark(objectOf(key), level);
      }
    }
  }

  /**
   * Writes down that a level has still to delete an object, which is not read from there again.
   *
   * @returns false when no level could take the note: a later process may find the object.
   */
  async note(object: StackObject, level: TierLevel): Promise<boolean> {
    level.distrust(object);
    // Whatever it holds ends with the process.
    if (!level.isPersistent) return true;
    for (const [host, log] of this.#logs) {
      if (!host.isUsable) continue;
      object.buried |= level.bit;
      try {
        if (await log.add(level.name, object.key)) return true;
      } catch (error) {
        if (!isTierFailure(error)) throw error;
      }
    }
    return false;
  }

  /** A level has deleted an object. @throws {TierError} The note could not be taken back: INV-STACK-5. */
  async confirm(object: StackObject, level: TierLevel): Promise<void> {
    if ((object.buried & level.bit) === 0) return;
    for (const log of this.#logs.values()) await log.remove(level.name, object.key);
    object.buried &= ~level.bit;
  }

  #mark(object: StackObject, level: TierLevel): void {
    level.distrust(object);
    object.buried |= level.bit;
  }
}
