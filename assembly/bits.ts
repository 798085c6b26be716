// Bits: integer arithmetic that more than one module needs. Layer 1. Pure functions of their
// arguments; nothing here touches memory.

/** Tables, trees and extents of the control memory start at multiples of this. */
export const CONTROL_ALIGNMENT: u32 = 64;

/** Whether `value` is a power of two. 0 is not. */
export function bitsIsPowerOfTwo(value: u32): bool {
  return popcnt(value) == 1;
}

/** Position of the highest set bit. `value` is at least 1. */
export function bitsFloorLog2(value: u32): u32 {
  return 31 - clz(value);
}

/** Exponent of the smallest power of two that is not below `value`, which is at least 1. */
export function bitsCeilLog2(value: u32): u32 {
  return 32 - clz(value - 1);
}

/**
 * Order of the smallest block that holds `requestedBytes` and starts at a multiple of `alignment`
 * bytes. This is the one mapping from sizes to orders.
 *
 * The order is the bit length of the last granule index. Of two indexes the longer one decides, and
 * the bit length of their union is that of the longer: one `clz` answers for size and alignment.
 *
 * @param requestedBytes At least 1; not checked.
 * @param alignment A power of two; not checked.
 * @param granuleShift log2 of the granule's bytes.
 */
export function bitsOrderOf(requestedBytes: u32, alignment: u32, granuleShift: u32): u32 {
  return 32 - clz(((requestedBytes - 1) | (alignment - 1)) >> granuleShift);
}

/** `bytes` rounded up to CONTROL_ALIGNMENT. In 64 bits, so that no sum a caller forms overflows. */
export function bitsAlignUp(bytes: u64): u64 {
  return (bytes + (CONTROL_ALIGNMENT - 1)) & ~(<u64>(CONTROL_ALIGNMENT - 1));
}
