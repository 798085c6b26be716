// The only source of randomness in the library. Layer 0.

/** Seam: cryptographic in production, seeded in tests. */
export interface Random {
  /** A uniformly drawn integer from 0 to 2^32 − 1. */
  uint32(): number;
}

/** Numbers drawn from the platform at once: each call of it costs more than what it gives. */
const DRAWN_COUNT = 256;

function drawn(): Random {
  const words = new Uint32Array(DRAWN_COUNT);
  let used = DRAWN_COUNT;
  return {
    uint32: () => {
      if (used === DRAWN_COUNT) {
        crypto.getRandomValues(words);
        used = 0;
      }
      return words[used++] as number;
    },
  };
}

/** The platform's cryptographic generator. Names of temporary files must not be guessable. */
export const systemRandom: Random = drawn();

/**
 * A small seeded generator for tests, examples and benchmarks; not for secrets.
 *
 * @see Sebastiano Vigna, "Further scramblings of Marsaglia's xorshift generators"; this is Guy
 *   Steele's SplitMix reduced to 32 bits, known as mulberry32.
 */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  return {
    uint32: () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return (mixed ^ (mixed >>> 14)) >>> 0;
    },
  };
}

/** 32 hexadecimal digits. */
export function randomName(random: Random): string {
  let name = "";
  for (let word = 0; word < 4; word++) name += random.uint32().toString(16).padStart(8, "0");
  return name;
}
