import { STATUS_BAD_ARGUMENT, STATUS_OK } from "../../assembly/abi";
import { hashBegin, hashBlocks, hashEnd, hashSetup, kernelsHeapBase } from "../../assembly/kernels";
import {
  HASH_BLOCK_BYTES,
  HASH_DIGEST_BYTES,
  HASH_SECRET_BYTES,
  HASH_STATE_BYTES,
} from "../../assembly/kernels-abi";
import { garbage } from "./support";

describe("kernels", () => {
  test("STATUS_OK and STATUS_BAD_ARGUMENT: hashes a long input and refuses a short one", () => {
    const secret = garbage(HASH_SECRET_BYTES);
    const state = garbage(HASH_STATE_BYTES);
    const target = garbage(HASH_DIGEST_BYTES);
    const input = garbage(HASH_BLOCK_BYTES + 1);
    expect<u32>(kernelsHeapBase() % 64).toBe(0);
    hashSetup(secret);
    hashBegin(state);
    expect<u32>(hashEnd(state, secret, input, 240, target)).toBe(STATUS_BAD_ARGUMENT);
    hashBlocks(state, secret, input, 1);
    expect<u32>(hashEnd(state, secret, input + HASH_BLOCK_BYTES, 1, target)).toBe(STATUS_OK);
    expect<u64>(load<u64>(target)).not.toBe(0xa5a5a5a5a5a5a5a5);
  });
});
