/**
 * Takes the turns of many chats on one model. Deterministic: the tokens of a chat depend on its own
 * prompts alone, so any order of visits, and any place where KV is kept, must give the same.
 */
import { OutOfMemoryError } from "tierheap";
import type { CacheOptions, OrtDecoder, OrtKvCache } from "tierheap/adapters/ort";
import type { KvCaches } from "tierheap/kv";
import { type HeapKvStore, type KvState, type KvStore, kvBytes } from "./kv-store.js";
import { type DecoderRuntime, greedyChoice, RuntimeError } from "./runtime.js";
import { plainInputs, type StepInputs } from "./step-inputs.js";

/** One chat as it stands between two turns. */
export interface ChatState {
  readonly chat: number;
  /** Turns taken. */
  turn: number;
  /** All tokens so far: prompts and answers. */
  tokens: number[];
  /** How many of these the KV holds: all but the last answer's last. */
  cachedTokens: number;
}

export interface ConversationOptions {
  readonly runtime: DecoderRuntime;
  readonly store: KvStore;
  /** Where a step's ids, positions and mask lie. Default: plain arrays. */
  readonly inputs?: StepInputs;
  /** Tokens per answer, at least 1. */
  readonly answerTokens: number;
  /** Takes the steps in place of the runtime, over the KV of its store. */
  readonly heap?:
    | {
        readonly decoder: OrtDecoder;
        readonly store: HeapKvStore;
        /** What new chats begin with. */
        readonly prefixes: KvCaches | null;
      }
    | undefined;
}

export class Conversation {
  readonly #runtime: DecoderRuntime;
  readonly #store: KvStore;
  readonly #inputs: StepInputs;
  readonly #answerTokens: number;
  readonly #heap: ConversationOptions["heap"];
  /** KV that the runtime by itself would have returned in the steps that the decoder took. */
  presentBytesAvoided = 0;
  /** Chats that began with KV of others, and how many tokens that saved them. */
  readonly prefixes = { chatCount: 0, tokens: 0 };
  /** Tokens whose KV had to be computed again because the store had lost it. */
  recomputedTokens = 0;
  /** Tokens that the model has processed. */
  processedTokens = 0;
  /** Smallest distance of a chosen token from the second best. */
  logitGapMin = Number.POSITIVE_INFINITY;

  constructor(options: ConversationOptions) {
    this.#runtime = options.runtime;
    this.#store = options.store;
    this.#inputs = options.inputs ?? plainInputs;
    this.#answerTokens = options.answerTokens;
    this.#heap = options.heap;
  }

  /**
   * Takes one turn and updates the chat. The KV of the turn before stays until `commit` has returned,
   * so that what is on record always finds its KV.
   *
   * @param commit Records the new state.
   */
  async takeTurn(
    chat: ChatState,
    prompt: Uint8Array,
    commit: (next: ChatState) => Promise<void>,
  ): Promise<void> {
    const before: KvState = { chat: chat.chat, turn: chat.turn, tokens: chat.cachedTokens };
    const tokens = [...chat.tokens, ...prompt];
    const cachedTokens = tokens.length + this.#answerTokens - 1;
    const after: KvState = { chat: chat.chat, turn: chat.turn + 1, tokens: cachedTokens };
    if (this.#heap === undefined) await this.#answer(before, after, tokens);
    else await this.#answerOnHeap(this.#heap, before, after, tokens);
    const next: ChatState = { chat: chat.chat, turn: after.turn, tokens, cachedTokens };
    await commit(next);
    if (chat.turn > 0) await this.#drop(before);
    Object.assign(chat, next);
  }

  async #drop(state: KvState): Promise<void> {
    if (this.#heap === undefined) await this.#store.drop(state);
    else await this.#heap.decoder.deleteCache(this.#heap.store.idOf(state));
  }

  /** Adds the answer to `tokens`, and leaves its KV under `after`. */
  async #answer(before: KvState, after: KvState, tokens: number[]): Promise<void> {
    const held = before.turn === 0 ? null : await this.#store.hold(before);
    const pastTokens = held === null ? 0 : before.tokens;
    if (held === null) this.recomputedTokens += before.tokens;
    let step: Awaited<ReturnType<DecoderRuntime["step"]>>;
    try {
      step = await this.#step(tokens.slice(pastTokens), held?.views ?? [], pastTokens);
    } finally {
      held?.release();
    }
    const growing = await this.#store.grow(after);
    try {
      let past = growing.update(step.present, tokens.length);
      tokens.push(step.nextToken);
      while (tokens.length <= after.tokens) {
        step = await this.#step(tokens.slice(-1), past, tokens.length - 1);
        past = growing.update(step.present, tokens.length);
        tokens.push(step.nextToken);
      }
    } finally {
      growing.release();
    }
  }

  /** As {@link #answer}, by the decoder: the rows before are copied once, and new ones written behind. */
  async #answerOnHeap(
    heap: NonNullable<ConversationOptions["heap"]>,
    before: KvState,
    after: KvState,
    tokens: number[],
  ): Promise<void> {
    const { decoder, store, prefixes } = heap;
    const cache = await this.#forkOnHeap(heap, before, after, tokens);
    const isFirst = cache.tokenCount === 0;
    try {
      while (tokens.length <= after.tokens) {
        const newTokens = tokens.length - cache.tokenCount;
        const { logits } = await decoder.step(cache, tokens);
        const choice = greedyChoice(logits, logits.length);
        if (choice === undefined) {
          throw new RuntimeError("run-failed", "The model yields no number as a logit.");
        }
        // Nobody began like this yet: others may.
        if (isFirst && newTokens > 1 && prefixes !== null) {
          using pages = prefixes.create();
          await decoder.storeCache(cache, pages).catch(unlessFull);
        }
        this.presentBytesAvoided += kvBytes(this.#runtime.kv, tokens.length);
        this.processedTokens += newTokens;
        this.logitGapMin = Math.min(this.logitGapMin, choice.logitGap);
        tokens.push(choice.nextToken);
      }
      store.touch(after);
    } catch (error) {
      cache.free();
      throw error;
    }
  }

  /** A cache for `after` that begins as the one of `before`, or empty when that is gone. */
  async #forkOnHeap(
    { decoder, store, prefixes }: NonNullable<ConversationOptions["heap"]>,
    before: KvState,
    after: KvState,
    tokens: readonly number[],
  ): Promise<OrtKvCache> {
    const options = { id: store.idOf(after), capacityTokens: after.tokens };
    const held = before.turn === 0 ? null : await store.hold(before);
    try {
      const known = tokens.slice(0, before.tokens);
      const old = held && (await decoder.openCache({ id: store.idOf(before), tokens: known }));
      if (old !== null) {
        try {
          return await decoder.forkCache(old, options);
        } catch (error) {
          if (!(error instanceof OutOfMemoryError)) throw error;
        }
        // No room for both at once: what has been copied may leave while the rest is.
        held?.release();
        return await decoder.forkCache(old, options);
      }
    } finally {
      held?.release();
    }
    if (held !== null) store.lostCount += 1;
    this.recomputedTokens += before.tokens;
    if (prefixes === null) return decoder.createCache(options);
    return this.#beginOnHeap(decoder, prefixes, tokens, options);
  }

  /** A cache that begins with what other chats began with. */
  async #beginOnHeap(
    decoder: OrtDecoder,
    prefixes: KvCaches,
    tokens: readonly number[],
    options: CacheOptions,
  ): Promise<OrtKvCache> {
    // A step needs a token that is new.
    using pages = await prefixes.restore({ tokens: tokens.slice(0, -1) });
    const cache =
      (await decoder.restoreCache(pages, options).catch(unlessFull)) ??
      decoder.createCache(options);
    if (cache.tokenCount > 0) this.prefixes.chatCount += 1;
    this.prefixes.tokens += cache.tokenCount;
    return cache;
  }

  async #step(
    tokens: readonly number[],
    past: Parameters<DecoderRuntime["step"]>[1],
    pastTokens: number,
  ) {
    const result = await this.#runtime.step(tokens, past, pastTokens, this.#inputs);
    this.processedTokens += tokens.length;
    this.logitGapMin = Math.min(this.logitGapMin, result.logitGap);
    return result;
  }
}

/** Sharing saves work: where there is no room for it, the chat goes on without. */
function unlessFull(error: unknown): null {
  if (error instanceof OutOfMemoryError) return null;
  throw error;
}
