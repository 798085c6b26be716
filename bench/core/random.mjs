// The random numbers of all workloads, so that a seed means the same operations everywhere.

/**
 * A 32-bit xorshift generator; its state starts at `seed`.
 *
 * @param seed 1 to 2^32 − 1; 0 would stay 0.
 * @returns A function that gives the next number in [0, 1).
 * @see Source: G. Marsaglia, "Xorshift RNGs", the triple 13, 17, 5.
 */
export function xorshift(seed) {
  let state = seed >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}
