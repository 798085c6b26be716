// Binding: joins a claimed block with a slot and parts them again, and keeps the claimed bytes.
// Layer 6. Whether the block is live or cached is the caller's business.
//
// INV-ARENA-1  claimed = sum of the granted bytes of the arena's bound slots.
import * as abi from "./abi";
import { arenaRow } from "./arena-row";
import { blockBytes, blockRelease } from "./block";
import { slotsAcquire, slotsHot, slotsRecycle, slotsUnbind } from "./slots";
import { statsClaim, statsRelease } from "./stats";

/**
 * Binds a slot to the block at `offset` that was claimed for it.
 *
 * @param offset In the slot units of the arena.
 * @param requested Bytes; 0 of a block that is cached.
 * @param state SLOT_STATE_LIVE or SLOT_STATE_CACHED.
 * @returns The slot. There is room for one; not checked in a release build.
 */
export function bindingAdd(
  base: usize,
  arena: u32,
  offset: u32,
  sizing: u32,
  requested: u32,
  state: u32,
): u32 {
  const row = arenaRow(base, arena);
  const granted = blockBytes(row, sizing, requested);
  row.claimed += granted;
  statsClaim(base, row.pool, granted);
  return slotsAcquire(base, arena, offset, sizing, requested, state);
}

/**
 * Gives the block of a bound slot back, and the slot: of a live one every handle is stale afterwards.
 *
 * @param requested Bytes; any number of a block that is cached.
 */
export function bindingRemove(base: usize, slot: u32, requested: u32): void {
  const hot = slotsHot(base, slot);
  const row = arenaRow(base, hot.arena);
  const granted = blockBytes(row, hot.sizing, requested);
  row.claimed -= granted;
  statsRelease(base, row.pool, granted);
  blockRelease(base, row, hot.sizing, requested, hot.offset);
  if (hot.state == abi.SLOT_STATE_CACHED) slotsUnbind(base, slot);
  else slotsRecycle(base, slot);
}
