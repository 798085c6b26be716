// What the specs share: a control plane in heap memory, and a seeded generator. Memory is filled
// with garbage first, because the core may not rely on zeros.
import * as abi from "../../assembly/abi";
import { arenaMetadataBytes, arenaOpen, controlBytes, controlInit } from "../../assembly/index";

export const GRANULE_SHIFT: u32 = 6;
export const GRANULE_BYTES: u32 = 64;

/** `bytes` of garbage at an address that the core accepts. Never given back. */
export function garbage(bytes: u32): u32 {
  const address = (<u32>heap.alloc(bytes + 128) + 63) & ~63;
  memory.fill(address, 0xa5, bytes);
  return address;
}

/** A control plane with these rows and a region for `capacity` granules once. */
export function plane(slotCapacity: u32, arenaCapacity: u32, capacity: u32): u32 {
  const bytes = controlBytes(
    slotCapacity,
    arenaCapacity,
    arenaMetadataBytes(capacity, GRANULE_SHIFT),
  );
  assert(bytes != 0);
  const base = garbage(bytes);
  assert(controlInit(base, bytes, slotCapacity, arenaCapacity) == abi.STATUS_OK);
  return base;
}

/** A control plane whose arena 1, of pool 0, has `capacity` granules of 64 bytes. */
export function planeWithArena(slotCapacity: u32, capacity: u32): u32 {
  const base = plane(slotCapacity, 4, capacity);
  assert(arenaOpen(base, 0, capacity, GRANULE_SHIFT) == 1);
  return base;
}

/** Units of the smallest slab arena, 1 MiB. */
export const SLAB_UNITS: u32 = abi.SLAB_ARENA_UNITS_MIN;

/** A control plane whose arena 1, of pool 0, is a slab arena of `superblocks` superblocks. */
export function planeWithSlabs(slotCapacity: u32, superblocks: u32): u32 {
  return planeWithArena(slotCapacity, superblocks * abi.SUPERBLOCK_UNITS);
}

export function superblockAddress(base: u32, index: u32): u32 {
  const superblocks = load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_SUPERBLOCKS);
  return base + superblocks + index * abi.SUPERBLOCK_BYTES;
}

export function cacheAddress(base: u32, sizeClass: u32): u32 {
  return (
    base + load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_CACHES) + sizeClass * abi.CACHE_BYTES
  );
}

export function stateOf(base: u32, slot: u32): u32 {
  return load<u8>(hotAddress(base, slot), abi.HOT_OFF_STATE);
}

export function sizingOf(base: u32, slot: u32): u32 {
  return load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING);
}

/** Status of the last refusal. */
export function status(base: u32): u32 {
  return load<u32>(base, abi.CONTROL_OFF_STATUS);
}

export function hotAddress(base: u32, slot: u32): u32 {
  return base + load<u32>(base, abi.CONTROL_OFF_HOT) + slot * abi.HOT_BYTES;
}

export function coldAddress(base: u32, slot: u32): u32 {
  return base + load<u32>(base, abi.CONTROL_OFF_COLD) + slot * abi.COLD_BYTES;
}

export function arenaAddress(base: u32, arena: u32): u32 {
  return base + load<u32>(base, abi.CONTROL_OFF_ARENAS) + arena * abi.ARENA_BYTES;
}

export function liveCountOf(base: u32, arena: u32): u32 {
  return <u32>(load<u64>(arenaAddress(base, arena), abi.ARENA_OFF_USAGE) >> abi.USAGE_COUNT_SHIFT);
}

export function treeAddress(base: u32, arena: u32): u32 {
  return base + load<u32>(arenaAddress(base, arena), abi.ARENA_OFF_TREE);
}

export function poolAddress(base: u32, pool: u32): u32 {
  return base + load<u32>(base, abi.CONTROL_OFF_POOLS) + pool * abi.POOL_BYTES;
}

export function generationOf(base: u32, slot: u32): u32 {
  return load<u32>(hotAddress(base, slot), abi.HOT_OFF_GENERATION);
}

export function offsetOf(base: u32, slot: u32): u32 {
  return load<u32>(hotAddress(base, slot), abi.HOT_OFF_OFFSET);
}

export function epochOf(base: u32, slot: u32): u32 {
  return load<u32>(coldAddress(base, slot), abi.COLD_OFF_EPOCH);
}

/** xorshift32: a generator whose whole state is its seed, which is never 0. */
export class Random {
  constructor(private state: u32) {}

  /** A number below `bound`, which is at least 1. */
  below(bound: u32): u32 {
    let state = this.state;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    this.state = state;
    return state % bound;
  }
}
