// Batch: frees many blocks in one call. Layer 8. The host writes the handles, one after the other,
// to a place in the control memory that is no part of the control plane.
//
//   byte 0      4                     8
//        ┌──────┬─────────────────────┐
//        │ slot │ generation / status │   one entry per handle; the status replaces the generation
//        └──────┴─────────────────────┘
import * as abi from "./abi";
import { arenaFree } from "./arena";

@unmanaged
export class BatchEntry {
  slot: u32;
  generation: u32;
}

if (offsetof<BatchEntry>("slot") != abi.BATCH_OFF_SLOT) ERROR("BatchEntry.slot");
if (offsetof<BatchEntry>("generation") != abi.BATCH_OFF_GENERATION) ERROR("BatchEntry.generation");
if (offsetof<BatchEntry>() != abi.BATCH_ENTRY_BYTES) ERROR("BatchEntry size");

/**
 * Frees the blocks of `count` handles and writes the status of each. A handle that is refused does
 * not stop the rest.
 *
 * @param address Of the first entry; that the entries are memory of the caller is not checked.
 * @returns How many were refused. Cost: one free each.
 */
export function batchFree(base: usize, address: usize, count: u32): u32 {
  let refusedCount: u32 = 0;
  for (let index: u32 = 0; index < count; index++) {
    const entry = changetype<BatchEntry>(address + index * abi.BATCH_ENTRY_BYTES);
    const status = arenaFree(base, entry.slot, entry.generation);
    entry.generation = status;
    if (status != abi.STATUS_OK) refusedCount += 1;
  }
  return refusedCount;
}
