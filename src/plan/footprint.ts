// How many bytes things take that callers do not ask for: blocks, arenas, records, and what a memory keeps
// for itself. Layer: plan. Foretells what the core and the composition root do, and has no part in it; tests
// compare the two.
import * as abi from "../../assembly/abi.js";

const UNIT_BYTES = 2 ** abi.UNIT_SHIFT;
const GRANULE_BYTES = 2 ** abi.SLAB_GRANULE_SHIFT;
const SUPERBLOCK_BYTES = GRANULE_BYTES * 2 ** abi.SUPERBLOCK_ORDER;
/** Longest block that is a page of a slab. */
const PAGE_BYTES_MAX = 32_768;
const WASM_PAGE_BYTES = 65_536;
const MIB = 2 ** 20;

const ceilTo = (value: number, step: number) => Math.ceil(value / step) * step;
const floorPowerOfTwo = (value: number) => 2 ** Math.floor(Math.log2(value));

/** Bytes of the block of a tensor: 16 sizes per doubling for short ones, whole granules for others. */
export function blockBytesOf(byteLength: number): number {
  if (byteLength > PAGE_BYTES_MAX) return ceilTo(byteLength, GRANULE_BYTES);
  const units = Math.ceil(byteLength / UNIT_BYTES);
  return ceilTo(units, units <= 32 ? 1 : floorPowerOfTwo(units - 1) / 16) * UNIT_BYTES;
}

/** Bytes of arenas that one tensor takes up, what no other block fits into included. */
export function arenaShareOf(byteLength: number, arenaBytes: number): number {
  if (byteLength > arenaBytes) return ceilTo(byteLength, WASM_PAGE_BYTES);
  const blockBytes = blockBytesOf(byteLength);
  if (blockBytes > PAGE_BYTES_MAX) return arenaBytes / Math.floor(arenaBytes / blockBytes);
  return SUPERBLOCK_BYTES / Math.floor(SUPERBLOCK_BYTES / blockBytes);
}

/**
 * Length of an ordinary arena.
 *
 * @param arenaBytesMax Of the hardware profile.
 */
export function arenaBytesOf(ramBytes: number, warmBytes: number, arenaBytesMax: number): number {
  const share = (ramBytes * (15 / 16) - warmBytes) / 4;
  return Math.max(MIB, Math.min(arenaBytesMax, floorPowerOfTwo(share)));
}

/**
 * About what a memory takes of `budgets.ram` for metadata and for buffers that bytes pass through, with a
 * machine of two cores. A memory that is there knows exactly.
 *
 * @param coldTierCount Tiers below RAM that are files.
 */
export function overheadBytesOf(ramBytes: number, coldTierCount: number): number {
  const controlBytes = ceilTo(310_000 + ramBytes * 0.009_29, WASM_PAGE_BYTES);
  const chunkBytes = Math.max(WASM_PAGE_BYTES, Math.min(MIB, floorPowerOfTwo(ramBytes / 64)));
  const stagingBytes = 2 * chunkBytes;
  if (coldTierCount === 0) return controlBytes + stagingBytes;
  const storeBytes = 4 * chunkBytes * coldTierCount;
  // Codecs from 16 MiB on, a coding worker from 64 MiB on.
  const codecBytes = ramBytes < 16 * MIB ? 0 : 1.2 * MIB + chunkBytes;
  const workerBytes = ramBytes < 64 * MIB ? 0 : 2.5 * MIB;
  return controlBytes + stagingBytes + storeBytes + Math.round(codecBytes + workerBytes);
}

/** Header, digest and frame of a record with an id of ordinary length. */
const RECORD_OVERHEAD_BYTES = 640;

/**
 * Bytes of a tensor's record in a tier.
 *
 * @param storedRatio Bytes of records for each byte of tensors, as codecs have it.
 */
export function recordBytesOf(byteLength: number, storedRatio: number): number {
  return Math.ceil(byteLength * storedRatio) + RECORD_OVERHEAD_BYTES;
}
