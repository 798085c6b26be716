// Rows that follow from the tokens before them, as a model's do: two chats have equal rows where, and only
// where, they have begun alike. So a wrong row shows which beginning it belongs to.
import type { KvCache } from "../../src/kv/kv-cache.js";
import type { KvLayerShape } from "../../src/kv/page-form.js";

type Elements = Float32Array | Uint16Array;

/** Rows of one layer. */
export interface ModelRows {
  readonly keys: Elements;
  readonly values: Elements;
}

/** Layers of several shapes and types. */
export const MIXED_LAYERS: readonly KvLayerShape[] = [
  { heads: 2, headDim: 3, dtype: "f32" },
  { heads: 1, headDim: 5, dtype: "f16" },
  { heads: 3, headDim: 4, dtype: "bf16" },
];

function mix(state: number, word: number): number {
  let mixed = Math.imul(state ^ word, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

/** A number for each token, which depends on all tokens up to it and on what else was said. */
function statesOf(tokens: readonly number[], seed: string): number[] {
  let state = 0x12345678;
  for (const character of seed) state = mix(state, character.charCodeAt(0));
  return tokens.map((token) => {
    state = mix(state, token + 1);
    return state;
  });
}

function arrayFor({ dtype }: KvLayerShape, length: number): Elements {
  return dtype === "f32" ? new Float32Array(length) : new Uint16Array(length);
}

/**
 * Rows of the tokens from `from` to `to`.
 *
 * @param tokens All tokens of the chat, at least up to `to`.
 * @param capacity Tokens from one head to the next. Default: as many as there are.
 */
export function rowsOf(
  layers: readonly KvLayerShape[],
  tokens: readonly number[],
  from = 0,
  to = tokens.length,
  { seed = "", capacity = to - from } = {},
): ModelRows[] {
  const states = statesOf(tokens, seed);
  return layers.map((layer, index) => {
    const part = (salt: number) => {
      const array = arrayFor(layer, layer.heads * capacity * layer.headDim);
      for (let head = 0; head < layer.heads; head++) {
        for (let row = from; row < to; row++) {
          const at = (head * capacity + row - from) * layer.headDim;
          for (let element = 0; element < layer.headDim; element++) {
            const word = mix(
              states[row] as number,
              salt + 64 * (index + 16 * (head + 16 * element)),
            );
            // Finite in every type.
            array[at + element] = word & 0x3fff;
          }
        }
      }
      return array;
    };
    return { keys: part(1), values: part(2) };
  });
}

/** Everything that a cache holds, gathered. */
export async function gathered(
  layers: readonly KvLayerShape[],
  cache: KvCache,
  capacity = cache.rowCount,
): Promise<ModelRows[]> {
  const into = layers.map((layer) => {
    const length = layer.heads * capacity * layer.headDim;
    return { keys: arrayFor(layer, length), values: arrayFor(layer, length) };
  });
  await cache.gather(into, capacity);
  return into;
}
