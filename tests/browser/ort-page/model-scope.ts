// The module of a model worker: chats on onnxruntime-web's wasm provider, with KV as the runtime returns it.
import { type KvState, serveModel, type WorkerModel } from "tierheap/adapters/model-worker";
import { buildDecoder } from "../../../examples/chat/model/decoder.js";
import type { BareChat } from "../../support/bare-decoder.js";
import { bareChat, FAMILIES, type Family } from "../../support/decoder-families.js";
import type { ModelInit, TurnInput } from "./model-owner.js";

type Ort = typeof import("onnxruntime-web/wasm");

/** As long as the weights of a small model; what takes them stays in the runtime's heap. */
const BALLAST = { layers: 8, hidden: 384, heads: 6, kvHeads: 6, vocabulary: 256, positions: 512 };

class Chats implements WorkerModel {
  readonly #ort: Ort;
  readonly #family: Family;
  readonly #model: Uint8Array;
  readonly #chats = new Map<string, { readonly chat: BareChat; release(): Promise<void> }>();

  constructor(ort: Ort, { familyIndex, seed }: ModelInit) {
    this.#ort = ort;
    this.#family = FAMILIES[familyIndex] as Family;
    this.#model = this.#family.build(seed);
  }

  async run(chat: string, input: unknown): Promise<number[]> {
    const { tokens, answerTokens, isHeavy, isDeadly } = input as TurnInput;
    if (isDeadly) for (;;);
    if (isHeavy) {
      const model = buildDecoder({ ...BALLAST, seed: 1 });
      await (await this.#ort.InferenceSession.create(model)).release();
    }
    const { chat: found } = await this.#open(chat);
    found.tokens.splice(0);
    return found.say(tokens, answerTokens);
  }

  async suspend(chat: string): Promise<KvState | null> {
    const found = this.#chats.get(chat);
    if (found === undefined) return null;
    this.#chats.delete(chat);
    const { past, pastTokens } = found.chat.takePast();
    const about = { pastTokens, dims: [...past].map(([name, { dims }]) => [name, dims] as const) };
    const parts = [...past.values()].map(({ data }) => {
      const { buffer, byteOffset, byteLength } = data as Float32Array<ArrayBuffer>;
      return new Uint8Array(buffer, byteOffset, byteLength).slice();
    });
    await found.release();
    return { parts, about };
  }

  async resume(chat: string, { parts, about }: KvState): Promise<void> {
    const { pastTokens, dims } = about as { pastTokens: number; dims: [string, number[]][] };
    const { chat: found } = await this.#open(chat);
    const past = dims.map(([name, shape], index) => {
      const values = new Float32Array((parts[index] as Uint8Array<ArrayBuffer>).buffer);
      return [name, new this.#ort.Tensor("float32", values, shape)] as const;
    });
    found.givePast(new Map(past), pastTokens);
  }

  async forget(chat: string): Promise<void> {
    await this.#chats.get(chat)?.release();
    this.#chats.delete(chat);
  }

  async #open(chat: string) {
    const found = this.#chats.get(chat);
    if (found !== undefined) return found;
    const sessionOptions = { executionProviders: ["wasm"], logSeverityLevel: 4 as const };
    const opened = await bareChat(this.#family, this.#model, { ort: this.#ort, sessionOptions });
    this.#chats.set(chat, opened);
    return opened;
  }
}

serveModel(async (init) => {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = (init as ModelInit).runtimeFiles;
  ort.env.wasm.numThreads = 1;
  return new Chats(ort, init as ModelInit);
});
