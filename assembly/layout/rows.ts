// Rows: copies of many rows of equal length between places a stride apart: the heads of a page to a tensor
// whose heads lie further apart, and back. A leaf. Source and target never overlap.

/** From this length on the copying instruction is faster than loads and stores. */
const LONG_BYTES: u32 = 1024;

/** Copies `count` rows of `rowBytes` bytes. Strides are bytes, at least `rowBytes` in the target. */
export function rowsCopy(
  source: usize,
  sourceStride: u32,
  target: usize,
  targetStride: u32,
  rowBytes: u32,
  count: u32,
): void {
  if (rowBytes >= LONG_BYTES) {
    for (let row: u32 = 0; row < count; row++) {
      memory.copy(target, source, rowBytes);
      source += sourceStride;
      target += targetStride;
    }
    return;
  }
  if (ASC_FEATURE_SIMD) {
    if (rowBytes >= 16) {
      // The last load reaches back over bytes that are copied already.
      const last = rowBytes - 16;
      for (let row: u32 = 0; row < count; row++) {
        for (let at: u32 = 0; at < last; at += 16) v128.store(target + at, v128.load(source + at));
        v128.store(target + last, v128.load(source + last));
        source += sourceStride;
        target += targetStride;
      }
      return;
    }
  }
  if (rowBytes >= 8) {
    const last = rowBytes - 8;
    for (let row: u32 = 0; row < count; row++) {
      for (let at: u32 = 0; at < last; at += 8) store<u64>(target + at, load<u64>(source + at));
      store<u64>(target + last, load<u64>(source + last));
      source += sourceStride;
      target += targetStride;
    }
    return;
  }
  for (let row: u32 = 0; row < count; row++) {
    for (let at: u32 = 0; at < rowBytes; at++) store<u8>(target + at, load<u8>(source + at));
    source += sourceStride;
    target += targetStride;
  }
}
