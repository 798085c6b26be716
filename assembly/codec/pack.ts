// Pack: rows of sixteen codes, a byte each, to and from bit planes. A leaf.
//
// A code of b bits is cut into pieces of 8, 4, 2 and 1 bits, where b has them, the widest piece with
// the lowest bits first; the pieces of all rows are a plane. A plane of width w has w / 8 as many rows
// of 16 bytes as there are rows of codes, and row r of it holds, from its lowest bits on, the pieces
// of rows r, r + n, r + 2n and so on, n being the plane's rows. So every load is whole and aligned.

/** Bytes of a row: one per code. */
export const ROW_BYTES: u32 = 16;

/** Packs `rows` rows of codes. `rows` is a multiple of 8 unless the bits are one plane. */
export function packRows(source: usize, rows: u32, bits: u32, target: usize): void {
  let shift: u32 = 0;
  for (let width: u32 = 8; width > 0; width >>= 1) {
    if ((bits & width) == 0) continue;
    packPlane(source, rows, width, shift, target);
    target += (rows * width) << 1;
    shift += width;
  }
}

/** Reverses packRows. */
export function unpackRows(source: usize, rows: u32, bits: u32, target: usize): void {
  let shift: u32 = 0;
  for (let width: u32 = 8; width > 0; width >>= 1) {
    if ((bits & width) == 0) continue;
    unpackPlane(source, rows, width, shift, target);
    source += (rows * width) << 1;
    shift += width;
  }
}

/** Packs bits `shift` to `shift + width` of every code. */
export function packPlane(source: usize, rows: u32, width: u32, shift: u32, target: usize): void {
  const planeRows = (rows * width) >> 3;
  const mask: u64 = <u64>((1 << width) - 1) * 0x0101010101010101;
  for (let row: u32 = 0; row < planeRows; row++) {
    // Eight codes at a time: no piece leaves its byte.
    for (let half: u32 = 0; half < ROW_BYTES; half += 8) {
      let word: u64 = 0;
      for (let up: u32 = 0, from = row; up < 8; up += width, from += planeRows) {
        word |= ((load<u64>(source + from * ROW_BYTES + half) >> shift) & mask) << up;
      }
      store<u64>(target + row * ROW_BYTES + half, word);
    }
  }
}

/** Reverses packPlane; codes are set if `shift` is 0, else completed. */
export function unpackPlane(source: usize, rows: u32, width: u32, shift: u32, target: usize): void {
  const planeRows = (rows * width) >> 3;
  const mask: u64 = <u64>((1 << width) - 1) * 0x0101010101010101;
  for (let row: u32 = 0; row < planeRows; row++) {
    for (let half: u32 = 0; half < ROW_BYTES; half += 8) {
      const word = load<u64>(source + row * ROW_BYTES + half);
      for (let up: u32 = 0, to = row; up < 8; up += width, to += planeRows) {
        const address = target + to * ROW_BYTES + half;
        const piece = ((word >> up) & mask) << shift;
        store<u64>(address, shift == 0 ? piece : load<u64>(address) | piece);
      }
    }
  }
}
