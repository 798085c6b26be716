// What callers pass against what a cache holds: the beginning must be the same.
import { MisuseError } from "../../errors.js";

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
  for (let index = 0; index < known.length; index++) {
    if (tokens[index] !== known[index]) {
      const problem = `token ${index} is not the one that the cache holds`;
      throw new MisuseError("token-mismatch", `${problem}: truncate it to ${index}`);
    }
  }
  return tokens.length - known.length;
}
