// Keys whose deletion has failed. Whoever asked for it has given the object up, whatever came of the
// attempt: it is not found again until it is stored again, and each use of its key tries once more.
import type { TierKey } from "./tier.js";

export class FailedDeletions {
  readonly #keys = new Set<TierKey>();

  /** Deletes, and remembers the key if that fails. @throws What `remove` throws. */
  async attempt<T>(key: TierKey, remove: () => Promise<T>): Promise<T> {
    this.#keys.add(key);
    const result = await remove();
    this.#keys.delete(key);
    return result;
  }

  has(key: TierKey): boolean {
    return this.#keys.has(key);
  }

  /** Something was stored under the key: what was to be deleted is gone. */
  forget(key: TierKey): void {
    this.#keys.delete(key);
  }

  /** Keys, without those whose deletion has failed. */
  *without(keys: Iterable<TierKey>): Generator<TierKey> {
    for (const key of keys) if (!this.#keys.has(key)) yield key;
  }

  /** Tries each once more. What fails again is left. */
  async retry(remove: (key: TierKey) => Promise<unknown>): Promise<void> {
    for (const key of [...this.#keys]) {
      await remove(key).then(
        () => this.#keys.delete(key),
        () => {},
      );
    }
  }
}
