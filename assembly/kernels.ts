// Kernels: the exports of kernels.wasm, the data plane's module. It works on bytes of the memory it
// is instantiated on and keeps no state but what lies at the addresses it is given. Nobody but the
// caller knows what those addresses hold: they are not checked.
//
// One hash is begin, blocks any number of times, end. No address need be aligned. The kernels of codecs and
// layouts are described where they are.
import { STATUS_BAD_ARGUMENT, STATUS_OK } from "./abi";
import { bitsAlignUp } from "./bits";
import { xxh3Begin, xxh3Blocks, xxh3End, xxh3WriteSecret } from "./hash/xxh3";
// A debug build replaces `abort` by a function of this file, which must be part of the program.
import "./panic";

export { attendScoresF32, attendSumF32 } from "./codec/attend";
export { attendScoresChan } from "./codec/attend-chan";
export { attendSumLm4 } from "./codec/attend-lm";
export { attendScoresQ8 } from "./codec/attend-q8";
export { q4Decode, q4Encode, q4EncodeExact } from "./codec/block";
export { q8Decode, q8Encode, q8EncodeExact } from "./codec/block";
export { chanDecode, chanEncode } from "./codec/chan";
export { eigenSymmetric } from "./codec/eigen";
export { bf16Decode, bf16Encode, f16Decode, f16Encode } from "./codec/half";
export { huffmanCount, huffmanDecode, huffmanEncode, huffmanLengths } from "./codec/huffman";
export { lmDecode, lmEncode } from "./codec/lm";
export { matrixMirror, matrixMoments, matrixMultiply } from "./codec/matrix";
export { matrixOrthonormalise, matrixTranspose } from "./codec/matrix";
export { measureError, measureMagnitude, measureMagnitudes } from "./codec/measure";
export { measurePage, scaleValues } from "./codec/measure";
export { planeJoin2, planeJoin4, planeSplit2, planeSplit4 } from "./codec/plane";
export { hadamard } from "./codec/rotate";
export { sparseCount, sparseDecode, sparseEncode } from "./codec/sparse";
export { axesSwap } from "./layout/axes";
export { rowsCopy } from "./layout/rows";

/** Lowest address that the host may use. What is below belongs to the module. */
export function kernelsHeapBase(): u32 {
  return <u32>bitsAlignUp(__heap_base);
}

/** Writes the HASH_SECRET_BYTES that the other hash kernels read. Once per memory. */
export function hashSetup(secret: usize): void {
  xxh3WriteSecret(secret);
}

/** Starts a hash in the HASH_STATE_BYTES at `state`. */
export function hashBegin(state: usize): void {
  xxh3Begin(state);
}

/**
 * Consumes `blockCount` * HASH_BLOCK_BYTES bytes from `input`. The input does not end with them: at
 * least one byte is left for hashEnd.
 */
export function hashBlocks(state: usize, secret: usize, input: usize, blockCount: u32): void {
  xxh3Blocks(state, secret, input, blockCount);
}

/**
 * Consumes the last `length` bytes, at least 1, and writes the HASH_DIGEST_BYTES at `target`. If
 * `length` is less than HASH_LOOKBACK_BYTES, that many bytes before `input` are the previous bytes
 * of the whole input. The state is used up.
 *
 * @returns STATUS_OK, or STATUS_BAD_ARGUMENT if the whole input is shorter than
 * HASH_TOTAL_BYTES_MIN.
 */
export function hashEnd(
  state: usize,
  secret: usize,
  input: usize,
  length: u32,
  target: usize,
): u32 {
  return xxh3End(state, secret, input, length, target) ? STATUS_OK : STATUS_BAD_ARGUMENT;
}
