// How much metadata arenas need. Layer: core.
import * as abi from "../../assembly/abi.js";

/** Bytes of metadata that one arena needs at most whatever its length. */
const ARENA_FIXED_BYTES = 12_288;
/** Bytes of metadata of a superblock: its row, its page map, its bits in tree and partial sets. */
const SUPERBLOCK_METADATA_BYTES = 600;

/**
 * Upper bound on the bytes of metadata of arenas of `capacityBytes` together. A plain arena has two
 * bits a granule and a 64th for the summaries; one that is cut into slabs has less.
 *
 * @param arenaBytes Length of the shortest of them.
 */
export function arenaMetadataBytesMax(
  capacityBytes: number,
  granuleBytes: number,
  arenaBytes: number,
): number {
  const unitBytes = 2 ** abi.UNIT_SHIFT;
  const slabArenaBytes = abi.SLAB_ARENA_UNITS_MIN * unitBytes;
  const fixedBytes = Math.ceil(capacityBytes / arenaBytes) * ARENA_FIXED_BYTES;
  if (granuleBytes !== unitBytes || arenaBytes < slabArenaBytes) {
    return Math.ceil((capacityBytes / granuleBytes) * 0.2541) + fixedBytes;
  }
  const superblockBytes = abi.SUPERBLOCK_UNITS * unitBytes;
  return Math.ceil(capacityBytes / superblockBytes) * SUPERBLOCK_METADATA_BYTES + fixedBytes;
}
