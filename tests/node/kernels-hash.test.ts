// The integrity hash of kernels.wasm against an independent implementation, over the lengths where
// its formula branches and over every way to cut the input.
import { readFileSync } from "node:fs";
import { xxhash128 } from "hash-wasm";
import { beforeAll, describe, expect, test } from "vitest";
import {
  HASH_BLOCK_BYTES,
  HASH_DIGEST_BYTES,
  HASH_SECRET_BYTES,
  HASH_STATE_BYTES,
  HASH_TOTAL_BYTES_MIN,
} from "../../assembly/kernels-abi.js";

interface Kernels {
  kernelsHeapBase(): number;
  hashSetup(secret: number): void;
  hashBegin(state: number): void;
  hashBlocks(state: number, secret: number, input: number, blockCount: number): void;
  hashEnd(state: number, secret: number, input: number, length: number, target: number): number;
}

const INPUT_BYTES_MAX = 1 << 20;
const STATUS_OK = 0;
const STATUS_BAD_ARGUMENT = 11;

const memory = new WebAssembly.Memory({ initial: 32 });
const bytes = new Uint8Array(memory.buffer);
let kernels: Kernels;
let secret: number;
let state: number;
let target: number;
let input: number;

beforeAll(async () => {
  const binary = readFileSync(new URL("../../build/kernels.wasm", import.meta.url));
  const { instance } = await WebAssembly.instantiate(binary, { env: { memory } });
  kernels = instance.exports as unknown as Kernels;
  secret = kernels.kernelsHeapBase();
  state = secret + HASH_SECRET_BYTES;
  target = state + HASH_STATE_BYTES;
  // An odd address: inputs need no alignment.
  input = target + HASH_DIGEST_BYTES + 1;
  kernels.hashSetup(secret);

  let random = 0x9e3779b9;
  for (let i = 0; i < INPUT_BYTES_MAX; i++) {
    random = (Math.imul(random, 1664525) + 1013904223) | 0;
    bytes[input + i] = random >>> 24;
  }
});

/**
 * Hex digest of the first `length` input bytes, `chunkBlocks` blocks per call; 0 leaves all to the
 * end.
 */
function digest(length: number, chunkBlocks: number): string {
  kernels.hashBegin(state);
  let offset = 0;
  const chunkBytes = chunkBlocks * HASH_BLOCK_BYTES;
  while (chunkBytes > 0 && offset + chunkBytes < length) {
    kernels.hashBlocks(state, secret, input + offset, chunkBlocks);
    offset += chunkBytes;
  }
  expect(kernels.hashEnd(state, secret, input + offset, length - offset, target)).toBe(STATUS_OK);
  return Buffer.from(bytes.subarray(target, target + HASH_DIGEST_BYTES)).toString("hex");
}

async function expected(length: number): Promise<string> {
  return xxhash128(bytes.slice(input, input + length));
}

describe("kernels: XXH3, 128 bits", () => {
  test("equals hash-wasm for every length from 241 to 5000, whole and block by block", async () => {
    for (let length = HASH_TOTAL_BYTES_MIN; length <= 5000; length++) {
      const wanted = await expected(length);
      expect(digest(length, 0), `whole, ${length} bytes`).toBe(wanted);
      expect(digest(length, 1), `by blocks, ${length} bytes`).toBe(wanted);
    }
  });

  test("equals hash-wasm around 64 KiB and at 1 MiB, in chunks of 1, 7 and 64 blocks", async () => {
    const lengths = [INPUT_BYTES_MAX - 1, INPUT_BYTES_MAX];
    for (let delta = -65; delta <= 65; delta++) lengths.push(65536 + delta);
    for (const length of lengths) {
      const wanted = await expected(length);
      for (const chunkBlocks of [0, 1, 7, 64]) {
        expect(digest(length, chunkBlocks), `${length} by ${chunkBlocks}`).toBe(wanted);
      }
    }
  });

  test("refuses an input of less than 241 bytes and an empty end", () => {
    kernels.hashBegin(state);
    expect(kernels.hashEnd(state, secret, input, HASH_TOTAL_BYTES_MIN - 1, target)).toBe(
      STATUS_BAD_ARGUMENT,
    );
    kernels.hashBlocks(state, secret, input, 1);
    expect(kernels.hashEnd(state, secret, input + HASH_BLOCK_BYTES, 0, target)).toBe(
      STATUS_BAD_ARGUMENT,
    );
  });

  test("changes when any one byte changes", () => {
    const length = 2 * HASH_BLOCK_BYTES + 100;
    const before = digest(length, 1);
    for (let i = 0; i < length; i += 37) {
      bytes[input + i]! ^= 1;
      expect(digest(length, 1), `byte ${i}`).not.toBe(before);
      bytes[input + i]! ^= 1;
    }
    expect(digest(length, 1)).toBe(before);
  });
});
