import {
  HASH_BLOCK_BYTES,
  HASH_DIGEST_BYTES,
  HASH_SECRET_BYTES,
  HASH_STATE_BYTES,
  HASH_TOTAL_BYTES_MIN,
} from "../../../assembly/kernels-abi";
import { xxh3Begin, xxh3Blocks, xxh3End, xxh3WriteSecret } from "../../../assembly/hash/xxh3";
import { garbage } from "../support";

const INPUT_BYTES: u32 = 5000;

// The comparison with another implementation is in tests/node/kernels-hash.test.ts.
describe("xxh3", () => {
  test("writes the whole secret and nothing past it", () => {
    const secret = garbage(HASH_SECRET_BYTES + 8);
    xxh3WriteSecret(secret);
    expect<u64>(load<u64>(secret)).toBe(0xbe4ba423396cfeb8);
    expect<u64>(load<u64>(secret, HASH_SECRET_BYTES - 8)).toBe(0x7e404bbbcafbd7af);
    expect<u64>(load<u64>(secret, HASH_SECRET_BYTES)).toBe(0xa5a5a5a5a5a5a5a5);
  });

  test("does not depend on how the input is cut", () => {
    const secret = garbage(HASH_SECRET_BYTES);
    const state = garbage(HASH_STATE_BYTES);
    const whole = garbage(HASH_DIGEST_BYTES);
    const cut = garbage(HASH_DIGEST_BYTES);
    const input = garbage(INPUT_BYTES);
    for (let i: u32 = 0; i < INPUT_BYTES; i++) store<u8>(input + i, <u8>((i * i) >> 3));
    xxh3WriteSecret(secret);
    for (let length = <u32>HASH_TOTAL_BYTES_MIN; length <= INPUT_BYTES; length++) {
      xxh3Begin(state);
      expect<bool>(xxh3End(state, secret, input, length, whole)).toBe(true);
      const blockCount = (length - 1) / HASH_BLOCK_BYTES;
      xxh3Begin(state);
      xxh3Blocks(state, secret, input, blockCount);
      const consumed = blockCount * HASH_BLOCK_BYTES;
      xxh3End(state, secret, input + consumed, length - consumed, cut);
      if (memory.compare(whole, cut, HASH_DIGEST_BYTES) != 0) expect<u32>(length).toBe(0);
    }
  });

  test("refuses an input that is too short and writes nothing", () => {
    const secret = garbage(HASH_SECRET_BYTES);
    const state = garbage(HASH_STATE_BYTES);
    const target = garbage(HASH_DIGEST_BYTES);
    xxh3WriteSecret(secret);
    xxh3Begin(state);
    expect<bool>(xxh3End(state, secret, target, HASH_TOTAL_BYTES_MIN - 1, target)).toBe(false);
    expect<bool>(xxh3End(state, secret, target, 0, target)).toBe(false);
    expect<u64>(load<u64>(target)).toBe(0xa5a5a5a5a5a5a5a5);
  });
});
