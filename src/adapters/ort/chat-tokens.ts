// What callers pass against what a cache holds: the beginning must be the same.
import { MisuseError } from "../../errors.js";

/**
 * How many tokens two sequences have in common, one of which must begin with the other.
 *
 * @param wanted null: whatever is held.
 * @throws {MisuseError} `token-mismatch`.
 */
export function commonTokenCount(
  held: readonly number[],
  wanted: ArrayLike<number> | null,
): number {
  const count = Math.min(held.length, wanted?.length ?? held.length);
  for (let index = 0; wanted !== null && index < count; index++) {
    if (held[index] === wanted[index]) continue;
    const problem = `token ${index} is not the one that the cache holds`;
    throw new MisuseError("token-mismatch", `${problem}: truncate it to ${index}`);
  }
  return count;
}

/**
 * How many of `tokens` are new to a cache that holds the rows of `known`.
 *
 * @throws {MisuseError} `token-mismatch` — `known` is not the beginning of `tokens`, or there is no other.
 */
export function countNewTokens(known: readonly number[], tokens: ArrayLike<number>): number {
  if (tokens.length <= known.length) {
    const problem = `${tokens.length} tokens for a cache of ${known.length}`;
    throw new MisuseError("token-mismatch", `${problem}: pass all of them and a new one`);
  }
  commonTokenCount(known, tokens);
  return tokens.length - known.length;
}
