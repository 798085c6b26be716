// Random numbers of the proofs: one word of state, so that a seed repeats a run.

/**
 * @param seed Any number; its low 32 bits count.
 * @returns A function that gives the next number, 1 to 2^32 − 1.
 * @see Source: G. Marsaglia, "Xorshift RNGs", the triple 13, 17, 5.
 */
export function words(seed) {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** A share of [0, 1) from a word. */
export const share = (word) => word / 2 ** 32;
