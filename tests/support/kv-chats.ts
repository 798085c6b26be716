// Caches of a few tokens, and what they must hold.
import { expect } from "vitest";
import type { KvCache } from "../../src/kv/kv-cache.js";
import type { KvCaches, KvCachesOptions } from "../../src/kv/kv-caches.js";
import { openKvCaches } from "../../src/kv.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { gathered, MIXED_LAYERS, rowsOf } from "./kv-model.js";

export const PAGE = 4;

export function open(memory: TensorMemory, options: Partial<KvCachesOptions> = {}): KvCaches {
  return openKvCaches(memory, {
    ...{ fingerprint: "model", layers: MIXED_LAYERS, pageTokens: PAGE },
    ...options,
  });
}

export const count = (length: number, first = 0) =>
  Array.from({ length }, (_, index) => first + index);

/** Appends what makes the cache hold these tokens. */
export async function extend(cache: KvCache, tokens: readonly number[]): Promise<void> {
  const from = cache.tokenCount;
  await cache.append(tokens.slice(from), rowsOf(MIXED_LAYERS, tokens, from));
}

export async function expectHolds(cache: KvCache, tokens: readonly number[]): Promise<void> {
  expect(cache.tokens).toEqual(tokens);
  expect(await gathered(MIXED_LAYERS, cache)).toEqual(rowsOf(MIXED_LAYERS, tokens));
}

/** What is left of caches once all are freed: pages that may be dropped, nothing else. */
export function expectUnheld(caches: KvCaches): void {
  expect(caches.stats()).toMatchObject({ heldCount: 0, heldBytes: 0, cacheCount: 0 });
}
