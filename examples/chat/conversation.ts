/**
 * Takes the turns of many chats on one model. Deterministic: the tokens of a chat depend on its own
 * prompts alone, so any order of visits, and any place where KV is kept, must give the same.
 */
import type { KvState, KvStore } from "./kv-store.js";
import type { DecoderRuntime } from "./runtime.js";
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
}

export class Conversation {
  readonly #runtime: DecoderRuntime;
  readonly #store: KvStore;
  readonly #inputs: StepInputs;
  readonly #answerTokens: number;
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
    const held = chat.turn === 0 ? null : await this.#store.hold(before);
    const pastTokens = held === null ? 0 : before.tokens;
    if (held === null) this.recomputedTokens += before.tokens;
    let step: Awaited<ReturnType<DecoderRuntime["step"]>>;
    try {
      step = await this.#step(tokens.slice(pastTokens), held?.views ?? [], pastTokens);
    } finally {
      held?.release();
    }
    const cachedTokens = tokens.length + this.#answerTokens - 1;
    const after: KvState = { chat: chat.chat, turn: chat.turn + 1, tokens: cachedTokens };
    const growing = await this.#store.grow(after);
    try {
      let past = growing.update(step.present, tokens.length);
      tokens.push(step.nextToken);
      while (tokens.length <= cachedTokens) {
        step = await this.#step(tokens.slice(-1), past, tokens.length - 1);
        past = growing.update(step.present, tokens.length);
        tokens.push(step.nextToken);
      }
    } finally {
      growing.release();
    }
    const next: ChatState = { chat: chat.chat, turn: after.turn, tokens, cachedTokens };
    await commit(next);
    if (chat.turn > 0) await this.#store.drop(before);
    Object.assign(chat, next);
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
