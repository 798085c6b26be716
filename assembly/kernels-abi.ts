// Kernels ABI: the constants that kernels.wasm shares with the host. Layer 0. Like abi.ts it
// compiles under AssemblyScript and under TypeScript, so it holds nothing but plain integer
// constants.

export const KERNELS_ABI_VERSION = 3;

/** Bytes of the state of one hash: eight accumulators, the byte count, and room to spare. */
export const HASH_STATE_BYTES = 128;
/** Bytes that hashSetup writes. */
export const HASH_SECRET_BYTES = 192;
/** The digest is canonical: big-endian, high half first. */
export const HASH_DIGEST_BYTES = 16;
/** Bytes of a block, the unit of hashBlocks. */
export const HASH_BLOCK_BYTES = 1024;
/** Bytes before the input of hashEnd that are read again if that input is shorter than this. */
export const HASH_LOOKBACK_BYTES = 64;
/** Shorter inputs have other formulas, which are not here. */
export const HASH_TOTAL_BYTES_MIN = 241;

/** Offsets into the state. */
export const HASH_OFF_ACCUMULATORS = 0; // 8 x u64
export const HASH_OFF_TOTAL_BYTES = 64; // u64, bytes consumed by hashBlocks

/** Longest code of huffmanEncode, in bits. */
export const HUFFMAN_BITS_MAX = 11;
/** Bytes that the Huffman kernels work in. */
export const HUFFMAN_SCRATCH_BYTES = 10240;
