// Sparse: a bitmap of what is kept, and the kept values in order. A leaf.
//
//   bitmap  bit i of the whole, from the lowest bit of each byte on, says that value i is kept
//   values  the kept f32, next to each other: the caller stores them as f16 or q8
//
// What is kept is chosen by magnitude, compared as bits.

/**
 * Writes the bitmap of the values whose magnitude, as bits, is at least `thresholdBits`, and those
 * values.
 *
 * @param count A multiple of 8. @returns How many are kept.
 */
export function sparseEncode(
  source: usize,
  count: u32,
  thresholdBits: u32,
  bitmap: usize,
  values: usize,
): u32 {
  let kept: u32 = 0;
  for (let start: u32 = 0; start < count; start += 8) {
    let byte: u32 = 0;
    for (let index: u32 = 0; index < 8; index++) {
      const bits = load<u32>(source + ((start + index) << 2));
      // Written always, counted only if kept: no branch to mispredict.
      store<u32>(values + (kept << 2), bits);
      const isKept = <u32>((bits & 0x7fffffff) >= thresholdBits);
      byte |= isKept << index;
      kept += isKept;
    }
    store<u8>(bitmap + (start >> 3), <u8>byte);
  }
  return kept;
}

/** Reverses sparseEncode; what was not kept is 0. Reads no more than the bitmap counts. */
export function sparseDecode(bitmap: usize, values: usize, target: usize, count: u32): void {
  for (let start: u32 = 0; start < count; start += 8) {
    const byte = <u32>load<u8>(bitmap + (start >> 3));
    for (let index: u32 = 0; index < 8; index++) {
      const isKept = (byte >> index) & 1;
      store<u32>(target + ((start + index) << 2), isKept ? load<u32>(values) : 0);
      values += isKept << 2;
    }
  }
}

/** Bits set in `byteCount` bytes, a multiple of 8. */
export function sparseCount(bitmap: usize, byteCount: u32): u32 {
  let kept: u32 = 0;
  for (let offset: u32 = 0; offset < byteCount; offset += 8) {
    kept += <u32>popcnt<u64>(load<u64>(bitmap + offset));
  }
  return kept;
}
