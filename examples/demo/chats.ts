// Chats that outlive the page: the tokens in one record of the heap, the KV of each in its own.
import { type TensorMemory, TierError } from "tierheap";
import type { OrtDecoder, OrtKvCache } from "tierheap/adapters/ort";
import { breathe } from "./dom.js";
import { ANSWER_TOKENS, MODEL, tokensOf } from "./model.js";

const TRANSCRIPTS = "chats/transcripts";

/** What a chat is, apart from its KV. */
export interface Chat {
  readonly number: number;
  /** Prompts and answers. */
  readonly tokens: number[];
  /** Tokens of each prompt and of the answer to it. */
  readonly turns: [promptCount: number, answerCount: number][];
}

/** Where the KV of a question came from. */
export type KvSource = "new" | "at hand" | "brought back" | "computed again";

export interface Answer {
  readonly tokens: readonly number[];
  readonly source: KvSource;
  readonly tokensPerSecond: number;
  /** Whether tokens and KV are where a crash cannot take them. */
  readonly isKept: boolean;
}

/** The prompts of a chat, one by one. */
export function promptsOf({ tokens, turns }: Chat): number[][] {
  let at = 0;
  return turns.map(([promptCount, answerCount]) => {
    const prompt = tokens.slice(at, at + promptCount);
    at += promptCount + answerCount;
    return prompt;
  });
}

export function cacheIdOf({ number }: Chat): string {
  return `chats/${number}`;
}

export class Chats {
  readonly list: Chat[];
  readonly #memory: TensorMemory;
  /** Whether there is a store that keeps anything. */
  readonly #canKeep: boolean;
  readonly #caches = new Map<Chat, OrtKvCache>();

  private constructor(memory: TensorMemory, canKeep: boolean, list: Chat[]) {
    this.#memory = memory;
    this.#canKeep = canKeep;
    this.list = list;
  }

  /** What an earlier visit has left. */
  static async restore(memory: TensorMemory, canKeep: boolean): Promise<Chats> {
    using lease = await memory.acquire(TRANSCRIPTS, { access: "read" });
    const text = lease === null ? "[]" : new TextDecoder().decode(lease.bytes.slice());
    return new Chats(memory, canKeep, JSON.parse(text) as Chat[]);
  }

  create(): Chat {
    const number = Math.max(0, ...this.list.map((chat) => chat.number)) + 1;
    const chat: Chat = { number, tokens: [], turns: [] };
    this.list.push(chat);
    return chat;
  }

  /**
   * Takes one turn, and keeps it. If it fails, the chat is as it was.
   *
   * @param choose The greedy choice of the decoder's adapter.
   * @param onToken Hears the tokens of the answer so far.
   */
  async ask(
    chat: Chat,
    text: string,
    decoder: OrtDecoder,
    choose: (logits: Float32Array | Uint16Array) => number,
    onToken: (answer: readonly number[]) => void,
  ): Promise<Answer> {
    const prompt = tokensOf(text);
    if (chat.tokens.length + prompt.length + ANSWER_TOKENS > MODEL.positions) {
      throw new Error("This chat is as long as the model can read. Begin another one.");
    }
    const tokens = [...chat.tokens, ...prompt];
    const answerFrom = tokens.length;
    const { cache, source } = await this.#cacheOf(chat, decoder);
    const beganMs = performance.now();
    while (tokens.length < answerFrom + ANSWER_TOKENS) {
      tokens.push(choose((await decoder.step(cache, tokens)).logits));
      onToken(tokens.slice(answerFrom));
      await breathe();
    }
    const seconds = (performance.now() - beganMs) / 1000;
    const answer = tokens.slice(answerFrom);
    chat.tokens.push(...prompt, ...answer);
    chat.turns.push([prompt.length, answer.length]);
    const isKept = await this.#keep(cache).catch((error: unknown) => {
      if (error instanceof TierError) return false;
      throw error;
    });
    return { tokens: answer, source, isKept, tokensPerSecond: ANSWER_TOKENS / seconds };
  }

  /** Writes the transcripts over and over, for a page that is to be dropped in the middle of it. */
  async writeUntilTheEnd(): Promise<never> {
    for (;;) {
      if (this.#canKeep) await this.#keepTranscripts();
      await breathe();
    }
  }

  /** Forgets all of them, here and in the store. */
  async forget(decoder: OrtDecoder | null): Promise<void> {
    for (const cache of this.#caches.values()) cache.free();
    this.#caches.clear();
    this.list.splice(0);
    const ids: string[] = [];
    for await (const { id } of this.#memory.list({ prefix: "chats/" })) ids.push(id);
    for (const id of ids) await this.#memory.delete(id);
    await decoder?.close();
  }

  async #cacheOf(
    chat: Chat,
    decoder: OrtDecoder,
  ): Promise<{ cache: OrtKvCache; source: KvSource }> {
    const held = this.#caches.get(chat);
    if (held !== undefined) return { cache: held, source: "at hand" };
    const id = cacheIdOf(chat);
    const isNew = chat.tokens.length === 0;
    const found = isNew ? null : await this.#tryOpen(decoder, id, chat.tokens);
    if (found === null) await decoder.deleteCache(id);
    const cache = found ?? decoder.createCache({ id });
    this.#caches.set(chat, cache);
    if (found !== null) return { cache, source: "brought back" };
    return { cache, source: isNew ? "new" : "computed again" };
  }

  /** A KV of other tokens than these was left by a turn that nobody has kept. */
  async #tryOpen(decoder: OrtDecoder, id: string, tokens: readonly number[]) {
    try {
      const cache = await decoder.openCache({ id, tokens });
      // A step needs a token that is new, and the last answer's last token never is in the cache.
      if (cache !== null && cache.tokenCount >= tokens.length) cache.truncate(tokens.length - 1);
      return cache;
    } catch (error) {
      if ((error as { code?: string }).code === "token-mismatch") return null;
      throw error;
    }
  }

  /** The KV first: tokens without it can be computed again. */
  async #keep(cache: OrtKvCache): Promise<boolean> {
    if (!this.#canKeep) return false;
    if ((await cache.save({ mode: "durable" })) !== "stored") return false;
    return this.#keepTranscripts();
  }

  async #keepTranscripts(): Promise<boolean> {
    const bytes = new TextEncoder().encode(JSON.stringify(this.list));
    this.#memory.tensor(TRANSCRIPTS)?.free();
    // Beside the KV: another kind would take an arena of its own for a few bytes.
    const tensor = this.#memory.allocate({
      kind: "KV_CACHE",
      id: TRANSCRIPTS,
      byteLength: bytes.length,
    });
    {
      using pin = tensor.pin();
      pin.bytes.set(bytes);
    }
    return (await this.#memory.save(TRANSCRIPTS, { mode: "durable" })) === "stored";
  }
}
