/**
 * The chats of a server. Between two turns a chat is a record on disk, and rows of KV that are
 * wherever there is room for them; nothing of it is kept here. A turn that was not acknowledged has
 * not happened, whatever became of the process.
 */
import type { TensorMemory } from "tierheap";
import { greedyToken, type OrtDecoder } from "tierheap/adapters/ort";
import { loadBytes, saveBytes } from "../chat/run-records.js";
import { RuntimeError } from "../chat/runtime.js";
import type { ChatKv, KvOrigin } from "./chat-kv.js";
import { RequestError } from "./request-error.js";

/** A chat as it stands between two turns. */
export interface ChatState {
  /** Turns taken. */
  readonly turn: number;
  /** Prompts and answers. */
  readonly tokens: readonly number[];
}

/** What a user says. */
export interface TurnRequest {
  readonly prompt: Uint8Array;
  /** Tokens of the answer. */
  readonly answerTokens: number;
  /** The turn that the user means, from 0; a repeated request is found out by it. */
  readonly turn: number | undefined;
}

export interface TurnResult {
  readonly turn: number;
  readonly answer: readonly number[];
  readonly origin: KvOrigin;
}

export interface ChatsOptions {
  readonly memory: TensorMemory;
  readonly decoder: OrtDecoder;
  readonly kv: ChatKv;
  /** Tokens that a chat may have. */
  readonly contextTokens: number;
}

export class Chats {
  readonly #options: ChatsOptions;
  readonly #busy = new Set<string>();
  /** Chats whose record is read or written, and when that has ended. */
  readonly #recordUse = new Map<string, Promise<unknown>>();
  readonly #originCounts: Record<KvOrigin, number> = {
    new: 0,
    resident: 0,
    restored: 0,
    recomputed: 0,
  };
  #tokenCount = 0;

  constructor(options: ChatsOptions) {
    this.#options = options;
  }

  stats() {
    return { tokenCount: this.#tokenCount, originCounts: { ...this.#originCounts } };
  }

  /** @throws {RequestError} `not-found`. */
  async read(chat: string): Promise<ChatState> {
    const state = await this.#load(chat);
    if (state.turn > 0) return state;
    throw new RequestError(404, "not-found", `there is no chat ${chat}`);
  }

  async list(): Promise<string[]> {
    const chats: string[] = [];
    for await (const { id } of this.#options.memory.list({ prefix: "chat/" })) {
      const match = /^chat\/([^/]+)\/state$/.exec(id);
      if (match?.[1] !== undefined) chats.push(match[1]);
    }
    return [...new Set(chats)].sort();
  }

  /** @throws {RequestError} `not-found`; `chat-busy`. */
  async delete(chat: string): Promise<void> {
    await this.#alone(chat, async () => {
      await this.read(chat);
      await this.#options.kv.delete(chat);
      await this.#afterOthers(chat, () => this.#options.memory.delete(stateId(chat)));
    });
  }

  /**
   * Takes a turn. One chat takes one at a time.
   *
   * @param enter Waits until it may compute, and computes.
   * @param onToken Hears of each token as it comes.
   * @throws {RequestError} `chat-busy`; `turn-mismatch`; `too-long`.
   * @throws The signal's reason; what `enter` throws.
   */
  async takeTurn(
    chat: string,
    request: TurnRequest,
    {
      enter,
      onToken,
      signal,
    }: {
      readonly enter: <T>(work: () => Promise<T>) => Promise<T>;
      readonly onToken: (token: number, index: number) => void;
      readonly signal: AbortSignal;
    },
  ): Promise<TurnResult> {
    return this.#alone(chat, async () => {
      const state = await this.#load(chat);
      const { turn } = state;
      if (request.turn !== undefined && request.turn !== turn) {
        const message = `the chat is at turn ${turn}`;
        throw new RequestError(409, "turn-mismatch", message, { turn });
      }
      const tokens = [...state.tokens, ...request.prompt];
      const { contextTokens } = this.#options;
      if (tokens.length + request.answerTokens > contextTokens) {
        throw new RequestError(413, "too-long", `a chat has at most ${contextTokens} tokens`);
      }
      return enter(async () => {
        const origin = await this.#answer(chat, state, tokens, { ...request, onToken, signal });
        return { turn: turn + 1, answer: tokens.slice(-request.answerTokens), origin };
      });
    });
  }

  /** Adds the answer to `tokens`, and puts the chat on disk. */
  async #answer(
    chat: string,
    state: ChatState,
    tokens: number[],
    {
      answerTokens,
      onToken,
      signal,
    }: Pick<TurnRequest, "answerTokens"> & {
      readonly onToken: (token: number, index: number) => void;
      readonly signal: AbortSignal;
    },
  ): Promise<KvOrigin> {
    const { memory, decoder, kv } = this.#options;
    const { cache, origin } = await kv.open(chat, state.tokens);
    for (let index = 0; index < answerTokens; index++) {
      signal.throwIfAborted();
      const token = greedyToken((await decoder.step(cache, tokens)).logits);
      if (token < 0) throw new RuntimeError("run-failed", "The model yields no number as a logit.");
      tokens.push(token);
      this.#tokenCount += 1;
      onToken(token, index);
    }
    // The rows come first: a state without its rows costs time, rows without a state cost nothing.
    await kv.save(cache);
    const words = Uint32Array.of(state.turn + 1, ...tokens);
    const bytes = new Uint8Array(words.buffer);
    await this.#afterOthers(chat, () => saveBytes(memory, stateId(chat), bytes));
    this.#originCounts[origin] += 1;
    return origin;
  }

  async #load(chat: string): Promise<ChatState> {
    const { memory } = this.#options;
    const bytes = await this.#afterOthers(chat, () => loadBytes(memory, stateId(chat)));
    if (bytes === null) return { turn: 0, tokens: [] };
    const [turn = 0, ...tokens] = new Uint32Array(bytes.buffer, 0, bytes.byteLength / 4);
    return { turn, tokens };
  }

  /** One at a time: a record is a tensor of the heap for a moment, and ids are unique. */
  async #afterOthers<T>(chat: string, work: () => Promise<T>): Promise<T> {
    const before = this.#recordUse.get(chat) ?? Promise.resolve();
    const use = before.then(work, work);
    this.#recordUse.set(chat, use);
    try {
      return await use;
    } finally {
      if (this.#recordUse.get(chat) === use) this.#recordUse.delete(chat);
    }
  }

  async #alone<T>(chat: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(chat)) {
      throw new RequestError(409, "chat-busy", "the chat takes another turn at this moment");
    }
    this.#busy.add(chat);
    try {
      return await work();
    } finally {
      this.#busy.delete(chat);
    }
  }
}

function stateId(chat: string): string {
  return `chat/${chat}/state`;
}
