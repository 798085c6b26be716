// The full pages that caches hold, counted. A page that nobody holds any more stays in the memory under
// its id, disposable, until the memory needs its room: the memory's directory and tiers are the table of
// prefixes, and its policy decides what leaves.
import { CorruptionError, MisuseError } from "../errors.js";
import type { Pin } from "../memory/pin.js";
import { Tensor } from "../memory/tensor.js";
import { dtypeTraits } from "../types.js";
import type { KvHeap, KvTensorOptions } from "./kv-heap.js";
import { areEqual, type PageAddress } from "./page-key.js";
import type { PagePlan } from "./page-plan.js";

/** A page that some cache holds. Its bytes never change. */
export interface Page {
  readonly id: string;
  readonly address: PageAddress;
  readonly plan: PagePlan;
  readonly tensor: Tensor;
  /** The tensor's version once the page was written. */
  readonly version: number;
  /** Caches that hold it; it is in the table while there is one. */
  referenceCount: number;
  /** Only the cache that made it knows it. */
  readonly isPrivate: boolean;
}

export interface PageTableStats {
  /** Pages that some cache holds, each once. */
  readonly heldCount: number;
  /** Their bytes, in whatever tier. */
  readonly heldBytes: number;
  /** Bytes that pages would take more if no two caches shared any. */
  readonly sharedBytes: number;
  /** Pages that were found in place of being written, so far. */
  readonly foundCount: number;
  /** Pages that were written, so far. */
  readonly writtenCount: number;
  /** Names under which something else was found, so far. */
  readonly conflictCount: number;
}

const PAGE_ALIGNMENT = 64;

export class PageTable {
  readonly #heap: KvHeap;
  readonly #prefix: string;
  readonly #held = new Map<string, Page>();
  #privateCount = 0;
  #foundCount = 0;
  #writtenCount = 0;
  #conflictCount = 0;
  readonly #digits: number;

  /** @param digits Of a key that are in a page's id. Fewer than 64 are for tests: names then collide. */
  constructor(heap: KvHeap, prefix: string, digits: number) {
    this.#heap = heap;
    this.#prefix = prefix;
    this.#digits = digits;
  }

  idOf(address: PageAddress, plan: PagePlan): string {
    return `${this.#prefix}page/${address.keyText.slice(0, this.#digits)}/${plan.signature}`;
  }

  isHeld(id: string): boolean {
    return this.#held.has(id);
  }

  /** Whether there seems to be a page of that name, in RAM or in a tier. Reads no rows. */
  async isKnown(address: PageAddress, plan: PagePlan): Promise<boolean> {
    const id = this.idOf(address, plan);
    const held = this.#held.get(id);
    if (held !== undefined) return areEqual(held.address.header, address.header);
    if (this.#heap.tensor(id) !== null) return true;
    try {
      return (await this.#heap.estimateRestore(id)) !== null;
    } catch (error) {
      if (error instanceof CorruptionError) return false;
      throw error;
    }
  }

  /**
   * Holds the page of that name if its header says that it is this very page.
   *
   * @returns null when there is none, when another page has its name, or when it is damaged.
   * @throws As `TensorMemory.acquire`, but for damage.
   */
  async tryHold(address: PageAddress, plan: PagePlan): Promise<Page | null> {
    const id = this.idOf(address, plan);
    const known = this.#tryHoldNow(id, address, plan);
    if (known !== "cold") return known;
    let lease: Pin | null = null;
    try {
      lease = await this.#heap.acquire(id, { access: "read" });
      if (lease === null) return null;
      const page = this.#tryHoldNow(id, address, plan);
      return page === "cold" ? null : page;
    } catch (error) {
      if (error instanceof CorruptionError) return null;
      throw error;
    } finally {
      lease?.[Symbol.dispose]();
    }
  }

  /**
   * Holds the page of that name, written now if there is none.
   *
   * @param write Writes all sections into its argument.
   * @param isPrivate Nobody else may find it.
   * @throws {OutOfMemoryError} There is no room for it.
   * @throws Whatever `write` throws; nothing is held then.
   */
  async hold(
    address: PageAddress,
    plan: PagePlan,
    write: (sections: Uint8Array) => void,
    isPrivate: boolean,
  ): Promise<Page> {
    const bytes = address.header.length + plan.byteLength;
    const id = this.idOf(address, plan);
    let isReserved = false;
    for (;;) {
      let isOwn = isPrivate;
      if (!isPrivate && (this.#held.has(id) || this.#heap.tensor(id) !== null)) {
        const page = await this.tryHold(address, plan);
        if (page !== null) return page;
        // Another page of this name stays.
        isOwn = this.#held.has(id) || this.#heap.tensor(id) !== null;
      }
      const ownId = isOwn ? this.#nextOwnId() : id;
      const options = this.#options(ownId, bytes, plan);
      const tensor = isReserved ? this.#heap.allocate(options) : this.#heap.tryAllocate(options);
      if (tensor !== null) return this.#write(tensor, address, plan, write, isOwn);
      await this.#heap.reserve({ kind: "KV_CACHE", bytes, alignment: PAGE_ALIGNMENT });
      isReserved = true;
    }
  }

  retain(page: Page): void {
    page.referenceCount += 1;
  }

  /** The last holder's page may be found again until the memory needs its room. */
  release(page: Page): void {
    page.referenceCount -= 1;
    if (page.referenceCount > 0) return;
    this.#held.delete(page.id);
    if (page.tensor.isFreed) return;
    if (page.isPrivate) page.tensor[Symbol.dispose]();
    else page.tensor.isDisposable = true;
  }

  /** The page's sections, resident and pinned until the lease ends. */
  async lease(page: Page): Promise<{ readonly lease: Pin; readonly sections: Uint8Array }> {
    const lease = await leaseOf(this.#heap, page.tensor, page.version);
    return { lease, sections: lease.bytes.subarray(page.address.header.length) };
  }

  stats(): PageTableStats {
    let heldBytes = 0;
    let sharedBytes = 0;
    for (const { tensor, referenceCount } of this.#held.values()) {
      heldBytes += tensor.byteLength;
      sharedBytes += (referenceCount - 1) * tensor.byteLength;
    }
    return {
      heldCount: this.#held.size,
      heldBytes,
      sharedBytes,
      foundCount: this.#foundCount,
      writtenCount: this.#writtenCount,
      conflictCount: this.#conflictCount,
    };
  }

  #nextOwnId(): string {
    for (;;) {
      const id = `${this.#prefix}own/${++this.#privateCount}`;
      if (this.#heap.tensor(id) === null) return id;
    }
  }

  #options(id: string, bytes: number, { dtype }: PagePlan): KvTensorOptions {
    const shape = [bytes / dtypeTraits(dtype).elementBytes];
    const alignment = PAGE_ALIGNMENT;
    return { kind: "KV_CACHE", id, shape, dtype, alignment, tag: "kv page", budget: "exact" };
  }

  #write(
    tensor: Tensor,
    address: PageAddress,
    plan: PagePlan,
    write: (sections: Uint8Array) => void,
    isPrivate: boolean,
  ): Page {
    const pin = tensor.pin();
    try {
      const { bytes } = pin;
      bytes.set(address.header);
      write(bytes.subarray(address.header.length));
    } catch (error) {
      pin[Symbol.dispose]();
      tensor.free();
      throw error;
    }
    pin[Symbol.dispose]();
    this.#writtenCount += 1;
    return this.#add(tensor, address, plan, isPrivate);
  }

  #add(tensor: Tensor, address: PageAddress, plan: PagePlan, isPrivate: boolean): Page {
    const { version } = Tensor.recordOf(tensor);
    const id = tensor.id as string;
    const page = { id, address, plan, tensor, version, referenceCount: 1, isPrivate };
    this.#held.set(id, page);
    return page;
  }

  /** Holds a page that is held by others or resident; `"cold"`: it may be somewhere else. */
  #tryHoldNow(id: string, address: PageAddress, plan: PagePlan): Page | null | "cold" {
    const held = this.#held.get(id);
    if (held !== undefined) {
      if (!areEqual(held.address.header, address.header)) return this.#conflict();
      held.referenceCount += 1;
      this.#foundCount += 1;
      return held;
    }
    const tensor = this.#heap.tensor(id);
    if (tensor?.isResident !== true) return "cold";
    if (tensor.byteLength !== address.header.length + plan.byteLength) return this.#conflict();
    const pin = tensor.pin({ access: "read" });
    const isSame = areEqual(pin.bytes.subarray(0, address.header.length), address.header);
    pin[Symbol.dispose]();
    if (!isSame) return this.#conflict();
    tensor.isDisposable = false;
    this.#foundCount += 1;
    return this.#add(tensor, address, plan, false);
  }

  #conflict(): null {
    this.#conflictCount += 1;
    return null;
  }
}

/**
 * A tensor that was written once, made resident and pinned for reading.
 *
 * @throws {MisuseError} `overwritten` — somebody else may have written to it; `freed` — somebody else
 *   freed it.
 * @throws As `TensorMemory.acquire`.
 */
export async function leaseOf(heap: KvHeap, tensor: Tensor, version: number): Promise<Pin> {
  const name = tensor.id as string;
  const lease = tensor.isResident
    ? tensor.pin({ access: "read" })
    : await heap.acquire(name, { access: "read" });
  if (lease === null) throw new MisuseError("freed", `${name} was freed`);
  const record = Tensor.recordOf(tensor);
  if (!record.isFreed && record.version === version && record.writePinCount === 0) return lease;
  lease[Symbol.dispose]();
  throw new MisuseError("overwritten", `${name} may have been written by somebody else`);
}
