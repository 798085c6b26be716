// Size class: the one mapping from requests to 16 sizes per doubling. Layer 1. Pure functions.
//
//   class  0 … 31   1 to 32 units, exactly
//          32 … 47  34 to 64 units in steps of 2
//          48 … 63  68 to 128 units in steps of 4, and so on
//
// A request is rounded up to its class before anything looks for a block, so that a freed block
// serves the next request of its size. The loss is at most 1/17 of the granted bytes.
import * as abi from "./abi";

/**
 * Last unit of a block that holds `requestedBytes` at `alignment`, counted from 0: the block is one
 * unit longer. The length is a multiple of the alignment; of two numbers that are one below a
 * multiple and below it, the union is the next number that is one below a multiple.
 *
 * @param requestedBytes At least 1; 0 yields the largest value.
 * @param alignment A power of two; not checked.
 */
export function sizeClassLastUnit(requestedBytes: u32, alignment: u32): u32 {
  return ((requestedBytes - 1) | (alignment - 1)) >> abi.UNIT_SHIFT;
}

/** Smallest class whose blocks reach to unit `lastUnit`, which is below 2^26. */
export function sizeClassOf(lastUnit: u32): u32 {
  const shift = 27 - clz(lastUnit | 16);
  return (shift << 4) + (lastUnit >> shift);
}

/** Units of a block of `sizeClass`: a multiple of every power of two that asked for the class. */
export function sizeClassUnits(sizeClass: u32): u32 {
  if (sizeClass < 16) return sizeClass + 1;
  return ((sizeClass & 15) + 17) << ((sizeClass >> 4) - 1);
}
