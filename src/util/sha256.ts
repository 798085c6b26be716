// SHA-256 for short inputs, at once: the platform's own digest answers through a thread, which takes
// many times what a name of some dozen bytes needs. Layer 0.
//
// Source: NIST, FIPS 180-4, "Secure Hash Standard", sections 4.1.2, 5.1.1, 5.3.3 and 6.2.2.

const BLOCK_BYTES = 64;
const ROUND_COUNT = 64;
/** Bytes of the input's length in bits, at the end of the last block. */
const LENGTH_BYTES = 8;

/** The first 32 bits of the fractional part of a number. */
function fractionBits(value: number): number {
  return ((value - Math.floor(value)) * 2 ** 32) | 0;
}

function firstPrimes(count: number): number[] {
  const primes: number[] = [];
  for (let candidate = 2; primes.length < count; candidate++) {
    if (primes.every((prime) => candidate % prime !== 0)) primes.push(candidate);
  }
  return primes;
}

const PRIMES = firstPrimes(ROUND_COUNT);
const ROUND_CONSTANTS = Int32Array.from(PRIMES, (prime) => fractionBits(Math.cbrt(prime)));
const INITIAL = Int32Array.from(PRIMES.slice(0, 8), (prime) => fractionBits(Math.sqrt(prime)));

function rotated(word: number, count: number): number {
  return (word >>> count) | (word << (32 - count));
}

/** Goes on with the eight words of `state` by one block. @param schedule Room for 64 words. */
function compress(state: Int32Array, block: DataView, offset: number, schedule: Int32Array): void {
  for (let at = 0; at < 16; at++) schedule[at] = block.getInt32(offset + 4 * at);
  for (let at = 16; at < ROUND_COUNT; at++) {
    const early = schedule[at - 15] as number;
    const late = schedule[at - 2] as number;
    const small = rotated(early, 7) ^ rotated(early, 18) ^ (early >>> 3);
    const large = rotated(late, 17) ^ rotated(late, 19) ^ (late >>> 10);
    schedule[at] = (schedule[at - 16] as number) + small + (schedule[at - 7] as number) + large;
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [
    ...[number, number, number, number],
    ...[number, number, number, number],
  ];
  for (let at = 0; at < ROUND_COUNT; at++) {
    const choice = (e & f) ^ (~e & g);
    const mixed = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
    const first =
      (h + mixed + choice + (ROUND_CONSTANTS[at] as number) + (schedule[at] as number)) | 0;
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + majority;
    h = g;
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  for (const [at, word] of [a, b, c, d, e, f, g, h].entries()) {
    state[at] = (state[at] as number) + word;
  }
}

/**
 * The SHA-256 digest of an input.
 *
 * @returns 64 hexadecimal digits.
 * @remarks Synchronous, and slower per byte than the platform's: for names, not for tensors.
 */
export function sha256Hex(input: Uint8Array): string {
  const blockCount = Math.ceil((input.byteLength + 1 + LENGTH_BYTES) / BLOCK_BYTES);
  const padded = new Uint8Array(blockCount * BLOCK_BYTES);
  padded.set(input);
  padded[input.byteLength] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.byteLength - LENGTH_BYTES, BigInt(8 * input.byteLength));
  const state = INITIAL.slice();
  const schedule = new Int32Array(ROUND_COUNT);
  for (let offset = 0; offset < padded.byteLength; offset += BLOCK_BYTES) {
    compress(state, view, offset, schedule);
  }
  let digits = "";
  for (const word of new Uint32Array(state.buffer)) digits += word.toString(16).padStart(8, "0");
  return digits;
}
