// Huffman: canonical codes of at most 11 bits for bytes, in four streams that are decoded side by side.
// A leaf.
//
//   lengths  256 x 4 bits, symbol 2i in the low half of byte i: 128 bytes; 0 means absent
//   streams  each codes a quarter of the symbols, the last quarter the rest; bits from the lowest
//            of each byte on, codes reversed so that they can be read that way
//
// Codes ascend by (length, symbol). A reader takes lengths only if their Kraft sum is exactly
// 2^HUFFMAN_BITS_MAX: then the table has no hole and every stream decodes to something.
// Source: Moffat and Katajainen, "In-Place Calculation of Minimum-Redundancy Codes" — the lengths.
import { HUFFMAN_BITS_MAX, HUFFMAN_SCRATCH_BYTES } from "../kernels-abi";

const LENGTHS_BYTES: u32 = 128;
const SYMBOLS: u32 = 256;
const TABLE_ENTRIES: u32 = 1 << HUFFMAN_BITS_MAX;
/** Offsets into the scratch. */
const COUNTS: usize = 0; // 4 x 256 x u32; then, of the first: counts of symbols
const ORDER: usize = 4096; // 256 x u32: symbols by count
const WEIGHTS: usize = 5120; // 256 x u32: work of the length computation
const TABLE: usize = 6144; // encoder 256 x u32; decoder 2048 x u16

if (TABLE + <usize>TABLE_ENTRIES * 2 > <usize>HUFFMAN_SCRATCH_BYTES) ERROR("scratch");

/** Counts bytes into 256 x u32 at `scratch`. */
export function huffmanCount(source: usize, count: u32, scratch: usize): void {
  memory.fill(scratch + COUNTS, 0, SYMBOLS * 16);
  // Four tables, so that equal neighbours do not wait for each other's addition.
  let index: u32 = 0;
  for (; index + 8 <= count; index += 8) {
    const word = load<u64>(source + index);
    bump(scratch, <u32>word & 255);
    bump(scratch + 1024, <u32>(word >> 8) & 255);
    bump(scratch + 2048, <u32>(word >> 16) & 255);
    bump(scratch + 3072, <u32>(word >> 24) & 255);
    bump(scratch, <u32>(word >> 32) & 255);
    bump(scratch + 1024, <u32>(word >> 40) & 255);
    bump(scratch + 2048, <u32>(word >> 48) & 255);
    bump(scratch + 3072, <u32>(word >> 56));
  }
  for (; index < count; index++) bump(scratch, load<u8>(source + index));
  for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
    const entry = scratch + (symbol << 2);
    store<u32>(
      entry,
      load<u32>(entry) + load<u32>(entry, 1024) + load<u32>(entry, 2048) + load<u32>(entry, 3072),
    );
  }
}

function bump(table: usize, symbol: u32): void {
  const entry = table + (symbol << 2);
  store<u32>(entry, load<u32>(entry) + 1);
}

/**
 * Computes code lengths for the counts at `scratch` and writes them to `lengths`. The counts stay.
 *
 * @returns Bits that all symbols together take; 0 if fewer than two symbols occur, and nothing is
 * written.
 */
export function huffmanLengths(scratch: usize, lengths: usize): u32 {
  const used = sortSymbols(scratch);
  if (used < 2) return 0;
  // Rarer symbols get longer codes: raising the least counts shortens the longest code.
  let floor: u32 = 0;
  for (let attempt: u32 = 0; attempt < 32; attempt++) {
    for (let index: u32 = 0; index < used; index++) {
      const symbol = load<u32>(scratch + ORDER + (index << 2));
      const count = load<u32>(scratch + COUNTS + (symbol << 2));
      store<u32>(scratch + WEIGHTS + (index << 2), max(count, floor));
    }
    minimumRedundancy(scratch + WEIGHTS, used);
    if (load<u32>(scratch + WEIGHTS) <= <u32>HUFFMAN_BITS_MAX) break;
    floor = floor == 0 ? totalCount(scratch, used) >> (HUFFMAN_BITS_MAX + 5) : floor + (floor >> 1);
    floor = max(floor, attempt + 1);
  }
  memory.fill(lengths, 0, LENGTHS_BYTES);
  let bits: u32 = 0;
  for (let index: u32 = 0; index < used; index++) {
    const symbol = load<u32>(scratch + ORDER + (index << 2));
    const length = load<u32>(scratch + WEIGHTS + (index << 2));
    const address = lengths + (symbol >> 1);
    store<u8>(address, <u8>(<u32>load<u8>(address) | (length << ((symbol & 1) << 2))));
    bits += length * load<u32>(scratch + COUNTS + (symbol << 2));
  }
  return bits;
}

function totalCount(scratch: usize, used: u32): u32 {
  let total: u32 = 0;
  for (let index: u32 = 0; index < used; index++) {
    const symbol = load<u32>(scratch + ORDER + (index << 2));
    total += load<u32>(scratch + COUNTS + (symbol << 2));
  }
  return total;
}

/** Writes the symbols that occur, by ascending count, ties by symbol. @returns How many. */
function sortSymbols(scratch: usize): u32 {
  let used: u32 = 0;
  for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
    const count = load<u32>(scratch + COUNTS + (symbol << 2));
    if (count == 0) continue;
    let at = used;
    for (; at > 0; at--) {
      const before = load<u32>(scratch + ORDER + ((at - 1) << 2));
      if (load<u32>(scratch + COUNTS + (before << 2)) <= count) break;
      store<u32>(scratch + ORDER + (at << 2), before);
    }
    store<u32>(scratch + ORDER + (at << 2), symbol);
    used++;
  }
  return used;
}

/** Replaces `n` ascending weights by the lengths of their codes, longest first. In place. */
function minimumRedundancy(weights: usize, n: u32): void {
  // Pass 1: weights become parents.
  let root: u32 = 0;
  let leaf: u32 = 2;
  put(weights, 0, get(weights, 0) + get(weights, 1));
  for (let next: u32 = 1; next + 1 < n; next++) {
    let sum: u32 = 0;
    for (let child = 0; child < 2; child++) {
      if (leaf >= n || (root < next && get(weights, root) < get(weights, leaf))) {
        sum += get(weights, root);
        put(weights, root, next);
        root++;
      } else {
        sum += get(weights, leaf);
        leaf++;
      }
    }
    put(weights, next, sum);
  }
  // Pass 2: parents become depths of inner nodes.
  put(weights, n - 2, 0);
  for (let next = <i32>n - 3; next >= 0; next--) {
    put(weights, next, get(weights, get(weights, next)) + 1);
  }
  // Pass 3: depths of leaves.
  let available: u32 = 1;
  let depth: u32 = 0;
  let inner = <i32>n - 2;
  let next = <i32>n - 1;
  while (available > 0) {
    let used: u32 = 0;
    while (inner >= 0 && get(weights, inner) == depth) {
      used++;
      inner--;
    }
    while (available > used) {
      put(weights, next, depth);
      next--;
      available--;
    }
    available = used << 1;
    depth++;
  }
}

function get(weights: usize, index: u32): u32 {
  return load<u32>(weights + (index << 2));
}

function put(weights: usize, index: u32, value: u32): void {
  store<u32>(weights + (index << 2), value);
}

function lengthOf(lengths: usize, symbol: u32): u32 {
  return (<u32>load<u8>(lengths + (symbol >> 1)) >> ((symbol & 1) << 2)) & 15;
}

/** `length` bits of `code`, turned round. */
function reversed(code: u32, length: u32): u32 {
  let result: u32 = 0;
  for (let bit: u32 = 0; bit < length; bit++) {
    result = (result << 1) | ((code >> bit) & 1);
  }
  return result;
}

/**
 * Encodes `count` symbols with these lengths into four streams, next to each other at `target`, whose
 * byte counts go to `sizes` (4 x u32).
 *
 * @returns Bytes written. Eight more may be overwritten.
 */
export function huffmanEncode(
  source: usize,
  count: u32,
  lengths: usize,
  target: usize,
  sizes: usize,
  scratch: usize,
): u32 {
  const table = scratch + TABLE;
  let code: u32 = 0;
  for (let length: u32 = 1; length <= <u32>HUFFMAN_BITS_MAX; length++) {
    for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
      if (lengthOf(lengths, symbol) != length) continue;
      store<u32>(table + (symbol << 2), reversed(code, length) | (length << 16));
      code++;
    }
    code <<= 1;
  }
  const quarter = count >> 2;
  let at = target;
  for (let stream: u32 = 0; stream < 4; stream++) {
    const from = source + stream * quarter;
    const symbols = stream == 3 ? count - 3 * quarter : quarter;
    const end = encodeStream(from, symbols, table, at);
    store<u32>(sizes + (stream << 2), <u32>(end - at));
    at = end;
  }
  return <u32>(at - target);
}

/** @returns The address behind the stream's last byte. */
function encodeStream(source: usize, count: u32, table: usize, target: usize): usize {
  let buffer: u64 = 0;
  let filled: u64 = 0;
  let index: u32 = 0;
  for (; index + 4 <= count; index += 4) {
    const symbols = load<u32>(source + index);
    const a = <u64>load<u32>(table + ((symbols & 255) << 2));
    const b = <u64>load<u32>(table + (((symbols >> 8) & 255) << 2));
    const c = <u64>load<u32>(table + (((symbols >> 16) & 255) << 2));
    const d = <u64>load<u32>(table + ((symbols >> 24) << 2));
    buffer |= (a & 0xffff) << filled;
    filled += a >> 16;
    buffer |= (b & 0xffff) << filled;
    filled += b >> 16;
    buffer |= (c & 0xffff) << filled;
    filled += c >> 16;
    buffer |= (d & 0xffff) << filled;
    filled += d >> 16;
    store<u64>(target, buffer);
    target += <usize>(filled >> 3);
    buffer >>= filled & ~7;
    filled &= 7;
  }
  for (; index < count; index++) {
    const entry = <u64>load<u32>(table + ((<u32>load<u8>(source + index)) << 2));
    buffer |= (entry & 0xffff) << filled;
    filled += entry >> 16;
    store<u64>(target, buffer);
    target += <usize>(filled >> 3);
    buffer >>= filled & ~7;
    filled &= 7;
  }
  if (filled > 0) {
    store<u8>(target, <u8>buffer);
    target += 1;
  }
  return target;
}

/**
 * Decodes `count` symbols.
 *
 * @param source Four streams, next to each other, whose byte counts are at `sizes` (4 x u32).
 * @param limit The address behind the last byte that may be read; at least 8 behind the streams.
 * @returns 1, or 0 if the lengths are no complete code, or a stream does not end where it should.
 */
export function huffmanDecode(
  source: usize,
  limit: usize,
  lengths: usize,
  sizes: usize,
  target: usize,
  count: u32,
  scratch: usize,
): u32 {
  const table = scratch + TABLE;
  if (!buildDecoder(lengths, table)) return 0;
  const clamp = <u64>(limit - 8);
  const start1 = source + load<u32>(sizes);
  const start2 = start1 + load<u32>(sizes, 4);
  const start3 = start2 + load<u32>(sizes, 8);
  const end3 = start3 + load<u32>(sizes, 12);
  // Positions in bits, from the start of memory.
  let bit0 = (<u64>source) << 3;
  let bit1 = (<u64>start1) << 3;
  let bit2 = (<u64>start2) << 3;
  let bit3 = (<u64>start3) << 3;
  const quarter = count >> 2;
  const last = count - 3 * quarter;
  const target1 = target + quarter;
  const target2 = target1 + quarter;
  const target3 = target2 + quarter;
  let index: u32 = 0;
  for (; index + 4 <= quarter; index += 4) {
    bit0 = decodeFour(bit0, clamp, table, target + index);
    bit1 = decodeFour(bit1, clamp, table, target1 + index);
    bit2 = decodeFour(bit2, clamp, table, target2 + index);
    bit3 = decodeFour(bit3, clamp, table, target3 + index);
  }
  for (let rest = index; rest < quarter; rest++) {
    bit0 = decodeOne(bit0, clamp, table, target + rest);
    bit1 = decodeOne(bit1, clamp, table, target1 + rest);
    bit2 = decodeOne(bit2, clamp, table, target2 + rest);
  }
  for (let rest = index; rest < last; rest++) {
    bit3 = decodeOne(bit3, clamp, table, target3 + rest);
  }
  const isWhole =
    (bit0 + 7) >> 3 == <u64>start1 &&
    (bit1 + 7) >> 3 == <u64>start2 &&
    (bit2 + 7) >> 3 == <u64>start3 &&
    (bit3 + 7) >> 3 == <u64>end3;
  return isWhole ? 1 : 0;
}

/** Four symbols of at most 11 bits from one load of at least 57. */
function decodeFour(bit: u64, clamp: u64, table: usize, target: usize): u64 {
  let word = load<u64>(<usize>min<u64>(bit >> 3, clamp)) >> (bit & 7);
  const a = <u32>load<u16>(table + ((<usize>word & (TABLE_ENTRIES - 1)) << 1));
  word >>= a >> 8;
  const b = <u32>load<u16>(table + ((<usize>word & (TABLE_ENTRIES - 1)) << 1));
  word >>= b >> 8;
  const c = <u32>load<u16>(table + ((<usize>word & (TABLE_ENTRIES - 1)) << 1));
  word >>= c >> 8;
  const d = <u32>load<u16>(table + ((<usize>word & (TABLE_ENTRIES - 1)) << 1));
  store<u32>(target, (a & 255) | ((b & 255) << 8) | ((c & 255) << 16) | (d << 24));
  return bit + <u64>((a >> 8) + (b >> 8) + (c >> 8) + (d >> 8));
}

function decodeOne(bit: u64, clamp: u64, table: usize, target: usize): u64 {
  const word = load<u64>(<usize>min<u64>(bit >> 3, clamp)) >> (bit & 7);
  const entry = <u32>load<u16>(table + ((<usize>word & (TABLE_ENTRIES - 1)) << 1));
  store<u8>(target, <u8>entry);
  return bit + <u64>(entry >> 8);
}

/** Fills the table of symbol | length << 8 by the next 11 bits. @returns False on a hole. */
function buildDecoder(lengths: usize, table: usize): bool {
  let kraft: u32 = 0;
  for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
    const length = lengthOf(lengths, symbol);
    if (length > <u32>HUFFMAN_BITS_MAX) return false;
    if (length > 0) kraft += TABLE_ENTRIES >> length;
  }
  if (kraft != TABLE_ENTRIES) return false;
  let code: u32 = 0;
  for (let length: u32 = 1; length <= <u32>HUFFMAN_BITS_MAX; length++) {
    for (let symbol: u32 = 0; symbol < SYMBOLS; symbol++) {
      if (lengthOf(lengths, symbol) != length) continue;
      const entry = <u16>(symbol | (length << 8));
      const step: u32 = 1 << length;
      for (let slot = reversed(code, length); slot < TABLE_ENTRIES; slot += step) {
        store<u16>(table + (slot << 1), entry);
      }
      code++;
    }
    code <<= 1;
  }
  return true;
}
