// Under which names the parts of an object lie in a Redis server. All names of one object have its key as
// their hash tag, so that a cluster keeps them on one server.
import { type CommitRecord, chunkCountOf } from "./redis-frames.js";
import type { RedisLink } from "./redis-link.js";
import type { TierKey } from "./tier.js";

export class RedisNames {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Of the commit record. */
  of(key: TierKey): string {
    return `${this.#prefix}:{${key}}`;
  }

  ofDamaged(key: TierKey): string {
    return `${this.of(key)}:damaged`;
  }

  ofChunk(key: TierKey, generation: string, index: number): string {
    return `${this.of(key)}:${generation}:${index}`;
  }

  ofChunks(key: TierKey, record: CommitRecord): string[] {
    return Array.from({ length: chunkCountOf(record) }, (_, index) =>
      this.ofChunk(key, record.generation, index),
    );
  }

  /** All keys with a commit record, and the generations of chunks of each key. */
  async scan(link: RedisLink) {
    const committed = new Set<TierKey>();
    const chunks = new Map<TierKey, Map<string, string[]>>();
    const damaged = new Set<TierKey>();
    // What has a meaning in patterns is taken literally.
    const pattern = `${this.#prefix.replaceAll(/[\\*?[\]^-]/g, "\\$&")}:{*`;
    const form = /^:\{([0-9a-f]{64})\}(?:|:(damaged)|:([0-9a-f]{32}):[0-9]+)$/;
    const pages = link.callEach("SCAN", (cursor) => [cursor, "MATCH", pattern, "COUNT", 1000]);
    for await (const names of pages) {
      for (const name of names) {
        const match = name.startsWith(this.#prefix)
          ? form.exec(name.slice(this.#prefix.length))
          : null;
        if (match === null) continue;
        const key = match[1] as TierKey;
        const generation = match[3];
        if (match[2] !== undefined) damaged.add(key);
        else if (generation === undefined) committed.add(key);
        else {
          const own = chunks.get(key) ?? new Map<string, string[]>();
          own.set(generation, [...(own.get(generation) ?? []), name]);
          chunks.set(key, own);
        }
      }
    }
    // Chunks of what was put aside are kept.
    for (const key of damaged) chunks.delete(key);
    return { committed: [...committed], chunks };
  }
}
