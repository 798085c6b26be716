// The decoders that adapters are tried on, conversations with them, and what the bare runtime says.
import { buildDecoder } from "../../examples/chat/model/decoder.js";
import { buildGroupedDecoder } from "../../examples/chat/model/grouped-decoder.js";
import { seededRandom } from "../../src/random.js";
import { BareChat, type BareOptions, type BareStyle } from "./bare-decoder.js";

export const SIZES = { layers: 2, hidden: 64, heads: 4, vocabulary: 256 };
export const HEAD_DIM = SIZES.hidden / SIZES.heads;
/** Tokens of the buffers of a grouped model on the bare runtime. */
export const CAPACITY = 256;
export const SEEDS = [1, 2, 3, 4, 5];

export interface Family {
  readonly name: string;
  readonly style: BareStyle;
  readonly kvHeads: number;
  readonly build: (seed: number) => Uint8Array<ArrayBuffer>;
}

const concat = (kvHeads: number) => (seed: number) =>
  buildDecoder({ ...SIZES, kvHeads, positions: 512, attentionSharpness: 6, seed });
const grouped = (kvHeads: number, lengths: "inputs" | "mask") => (seed: number) =>
  buildGroupedDecoder({ ...SIZES, kvHeads, lengths, seed });

export const FAMILIES: readonly Family[] = [
  { name: "Concat", style: "concat", kvHeads: 4, build: concat(4) },
  { name: "Concat, two KV heads", style: "concat", kvHeads: 2, build: concat(2) },
  { name: "GQA", style: "grouped-inputs", kvHeads: 4, build: grouped(4, "inputs") },
  { name: "GQA by mask", style: "grouped-mask", kvHeads: 2, build: grouped(2, "mask") },
];

/** [prompt, answer length] of each turn: the first crosses pages, the second is short. */
export const TURNS = [
  [37, 20],
  [4, 9],
  [1, 3],
  [21, 14],
] as const;

/** The same prompts with fewer words in between, for runtimes that are slow. */
export const SHORT_TURNS = [
  [37, 8],
  [4, 5],
  [1, 3],
  [21, 4],
] as const;

export function promptsFor(seed: number): number[][] {
  const random = seededRandom(seed);
  return TURNS.map(([length]) => Array.from({ length }, () => random.uint32() % 256));
}

/** Whoever answers prompts, greedy. */
export interface Speaker {
  say(prompt: readonly number[], answerTokens: number): Promise<number[]>;
}

export async function answersOf(
  chat: Speaker,
  seed: number,
  turns: readonly (readonly [number, number])[] = TURNS,
): Promise<number[][]> {
  const answers: number[][] = [];
  for (const [turn, prompt] of promptsFor(seed).entries()) {
    answers.push(await chat.say(prompt, turns[turn]?.[1] ?? 0));
  }
  return answers;
}

/** A chat on the runtime by itself, on the model as it is. */
export async function bareChat(
  family: Family,
  model: Uint8Array,
  runtime: { readonly ort: BareOptions["ort"]; readonly sessionOptions: object },
): Promise<{ chat: BareChat; release: () => Promise<void> }> {
  const { ort, sessionOptions } = runtime;
  const session = await ort.InferenceSession.create(model, sessionOptions);
  const { style, kvHeads } = family;
  const sizes = { layers: SIZES.layers, kvHeads, headDim: HEAD_DIM, capacityTokens: CAPACITY };
  return {
    chat: new BareChat({ ort, session, style, ...sizes }),
    release: () => session.release(),
  };
}
