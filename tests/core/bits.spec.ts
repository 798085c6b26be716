import { GRANULE_SHIFT_MAX, GRANULE_SHIFT_MIN } from "../../assembly/abi";
import {
  bitsAlignUp,
  bitsCeilLog2,
  bitsFloorLog2,
  bitsIsPowerOfTwo,
  bitsOrderOf,
} from "../../assembly/bits";

/** The definition, step by step: the first order whose block holds the bytes at the alignment. */
function naiveOrder(requestedBytes: u64, alignment: u64, granuleShift: u32): u32 {
  let order: u32 = 0;
  while (
    (<u64>1) << (order + granuleShift) < requestedBytes ||
    (<u64>1) << (order + granuleShift) < alignment
  ) {
    order += 1;
  }
  return order;
}

describe("bits", () => {
  test("rounds logarithms up to the next power of two", () => {
    for (let value: u32 = 1; value <= 4096; value++) {
      const log2 = bitsCeilLog2(value);
      const isEnough = (<u32>1) << log2 >= value;
      const isLeast = value == 1 || (<u32>1) << (log2 - 1) < value;
      expect<bool>(isEnough && isLeast).toBe(true);
    }
  });

  test("maps sizes to orders exactly at, before and after every power of two", () => {
    for (let shift = <u32>GRANULE_SHIFT_MIN; shift <= <u32>GRANULE_SHIFT_MAX; shift++) {
      for (let power: u32 = 0; power < 32; power++) {
        for (let delta: i64 = -1; delta <= 1; delta++) {
          const bytes = ((<i64>1) << power) + delta;
          if (bytes < 1) continue;
          const order = bitsOrderOf(<u32>bytes, 1, shift);
          expect<u32>(order).toBe(naiveOrder(bytes, 1, shift));
        }
      }
    }
  });

  test("maps every pair of size boundary and alignment to the larger of their orders", () => {
    for (let power: u32 = 0; power < 32; power++) {
      for (let alignment: u32 = 0; alignment < 32; alignment++) {
        const bytes = ((<u32>1) << power) + (power < 31 ? 1 : 0);
        const order = bitsOrderOf(bytes, (<u32>1) << alignment, 6);
        expect<u32>(order).toBe(naiveOrder(bytes, (<u64>1) << alignment, 6));
      }
    }
  });

  test("maps each size of 1 to 5,000 bytes as defined", () => {
    for (let bytes: u32 = 1; bytes <= 5000; bytes++) {
      if (bitsOrderOf(bytes, 1, 4) != naiveOrder(bytes, 1, 4)) expect<u32>(bytes).toBe(0);
    }
    expect<u32>(bitsOrderOf(u32.MAX_VALUE, 1, 4)).toBe(28);
  });

  test("knows powers of two, of which 0 is none", () => {
    expect<bool>(bitsIsPowerOfTwo(0)).toBe(false);
    expect<bool>(bitsIsPowerOfTwo(1)).toBe(true);
    expect<bool>(bitsIsPowerOfTwo(0x80000000)).toBe(true);
    expect<bool>(bitsIsPowerOfTwo(0x80000001)).toBe(false);
  });

  test("finds the highest bit and rounds up without overflow", () => {
    expect<u32>(bitsFloorLog2(1)).toBe(0);
    expect<u32>(bitsFloorLog2(u32.MAX_VALUE)).toBe(31);
    expect<u64>(bitsAlignUp(0)).toBe(0);
    expect<u64>(bitsAlignUp(1)).toBe(64);
    expect<u64>(bitsAlignUp(64)).toBe(64);
    expect<u64>(bitsAlignUp(u32.MAX_VALUE)).toBe(0x100000000);
  });
});
