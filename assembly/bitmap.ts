// Bitmap: a set of indexes as a stack of 64-ary levels, so that its lowest member is found in one
// step per level. Layer 1. It knows nothing of blocks; one order of an order tree is one bitmap.
// Source: the summary words of two-level segregated fits (Masmano et al., ECRTS 2004), stacked
// until one word is left.
//
//   level 2   ┌1───────┐                     one word at the top
//   level 1   │1 1 0 … │ …                   bit i = word i of the level below is not 0
//   level 0   │1│0│1│0│…│ …                  bit i = i is a member
//
// Row, 32 bytes; the words lie elsewhere, at offsets from an origin that every call repeats.
//
//   byte 0                       20           24         28         32
//        ┌──────────────────────┬────────────┬──────────┬──────────┐
//        │ 5 level offsets      │ levelCount │ bitCount │ setCount │
//        └──────────────────────┴────────────┴──────────┴──────────┘
//
// Level offsets from `levelCount` on are 0. Members are below `bitCount`.
import * as abi from "./abi";

/** Refusal value in place of an index. */
export const NO_INDEX: u32 = u32.MAX_VALUE;

@unmanaged
export class Bitmap {
  level0: u32;
  level1: u32;
  level2: u32;
  level3: u32;
  level4: u32;
  levelCount: u32;
  bitCount: u32;
  /** Number of members. */
  setCount: u32;
}

if (offsetof<Bitmap>("level0") != abi.ORDER_OFF_LEVELS) ERROR("Bitmap.level0");
if (offsetof<Bitmap>("levelCount") != abi.ORDER_OFF_LEVEL_COUNT) ERROR("Bitmap.levelCount");
if (offsetof<Bitmap>("bitCount") != abi.ORDER_OFF_BLOCK_COUNT) ERROR("Bitmap.bitCount");
if (offsetof<Bitmap>("setCount") != abi.ORDER_OFF_FREE_COUNT) ERROR("Bitmap.setCount");
if (offsetof<Bitmap>() != abi.ORDER_BYTES) ERROR("Bitmap size");

/** Words of a level that has `bitCount` bits. */
export function bitmapWordCount(bitCount: u32): u32 {
  return (bitCount + 63) >> 6;
}

/**
 * Bytes of all levels of a bitmap of `bitCount` bits, at least 1 and at most ARENA_GRANULES_MAX.
 */
export function bitmapBytes(bitCount: u32): u32 {
  let wordCount = bitmapWordCount(bitCount);
  let wordTotal = wordCount;
  while (wordCount > 1) {
    wordCount = bitmapWordCount(wordCount);
    wordTotal += wordCount;
  }
  return wordTotal << 3;
}

/** Offset of one level's words from the origin. */
export function bitmapLevel(bitmap: Bitmap, level: u32): u32 {
  return load<u32>(changetype<usize>(bitmap) + (level << 2), abi.ORDER_OFF_LEVELS);
}

/** Address of the word of a level that holds bit `index`. The level starts at `words`. */
function wordAddress(words: usize, index: u32): usize {
  return words + ((index >> 6) << 3);
}

/**
 * Formats `bitmap` as the empty set below `bitCount`, with its words from `offset` on. The memory
 * may hold anything before.
 */
export function bitmapFormat(bitmap: Bitmap, origin: usize, offset: u32, bitCount: u32): void {
  memory.fill(changetype<usize>(bitmap), 0, abi.ORDER_BYTES);
  memory.fill(origin + offset, 0, bitmapBytes(bitCount));
  bitmap.bitCount = bitCount;

  let levelCount: u32 = 0;
  let wordCount = bitCount;
  do {
    store<u32>(changetype<usize>(bitmap) + (levelCount << 2), offset, abi.ORDER_OFF_LEVELS);
    wordCount = bitmapWordCount(wordCount);
    offset += wordCount << 3;
    levelCount += 1;
  } while (wordCount > 1);
  assert(levelCount <= <u32>abi.LEVEL_COUNT_MAX);
  bitmap.levelCount = levelCount;
}

/** Whether `index` is a member. False for the one index past the last of an odd `bitCount`. */
export function bitmapHas(bitmap: Bitmap, origin: usize, index: u32): bool {
  const word = load<u64>(wordAddress(origin + bitmap.level0, index));
  return ((word >> (index & 63)) & 1) != 0;
}

/** Adds `index`, which is not a member. Cost: one word, and one more per level that was empty. */
export function bitmapAdd(bitmap: Bitmap, origin: usize, index: u32): void {
  assert(index < bitmap.bitCount && !bitmapHas(bitmap, origin, index));
  bitmap.setCount += 1;
  const levelCount = bitmap.levelCount;
  for (let level: u32 = 0; level < levelCount; level++) {
    const address = wordAddress(origin + bitmapLevel(bitmap, level), index);
    const word = load<u64>(address);
    store<u64>(address, word | ((<u64>1) << (index & 63)));
    if (word != 0) return;
    index >>= 6;
  }
}

/**
 * Removes `index`, which is a member. Cost: one word, and one more per level that becomes empty.
 */
export function bitmapRemove(bitmap: Bitmap, origin: usize, index: u32): void {
  assert(bitmapHas(bitmap, origin, index));
  bitmap.setCount -= 1;
  const levelCount = bitmap.levelCount;
  for (let level: u32 = 0; level < levelCount; level++) {
    const address = wordAddress(origin + bitmapLevel(bitmap, level), index);
    const word = load<u64>(address) & ~((<u64>1) << (index & 63));
    store<u64>(address, word);
    if (word != 0) return;
    index >>= 6;
  }
}

/** Lowest member. The set is not empty; not checked in a release build. */
export function bitmapLowest(bitmap: Bitmap, origin: usize): u32 {
  assert(bitmap.setCount != 0);
  return lowestBelow(bitmap, origin, bitmap.levelCount, 0);
}

/**
 * Lowest member from `index` on, or NO_INDEX. `index` is at most bitCount. Cost: at most two steps
 * per level: up to a word that has a member, and down to it.
 */
export function bitmapNext(bitmap: Bitmap, origin: usize, index: u32): u32 {
  let bitCount = bitmap.bitCount;
  const levelCount = bitmap.levelCount;
  for (let level: u32 = 0; level < levelCount; level++) {
    if (index >= bitCount) return NO_INDEX;
    const address = wordAddress(origin + bitmapLevel(bitmap, level), index);
    const word = load<u64>(address) >> (index & 63);
    if (word != 0) return lowestBelow(bitmap, origin, level, index + <u32>ctz(word));
    index = (index >> 6) + 1;
    bitCount = bitmapWordCount(bitCount);
  }
  return NO_INDEX;
}

/** Lowest member beneath `index` of `level`, whose bit is set. */
function lowestBelow(bitmap: Bitmap, origin: usize, level: u32, index: u32): u32 {
  for (; level > 0; level--) {
    const word = load<u64>(origin + bitmapLevel(bitmap, level - 1) + (index << 3));
    index = (index << 6) | <u32>ctz(word);
  }
  return index;
}

/**
 * Whether the row, any words, is that of a set of `count` bits whose words start at `offset`, each
 * summary bit is 1 exactly when its word is not 0, and bits past the end are 0. `setCount` is not
 * checked.
 */
export function bitmapIsExact(bitmap: Bitmap, origin: usize, offset: u32, count: u32): bool {
  if (bitmap.bitCount != count) return false;
  let bitCount = count;
  let level: u32 = 0;
  // Ends with the level of one word, which has no level above.
  while (true) {
    if (bitmapLevel(bitmap, level) != offset) return false;
    const wordCount = bitmapWordCount(bitCount);
    const words = origin + offset;
    const lastBits = bitCount & 63;
    const last = load<u64>(words + ((wordCount - 1) << 3));
    if (lastBits != 0 && last >> lastBits != 0) return false;
    level += 1;
    if (wordCount == 1) return bitmap.levelCount == level;

    const summary = words + (wordCount << 3);
    for (let i: u32 = 0; i < wordCount; i++) {
      const isUsed = load<u64>(words + (i << 3)) != 0;
      const bit = (load<u64>(summary + ((i >> 6) << 3)) >> (i & 63)) & 1;
      if (isUsed != (bit != 0)) return false;
    }
    offset += wordCount << 3;
    bitCount = wordCount;
  }
}
