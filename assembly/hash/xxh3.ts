// XXH3, 128 bits, seed 0, default secret, for inputs of more than 240 bytes: the integrity hash of
// records. A leaf: it uses no other module. It finds damage, not malice.
// Source: Cyan4973/xxHash, doc/xxhash_spec.md @ 0e1d320d, the XXH3 overview and the description for
// large inputs — formulas, constants and the default secret.
//
// The input is a row of 64-byte stripes, 16 to a block. A stripe is mixed into eight accumulators
// under a window of the secret that advances by 8 bytes per stripe; the accumulators are scrambled
// after each block. The block that holds the last byte is never closed by a scramble, and the last
// 64 bytes are mixed once more as a stripe of their own, overlapping what came before.
//
//   state byte 0                  64           72         128
//              ┌──────────────────┬────────────┬──────────┐
//              │ 8 accumulators   │ totalBytes │ reserved │
//              └──────────────────┴────────────┴──────────┘
import * as abi from "../kernels-abi";

const PRIME32_1: u64 = 0x9e3779b1;
const PRIME32_2: u64 = 0x85ebca77;
const PRIME32_3: u64 = 0xc2b2ae3d;
const PRIME64_1: u64 = 0x9e3779b185ebca87;
const PRIME64_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME64_3: u64 = 0x165667b19e3779f9;
const PRIME64_4: u64 = 0x85ebca77c2b2ae63;
const PRIME64_5: u64 = 0x27d4eb2f165667c5;
const PRIME_MIX: u64 = 0x165667919e3779f9;

const STRIPE_BYTES: u32 = 64;
const BLOCK_BYTES: u32 = <u32>abi.HASH_BLOCK_BYTES;
const STRIPES_PER_BLOCK: u32 = BLOCK_BYTES / STRIPE_BYTES;
/** Bytes that the secret's window advances per stripe. */
const SECRET_STEP: usize = 8;

/** Where the secret is read, in bytes from its start. */
const SECRET_SCRAMBLE: usize = 128;
const SECRET_LAST_STRIPE: usize = 121;
const SECRET_LOW: usize = 11;
const SECRET_HIGH: usize = 117;

/** State of one hash. `totalBytes` counts what xxh3Blocks consumed, always whole blocks. */
@unmanaged
class Xxh3State {
  accumulator0: u64;
  accumulator1: u64;
  accumulator2: u64;
  accumulator3: u64;
  accumulator4: u64;
  accumulator5: u64;
  accumulator6: u64;
  accumulator7: u64;
  totalBytes: u64;
}

if (offsetof<Xxh3State>("accumulator0") != abi.HASH_OFF_ACCUMULATORS) ERROR("accumulators");
if (offsetof<Xxh3State>("totalBytes") != abi.HASH_OFF_TOTAL_BYTES) ERROR("totalBytes");
if (offsetof<Xxh3State>() > <usize>abi.HASH_STATE_BYTES) ERROR("Xxh3State size");

/**
 * Writes the default secret, HASH_SECRET_BYTES long, to `secret`. By stores, because a data segment
 * would be written into the host's memory at a fixed address by every instance.
 */
export function xxh3WriteSecret(secret: usize): void {
  store<u64>(secret, 0xbe4ba423396cfeb8, 0);
  store<u64>(secret, 0x1cad21f72c81017c, 8);
  store<u64>(secret, 0xdb979083e96dd4de, 16);
  store<u64>(secret, 0x1f67b3b7a4a44072, 24);
  store<u64>(secret, 0x78e5c0cc4ee679cb, 32);
  store<u64>(secret, 0x2172ffcc7dd05a82, 40);
  store<u64>(secret, 0x8e2443f7744608b8, 48);
  store<u64>(secret, 0x4c263a81e69035e0, 56);
  store<u64>(secret, 0xcb00c391bb52283c, 64);
  store<u64>(secret, 0xa32e531b8b65d088, 72);
  store<u64>(secret, 0x4ef90da297486471, 80);
  store<u64>(secret, 0xd8acdea946ef1938, 88);
  store<u64>(secret, 0x3f349ce33f76faa8, 96);
  store<u64>(secret, 0x1d4f0bc7c7bbdcf9, 104);
  store<u64>(secret, 0x3159b4cd4be0518a, 112);
  store<u64>(secret, 0x647378d9c97e9fc8, 120);
  store<u64>(secret, 0xc3ebd33483acc5ea, 128);
  store<u64>(secret, 0xeb6313faffa081c5, 136);
  store<u64>(secret, 0x49daf0b751dd0d17, 144);
  store<u64>(secret, 0x9e68d429265516d3, 152);
  store<u64>(secret, 0xfca1477d58be162b, 160);
  store<u64>(secret, 0xce31d07ad1b8f88f, 168);
  store<u64>(secret, 0x280416958f3acb45, 176);
  store<u64>(secret, 0x7e404bbbcafbd7af, 184);
}

/** Formats `address` as the state of an empty input. */
export function xxh3Begin(address: usize): void {
  const state = changetype<Xxh3State>(address);
  state.accumulator0 = PRIME32_3;
  state.accumulator1 = PRIME64_1;
  state.accumulator2 = PRIME64_2;
  state.accumulator3 = PRIME64_3;
  state.accumulator4 = PRIME64_4;
  state.accumulator5 = PRIME32_2;
  state.accumulator6 = PRIME64_5;
  state.accumulator7 = PRIME32_1;
  state.totalBytes = 0;
}

/** Consumes `blockCount` blocks from `input`. At least one byte follows them; not checked. */
export function xxh3Blocks(state: usize, secret: usize, input: usize, blockCount: u32): void {
  for (let block: u32 = 0; block < blockCount; block++) {
    mixStripes(state, secret, input, STRIPES_PER_BLOCK);
    scramble(state, secret + SECRET_SCRAMBLE);
    input += BLOCK_BYTES;
  }
  changetype<Xxh3State>(state).totalBytes += <u64>blockCount * BLOCK_BYTES;
}

/**
 * Consumes the last `length` bytes and writes the digest to `target`. The state is used up.
 *
 * @param input If it is shorter than a stripe, the bytes before it are read too.
 * @param length At least 1.
 * @returns False, with nothing written, if the whole input is too short for this algorithm.
 */
export function xxh3End(
  state: usize,
  secret: usize,
  input: usize,
  length: u32,
  target: usize,
): bool {
  const totalBytes = changetype<Xxh3State>(state).totalBytes + length;
  if (length == 0 || totalBytes < <u64>abi.HASH_TOTAL_BYTES_MIN) return false;
  // The last byte stays out of the whole blocks and of the whole stripes: the stripe that ends with
  // it is mixed by itself, under another part of the secret.
  const blockCount = (length - 1) / BLOCK_BYTES;
  xxh3Blocks(state, secret, input, blockCount);
  const blocksEnd = blockCount * BLOCK_BYTES;
  mixStripes(state, secret, input + blocksEnd, (length - 1 - blocksEnd) / STRIPE_BYTES);
  mixStripes(state, secret + SECRET_LAST_STRIPE, input + length - STRIPE_BYTES, 1);

  const low = merge(state, secret + SECRET_LOW, totalBytes * PRIME64_1);
  const high = merge(state, secret + SECRET_HIGH, ~(totalBytes * PRIME64_2));
  store<u64>(target, bswap(high), 0);
  store<u64>(target, bswap(low), 8);
  return true;
}

/** Mixes `count` stripes into the accumulators, the first one under the secret at `secret`. */
function mixStripes(state: usize, secret: usize, input: usize, count: u32): void {
  if (ASC_FEATURE_SIMD) {
    // In locals over all stripes: the accumulators touch memory once per call.
    let accumulators01 = v128.load(state, 0);
    let accumulators23 = v128.load(state, 16);
    let accumulators45 = v128.load(state, 32);
    let accumulators67 = v128.load(state, 48);
    for (let stripe: u32 = 0; stripe < count; stripe++) {
      accumulators01 = mixPair(accumulators01, v128.load(input, 0), v128.load(secret, 0));
      accumulators23 = mixPair(accumulators23, v128.load(input, 16), v128.load(secret, 16));
      accumulators45 = mixPair(accumulators45, v128.load(input, 32), v128.load(secret, 32));
      accumulators67 = mixPair(accumulators67, v128.load(input, 48), v128.load(secret, 48));
      input += STRIPE_BYTES;
      secret += SECRET_STEP;
    }
    v128.store(state, accumulators01, 0);
    v128.store(state, accumulators23, 16);
    v128.store(state, accumulators45, 32);
    v128.store(state, accumulators67, 48);
  } else {
    for (let stripe: u32 = 0; stripe < count; stripe++) {
      for (let lane: usize = 0; lane < STRIPE_BYTES; lane += 8) {
        const word = load<u64>(input + lane);
        const key = word ^ load<u64>(secret + lane);
        // The word itself goes to the other accumulator of its pair, so that a product of 0
        // does not lose it.
        const neighbour = state + (lane ^ 8);
        store<u64>(neighbour, load<u64>(neighbour) + word);
        store<u64>(state + lane, load<u64>(state + lane) + (key & 0xffffffff) * (key >> 32));
      }
      input += STRIPE_BYTES;
      secret += SECRET_STEP;
    }
  }
}

/**
 * Two accumulators after a 16-byte piece of a stripe: each gains the product of the two halves of
 * its keyed word, and the other's word as it is.
 */
function mixPair(accumulators: v128, words: v128, secret: v128): v128 {
  const keys = v128.xor(words, secret);
  const lowHalves = i32x4.shuffle(keys, keys, 0, 2, 0, 2);
  const highHalves = i32x4.shuffle(keys, keys, 1, 3, 1, 3);
  const products = i64x2.extmul_low_i32x4_u(lowHalves, highHalves);
  const swapped = i64x2.shuffle(words, words, 1, 0);
  return i64x2.add(accumulators, i64x2.add(products, swapped));
}

/** Spreads high bits into low ones, which the multiplications of mixing never do. */
function scramble(state: usize, secret: usize): void {
  for (let lane: usize = 0; lane < STRIPE_BYTES; lane += 8) {
    const accumulator = load<u64>(state + lane);
    const key = load<u64>(secret + lane);
    store<u64>(state + lane, (accumulator ^ (accumulator >> 47) ^ key) * PRIME32_1);
  }
}

/** One half of the digest. */
function merge(state: usize, secret: usize, start: u64): u64 {
  let sum = start;
  for (let lane: usize = 0; lane < STRIPE_BYTES; lane += 16) {
    sum += multiplyFold(
      load<u64>(state + lane, 0) ^ load<u64>(secret + lane, 0),
      load<u64>(state + lane, 8) ^ load<u64>(secret + lane, 8),
    );
  }
  sum ^= sum >> 37;
  sum *= PRIME_MIX;
  return sum ^ (sum >> 32);
}

/** The two halves of the 128-bit product of `a` and `b`, combined by xor. */
function multiplyFold(a: u64, b: u64): u64 {
  const aLow = a & 0xffffffff;
  const aHigh = a >> 32;
  const bLow = b & 0xffffffff;
  const bHigh = b >> 32;
  const lowLow = aLow * bLow;
  const highLow = aHigh * bLow;
  const lowHigh = aLow * bHigh;
  // Cannot overflow: (2^32 - 1)^2 + 2 * (2^32 - 1) = 2^64 - 1.
  const cross = (lowLow >> 32) + (highLow & 0xffffffff) + lowHigh;
  const high = aHigh * bHigh + (highLow >> 32) + (cross >> 32);
  const low = (cross << 32) | (lowLow & 0xffffffff);
  return high ^ low;
}
