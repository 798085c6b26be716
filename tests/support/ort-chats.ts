// Chats over KV in the heap, on both runtimes, and what the bare runtime answers.
import * as native from "onnxruntime-node";
import * as web from "onnxruntime-web";
import { expect } from "vitest";
import {
  greedyToken,
  type OrtDecoder,
  type OrtDecoderOptions,
  type OrtKvCache,
  openOrtDecoder,
} from "../../src/adapters/ort.js";
import type { TensorMemory } from "../../src/index.js";
import { answersOf, bareChat, FAMILIES, type Family } from "./decoder-families.js";

export const [CONCAT, , GROUPED] = FAMILIES as [Family, Family, Family];

export const retiredBytesOf = (memory: TensorMemory) => memory.stats().budget.byCategory.retired;

export const RUNTIMES = [
  { name: "onnxruntime-node", ort: native, sessionOptions: { logSeverityLevel: 4 } },
  {
    name: "onnxruntime-web (wasm)",
    ort: web,
    sessionOptions: { executionProviders: ["wasm"], logSeverityLevel: 4 },
  },
] as const;
export const [NATIVE] = RUNTIMES;

/** Adds answers to a conversation: each token is the model's best. */
export class Chat {
  readonly tokens: number[] = [];
  readonly decoder: OrtDecoder;
  readonly cache: OrtKvCache;

  constructor(decoder: OrtDecoder, cache = decoder.createCache()) {
    this.decoder = decoder;
    this.cache = cache;
  }

  async say(prompt: readonly number[], answerTokens: number): Promise<number[]> {
    this.tokens.push(...prompt);
    const from = this.tokens.length;
    while (this.tokens.length < from + answerTokens) {
      const { logits } = await this.decoder.step(this.cache, this.tokens);
      this.tokens.push(greedyToken(logits));
    }
    return this.tokens.slice(from);
  }
}

/** Bare answers to the prompts of a seed. */
export async function bareAnswers(
  family: Family,
  seed: number,
  runtime: (typeof RUNTIMES)[number] = NATIVE,
  model = family.build(seed),
): Promise<number[][]> {
  const { chat, release } = await bareChat(family, model, runtime);
  const answers = await answersOf(chat, seed);
  await release();
  // A family whose answers hardly depend on its KV would prove nothing.
  expect(new Set(answers.flat()).size).toBeGreaterThan(5);
  return answers;
}

export async function open(
  options: Partial<OrtDecoderOptions> & { memory: TensorMemory },
): Promise<OrtDecoder> {
  const { ort, sessionOptions } = NATIVE;
  const model = CONCAT.build(1);
  return openOrtDecoder({ ort, sessionOptions, model, pageTokens: 16, ...options });
}
