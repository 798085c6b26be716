// Plane: the bytes of equal significance of many elements, apart. Floats are turned left by one bit
// first, so that the sign comes last and the top byte is the exponent alone. A leaf.

/** Splits `count` elements of 2 bytes into planes: low bytes, high bytes. */
export function planeSplit2(
  source: usize,
  count: u32,
  isTurned: u32,
  low: usize,
  high: usize,
): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 16 <= count; index += 16) {
      const from = source + (index << 1);
      const a = turn16(v128.load(from), isTurned);
      const b = turn16(v128.load(from, 16), isTurned);
      v128.store(
        low + index,
        i8x16.shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
      );
      v128.store(
        high + index,
        i8x16.shuffle(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
      );
    }
  }
  for (; index < count; index++) {
    let bits = <u32>load<u16>(source + (index << 1));
    if (isTurned) bits = ((bits << 1) | (bits >> 15)) & 0xffff;
    store<u8>(low + index, <u8>bits);
    store<u8>(high + index, <u8>(bits >> 8));
  }
}

function turn16(bits: v128, isTurned: u32): v128 {
  if (isTurned == 0) return bits;
  return v128.or(i16x8.shl(bits, 1), i16x8.shr_u(bits, 15));
}

/** Reverses planeSplit2. */
export function planeJoin2(
  low: usize,
  high: usize,
  count: u32,
  isTurned: u32,
  target: usize,
): void {
  let index: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; index + 16 <= count; index += 16) {
      const a = v128.load(low + index);
      const b = v128.load(high + index);
      let even = i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      let odd = i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      if (isTurned) {
        even = v128.or(i16x8.shr_u(even, 1), i16x8.shl(even, 15));
        odd = v128.or(i16x8.shr_u(odd, 1), i16x8.shl(odd, 15));
      }
      v128.store(target + (index << 1), even);
      v128.store(target + (index << 1), odd, 16);
    }
  }
  for (; index < count; index++) {
    let bits = <u32>load<u8>(low + index) | ((<u32>load<u8>(high + index)) << 8);
    if (isTurned) bits = (bits >> 1) | (bits << 15);
    store<u16>(target + (index << 1), <u16>bits);
  }
}

/** Splits `count` elements of 4 bytes into four planes, `pitch` bytes apart, lowest bytes first. */
export function planeSplit4(
  source: usize,
  count: u32,
  isTurned: u32,
  planes: usize,
  pitch: u32,
): void {
  for (let index: u32 = 0; index < count; index++) {
    let bits = load<u32>(source + (index << 2));
    if (isTurned) bits = rotl<u32>(bits, 1);
    const to = planes + index;
    store<u8>(to, <u8>bits);
    store<u8>(to + pitch, <u8>(bits >> 8));
    store<u8>(to + pitch * 2, <u8>(bits >> 16));
    store<u8>(to + pitch * 3, <u8>(bits >> 24));
  }
}

/** Reverses planeSplit4. */
export function planeJoin4(
  planes: usize,
  pitch: u32,
  count: u32,
  isTurned: u32,
  target: usize,
): void {
  for (let index: u32 = 0; index < count; index++) {
    const from = planes + index;
    let bits =
      <u32>load<u8>(from) |
      ((<u32>load<u8>(from + pitch)) << 8) |
      ((<u32>load<u8>(from + pitch * 2)) << 16) |
      ((<u32>load<u8>(from + pitch * 3)) << 24);
    if (isTurned) bits = rotr<u32>(bits, 1);
    store<u32>(target + (index << 2), bits);
  }
}
