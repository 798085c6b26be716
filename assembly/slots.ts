// Slots: the table of block owners, one for all arenas. Layer 2. A caller holds slot and
// generation; a block may move under them. The table does not know trees or counters; arena.ts
// keeps them in step.
//
// A slot has two rows in two tables, so that the fields of the hot path share few cache lines.
//
//   hot  byte 0        4                  8            12       13      14     16
//             ┌────────┬──────────────────┬────────────┬────────┬───────┬───────┐
//             │ offset │ requested / next │ generation │ sizing │ state │ arena │
//             └────────┴──────────────────┴────────────┴────────┴───────┴───────┘
//                                         └───────────── tenure ─────────────┘
//   cold byte 0       4      6      8         12
//             ┌───────┬──────┬──────┬─────────┐
//             │ epoch │ pins │ lane │ scratch │
//             └───────┴──────┴──────┴─────────┘
//
//   live     all but `pins`, with `requested`
//   pinned   all, with `requested`: a live slot that has pins
//   cached   all but `pins`, with `next`; generation is the next one to hand out
//   free     state, generation (the next one to hand out), epoch, next
//   retired  state, generation (GENERATION_MAX)
//
// A slot is live whether it is pinned or not: that pins are a state keeps the cold row out of the
// short way. Live and cached slots are bound to a block. `scratch` is an entry of the array of sorted-slots.ts
// and does not belong to the slot of its row. Rows from slotFresh on were never written and hold
// anything: a large table costs no resident memory before it is used.
//
// The table is the one truth: recover.ts rebuilds everything else from it. So it is never wrong
// between two stores. What a tenure promises is written before it, the tenure changes in one store,
// and a row is written before slotFresh covers it.
//
// INV-SLOT-1  free + bound + retired + never used + row 0 = slotCapacity, as the rows' states say.
// INV-SLOT-2  A bound block lies in an open arena where its sizing may lie (or owns the arena
//             whole); 1 <= requested <= granted if live, 1 to PIN_COUNT_MAX pins if pinned; its
//             generation and epoch are handed out ones.
// INV-SLOT-3  The free list visits each free slot once, and no other.
import * as abi from "./abi";
import { controlAt } from "./control";
import { lockLane } from "./lock";

@unmanaged
export class HotRow {
  /** In the slot units of the arena, from its start. */
  offset: u32;
  /** Bytes if live; the next slot of its list, or 0, if free or cached. */
  requested: u32;
  generation: u32;
  sizing: u8;
  state: u8;
  arena: u16;
}

if (offsetof<HotRow>("offset") != abi.HOT_OFF_OFFSET) ERROR("HotRow.offset");
if (offsetof<HotRow>("generation") != abi.HOT_OFF_GENERATION) ERROR("HotRow.generation");
if (offsetof<HotRow>("requested") != abi.HOT_OFF_REQUESTED) ERROR("HotRow.requested");
if (offsetof<HotRow>("sizing") != abi.HOT_OFF_SIZING) ERROR("HotRow.sizing");
if (offsetof<HotRow>("state") != abi.HOT_OFF_STATE) ERROR("HotRow.state");
if (offsetof<HotRow>("arena") != abi.HOT_OFF_ARENA) ERROR("HotRow.arena");
if (offsetof<HotRow>() != abi.HOT_BYTES) ERROR("HotRow size");
if (abi.ARENA_CAPACITY_MAX > 0x10000) ERROR("every arena fits HotRow.arena");

@unmanaged
export class ColdRow {
  epoch: u32;
  pins: u16;
  lane: u16;
  scratch: u32;
}

if (offsetof<ColdRow>("epoch") != abi.COLD_OFF_EPOCH) ERROR("ColdRow.epoch");
if (offsetof<ColdRow>("pins") != abi.COLD_OFF_PINS) ERROR("ColdRow.pins");
if (offsetof<ColdRow>("lane") != abi.COLD_OFF_LANE) ERROR("ColdRow.lane");
if (offsetof<ColdRow>("scratch") != abi.COLD_OFF_SCRATCH) ERROR("ColdRow.scratch");
if (offsetof<ColdRow>() != abi.COLD_BYTES) ERROR("ColdRow size");

const GENERATION_FIRST: u32 = 1;
const GENERATION_RETIRED: u32 = <u32>abi.GENERATION_MAX;

/** Hot row of `slot`, which is below slotCapacity; not checked. */
export function slotsHot(base: usize, slot: u32): HotRow {
  return changetype<HotRow>(base + controlAt(base).hot + slot * abi.HOT_BYTES);
}

/** Cold row of `slot`, which is below slotCapacity; not checked. */
export function slotsCold(base: usize, slot: u32): ColdRow {
  return changetype<ColdRow>(base + controlAt(base).cold + slot * abi.COLD_BYTES);
}

/** Sizing, state and arena as the upper half of a tenure. */
export function slotsStateWord(sizing: u32, state: u32, arena: u32): u32 {
  return sizing | (state << 8) | (arena << 16);
}

/**
 * Sizing, state and arena in one word: a free that follows reads them as one, and a load that spans
 * several younger stores has to wait for them.
 */
export function slotsSetState(hot: HotRow, sizing: u32, state: u32, arena: u32): void {
  const word = slotsStateWord(sizing, state, arena);
  store<u32>(changetype<usize>(hot), word, abi.HOT_OFF_SIZING);
}

/** Generation, sizing, state and arena, in one store. */
export function slotsSetTenure(
  hot: HotRow,
  generation: u32,
  sizing: u32,
  state: u32,
  arena: u32,
): void {
  const tenure = <u64>generation | ((<u64>slotsStateWord(sizing, state, arena)) << 32);
  store<u64>(changetype<usize>(hot), tenure, abi.HOT_OFF_GENERATION);
}

/**
 * Gives a live slot without pins another length. Between the two stores, too, the block is as long
 * as what is requested.
 */
export function slotsSetLength(hot: HotRow, requested: u32, sizing: u32): void {
  const isShorter = requested < hot.requested;
  if (isShorter) hot.requested = requested;
  slotsSetState(hot, sizing, abi.SLOT_STATE_LIVE, hot.arena);
  if (!isShorter) hot.requested = requested;
}

/** Whether a slot belongs to somebody, pinned or not. */
export function slotsIsLive(hot: HotRow): bool {
  return hot.state == abi.SLOT_STATE_LIVE || hot.state == abi.SLOT_STATE_PINNED;
}

/** Lane that owns the block of a live slot; 0 if nobody does. */
export function slotsLane(base: usize, slot: u32): u32 {
  return slotsCold(base, slot).lane;
}

export function slotsSetLane(base: usize, slot: u32, lane: u32): void {
  slotsCold(base, slot).lane = <u16>lane;
}

/** Whether a slot is bound to a block: live, or waiting in a class cache. */
export function slotsIsBound(hot: HotRow): bool {
  return slotsIsLive(hot) || hot.state == abi.SLOT_STATE_CACHED;
}

/** Whether slotsAcquire will find a slot. */
export function slotsHasRoom(base: usize): bool {
  const control = controlAt(base);
  return control.slotFreeHead != 0 || control.slotFresh < control.slotCapacity;
}

/** Slots that slotsAcquire will find, one after the other. */
export function slotsRoom(base: usize): u32 {
  const control = controlAt(base);
  return control.slotFreeCount + (control.slotCapacity - control.slotFresh);
}

/**
 * Binds a slot to a block and changes its epoch. The slot freed last is reused first.
 *
 * @param offset In the slot units of the arena.
 * @param requested Bytes; or the next slot, of a block that is cached.
 * @param state SLOT_STATE_LIVE or SLOT_STATE_CACHED.
 * @returns The slot. There is room for one; not checked in a release build.
 */
export function slotsAcquire(
  base: usize,
  arena: u32,
  offset: u32,
  sizing: u32,
  requested: u32,
  state: u32,
): u32 {
  assert(slotsHasRoom(base));
  const control = controlAt(base);
  let slot = control.slotFreeHead;
  if (slot != 0) {
    control.slotFreeHead = slotsHot(base, slot).requested;
    control.slotFreeCount -= 1;
  } else {
    slot = control.slotFresh;
    slotsSetTenure(slotsHot(base, slot), GENERATION_FIRST, 0, abi.SLOT_STATE_FREE, 0);
    slotsCold(base, slot).epoch = 0;
    control.slotFresh = slot + 1;
  }
  control.slotBoundCount += 1;

  const hot = slotsHot(base, slot);
  hot.requested = requested;
  slotsSetLane(base, slot, state == abi.SLOT_STATE_LIVE ? lockLane() : 0);
  slotsRebind(base, slot, offset);
  slotsSetState(hot, sizing, state, arena);
  return slot;
}

/** Whether freeing a slot of `generation` retires it: the next one would be GENERATION_MAX. */
export function slotsIsSpent(generation: u32): bool {
  return generation + 1 >= GENERATION_RETIRED;
}

/**
 * Takes a live slot out of use and makes every handle on it stale. A slot whose generations are
 * used up is retired for good, because a second round of the same numbers would revive old handles.
 */
export function slotsRecycle(base: usize, slot: u32): void {
  const hot = slotsHot(base, slot);
  assert(hot.state == abi.SLOT_STATE_LIVE);
  unbind(base, slot, hot.generation + 1);
}

/** Takes a slot out of use whose handles are stale already. */
export function slotsUnbind(base: usize, slot: u32): void {
  unbind(base, slot, slotsHot(base, slot).generation);
}

/**
 * Puts a slot where its state says, in lists and counts that are being built anew: a live one gets
 * another epoch, because its block may have moved; a cached one becomes free. False for any other
 * state, and for a live slot with a generation that none has.
 */
export function slotsRenew(base: usize, slot: u32): bool {
  const control = controlAt(base);
  const hot = slotsHot(base, slot);
  const state = <u32>hot.state;
  if (slotsIsLive(hot)) {
    if (hot.generation == 0 || hot.generation == GENERATION_RETIRED) return false;
    slotsRebind(base, slot, hot.offset);
    control.slotBoundCount += 1;
    return true;
  }
  if (state != abi.SLOT_STATE_RETIRED && state != abi.SLOT_STATE_FREE) {
    if (state != abi.SLOT_STATE_CACHED) return false;
  }
  control.slotBoundCount += 1;
  unbind(base, slot, hot.generation);
  return true;
}

function unbind(base: usize, slot: u32, generation: u32): void {
  const control = controlAt(base);
  const hot = slotsHot(base, slot);
  control.slotBoundCount -= 1;
  if (generation == GENERATION_RETIRED) {
    slotsSetTenure(hot, generation, 0, abi.SLOT_STATE_RETIRED, 0);
    control.slotRetiredCount += 1;
    return;
  }
  slotsSetTenure(hot, generation, 0, abi.SLOT_STATE_FREE, 0);
  hot.requested = control.slotFreeHead;
  control.slotFreeHead = slot;
  control.slotFreeCount += 1;
}

/** Points `slot` at `offset`, in the slot units of its arena, and changes its epoch, which is never 0. */
export function slotsRebind(base: usize, slot: u32, offset: u32): void {
  slotsHot(base, slot).offset = offset;
  const cold = slotsCold(base, slot);
  cold.epoch += 1;
  if (cold.epoch == 0) cold.epoch = 1;
}

/**
 * Exchanges the blocks of two live slots without pins and changes both epochs. Neither is live until
 * its row is whole again.
 */
export function slotsExchange(base: usize, slot: u32, other: u32): void {
  const hot = slotsHot(base, slot);
  const otherHot = slotsHot(base, other);
  const sizing = <u32>hot.sizing;
  const otherSizing = <u32>otherHot.sizing;
  const arena = <u32>hot.arena;
  const otherArena = <u32>otherHot.arena;
  slotsSetState(otherHot, otherSizing, abi.SLOT_STATE_FREE, otherArena);
  slotsSetState(hot, sizing, abi.SLOT_STATE_FREE, arena);
  const offset = hot.offset;
  const requested = hot.requested;
  hot.requested = otherHot.requested;
  otherHot.requested = requested;
  slotsRebind(base, slot, otherHot.offset);
  slotsRebind(base, other, offset);
  slotsSetState(hot, otherSizing, abi.SLOT_STATE_LIVE, otherArena);
  slotsSetState(otherHot, sizing, abi.SLOT_STATE_LIVE, arena);
}

/**
 * Whether a handle names a live block. Changes nothing.
 *
 * @returns STATUS_OK; STATUS_FOREIGN if the slot was never handed out; STATUS_STALE if it was
 * freed; STATUS_NOT_OWNER if the block is not one of this lane.
 */
export function slotsVerify(base: usize, slot: u32, generation: u32): u32 {
  if (slot == 0 || slot >= controlAt(base).slotFresh) return abi.STATUS_FOREIGN;
  const hot = slotsHot(base, slot);
  if (!slotsIsLive(hot) || hot.generation != generation) return abi.STATUS_STALE;
  if (ASC_FEATURE_THREADS) {
    if (slotsLane(base, slot) != lockLane()) return abi.STATUS_NOT_OWNER;
  }
  return abi.STATUS_OK;
}
