// The demo's language model, and how its tokens are written and read. A decoder of seeded random weights:
// what it says means nothing, but each token depends on the whole KV cache, so a wrong byte would show.
import type { DecoderOptions } from "../chat/model/decoder.js";

export const MODEL: DecoderOptions = {
  layers: 4,
  hidden: 256,
  heads: 8,
  kvHeads: 4,
  vocabulary: 256,
  positions: 2048,
  // At 1 a random model hardly looks at its past, and would prove little.
  attentionSharpness: 6,
  seed: 20_240_229,
};

/** Tokens of an answer. */
export const ANSWER_TOKENS = 32;

/** Names of a cache's tensors, as `tierheap/adapters/ort` names them. */
export function kvIdsOf(cacheId: string): string[] {
  return Array.from({ length: MODEL.layers }, (_, layer) => [
    `${cacheId}/${layer}.key`,
    `${cacheId}/${layer}.value`,
  ]).flat();
}

const ONSETS = ["", "b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"];
const RIMES = "a e i o u an en in on un ar el is or us ai".split(" ");

/** The bytes of a text, one token each. */
export function tokensOf(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

export function textOf(promptTokens: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(promptTokens));
}

/** Each token is a syllable; every third one or so ends a word. */
export function wordsOf(tokens: readonly number[]): string {
  let text = "";
  for (const token of tokens) {
    const onset = ONSETS[token >> 4] ?? "";
    text += `${onset}${RIMES[token & 15] ?? ""}${token % 5 < 2 ? " " : ""}`;
  }
  return text.trim();
}
