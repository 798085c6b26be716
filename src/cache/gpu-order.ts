// Who has a copy on the GPU, in the order of the last use, and who leaves first.
import type { GpuCopy } from "./gpu-lease.js";

/** A buffer stays in its size class until another one has been unused so many times as long. */
const CLASS_AGE_RATIO = 8;

export class GpuOrder implements Iterable<GpuCopy> {
  readonly #copies = new Set<GpuCopy>();
  #useCount = 0;

  get size(): number {
    return this.#copies.size;
  }

  get leaseCount(): number {
    let count = 0;
    for (const copy of this) count += copy.leaseCount;
    return count;
  }

  /** Bytes of the buffers that are leased. */
  get leasedBytes(): number {
    let bytes = 0;
    for (const { leaseCount, buffer } of this) if (leaseCount > 0) bytes += buffer.size;
    return bytes;
  }

  [Symbol.iterator](): Iterator<GpuCopy> {
    return this.#copies.values();
  }

  has(copy: GpuCopy): boolean {
    return this.#copies.has(copy);
  }

  /** Notes that a copy is there, and is used now. */
  touch(copy: GpuCopy): void {
    this.#useCount += 1;
    copy.lastUse = this.#useCount;
    this.#copies.delete(copy);
    this.#copies.add(copy);
  }

  /** @returns Whether it was there. */
  remove(copy: GpuCopy): boolean {
    return this.#copies.delete(copy);
  }

  clear(): void {
    this.#copies.clear();
  }

  /**
   * The longest unused whose buffer has the size class that is wanted, one that is stale first, so that no buffer is
   * made for the next one; but the longest unused of all, once that one is worth so much less.
   *
   * @returns null when all are leased or refused.
   */
  choose(grantedBytes: number, refused: ReadonlySet<GpuCopy>): GpuCopy | null {
    let oldest: GpuCopy | null = null;
    let fitting: GpuCopy | null = null;
    for (const copy of this) {
      if (copy.leaseCount > 0 || copy.isArriving || refused.has(copy)) continue;
      oldest ??= copy;
      if (copy.buffer.size !== grantedBytes) continue;
      if (!copy.isCurrent) return copy;
      fitting ??= copy;
    }
    if (fitting === null || oldest === null) return oldest;
    const ageOf = ({ lastUse }: GpuCopy) => this.#useCount - lastUse + 1;
    return ageOf(fitting) * CLASS_AGE_RATIO < ageOf(oldest) ? oldest : fitting;
  }
}
