/**
 * Where the KV of the chats lives: one cache of the decoder for each chat, named by it. Another way to
 * keep KV, one that shares what chats have in common for example, goes in here and nowhere else.
 */
import type { TensorMemory } from "tierheap";
import type { OrtDecoder, OrtKvCache } from "tierheap/adapters/ort";

/** Where the rows of a turn came from. */
export type KvOrigin = "new" | "resident" | "restored" | "recomputed";

export interface OpenedKv {
  readonly cache: OrtKvCache;
  readonly origin: KvOrigin;
}

export class ChatKv {
  readonly #memory: TensorMemory;
  readonly #decoder: OrtDecoder;

  constructor(memory: TensorMemory, decoder: OrtDecoder) {
    this.#memory = memory;
    this.#decoder = decoder;
  }

  /**
   * The rows of a chat, wherever they are: at most those of `tokens`, and none where they are gone.
   *
   * @param tokens Of the chat so far.
   */
  async open(chat: string, tokens: readonly number[]): Promise<OpenedKv> {
    const id = idOf(chat);
    const empty = this.#decoder.createCache({ id });
    if (tokens.length === 0) {
      // What a turn without an end left behind.
      await this.#decoder.deleteCache(id);
      return { cache: empty, origin: "new" };
    }
    const isResident = empty.ids.every((each) => this.#memory.tensor(each)?.isResident === true);
    const opened = await this.#decoder.openCache({ id, tokens });
    if (opened !== null) return { cache: opened, origin: isResident ? "resident" : "restored" };
    await this.#decoder.deleteCache(id);
    return { cache: empty, origin: "recomputed" };
  }

  /** Puts rows on disk, so that they survive the process; under pressure they then leave RAM for nothing. */
  async save(cache: OrtKvCache): Promise<void> {
    // Without room the chat is computed again some day.
    await cache.save({ mode: "durable" });
  }

  async delete(chat: string): Promise<void> {
    await this.#decoder.deleteCache(idOf(chat));
  }
}

function idOf(chat: string): string {
  return `chat/${chat}/kv`;
}
