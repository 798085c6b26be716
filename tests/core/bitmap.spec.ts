import * as abi from "../../assembly/abi";
import {
  Bitmap,
  bitmapAdd,
  bitmapBytes,
  bitmapFormat,
  bitmapHas,
  NO_INDEX,
  bitmapLowest,
  bitmapNext,
  bitmapRemove,
} from "../../assembly/bitmap";
import { Random, garbage } from "./support";

/** An empty bitmap whose words follow its row. */
function create(bitCount: u32): u32 {
  const origin = garbage(abi.ORDER_BYTES + bitmapBytes(bitCount));
  bitmapFormat(changetype<Bitmap>(origin), origin, abi.ORDER_BYTES, bitCount);
  return origin;
}

describe("bitmap", () => {
  test("walks its members upwards from any index", () => {
    const origin = create(1000);
    const bitmap = changetype<Bitmap>(origin);
    for (let index: u32 = 0; index < 1000; index += 97) bitmapAdd(bitmap, origin, index);
    for (let from: u32 = 0; from <= 1000; from++) {
      const next = ((from + 96) / 97) * 97;
      expect<u32>(bitmapNext(bitmap, origin, from)).toBe(next < 1000 ? next : NO_INDEX);
    }
  });

  test("has one word per 64 bits and per 64 words, up to one word", () => {
    expect<u32>(bitmapBytes(1)).toBe(8);
    expect<u32>(bitmapBytes(64)).toBe(8);
    expect<u32>(bitmapBytes(65)).toBe(8 * 3);
    expect<u32>(bitmapBytes(4096)).toBe(8 * 65);
    expect<u32>(bitmapBytes(4097)).toBe(8 * (65 + 2 + 1));
    expect<u32>(bitmapBytes(abi.ARENA_GRANULES_MAX)).toBe(8 * (1048576 + 16384 + 256 + 4 + 1));
  });

  test("has five levels at the largest length and one at 64 bits", () => {
    const large = create(abi.ARENA_GRANULES_MAX);
    expect<u32>(changetype<Bitmap>(large).levelCount).toBe(abi.LEVEL_COUNT_MAX);
    bitmapAdd(changetype<Bitmap>(large), large, abi.ARENA_GRANULES_MAX - 1);
    expect<u32>(bitmapLowest(changetype<Bitmap>(large), large)).toBe(abi.ARENA_GRANULES_MAX - 1);
    expect<u32>(changetype<Bitmap>(create(64)).levelCount).toBe(1);
    expect<u32>(changetype<Bitmap>(create(65)).levelCount).toBe(2);
  });

  test("equals a byte map over 20,000 steps, seed 0x2545f491", () => {
    const bitCount: u32 = 5000;
    const origin = create(bitCount);
    const bitmap = changetype<Bitmap>(origin);
    const model = new StaticArray<bool>(bitCount);
    const random = new Random(0x2545f491);
    let count: u32 = 0;
    for (let step = 0; step < 20000; step++) {
      const index = random.below(step % 2000 < 1000 ? bitCount : 300);
      if (bitmapHas(bitmap, origin, index) != model[index])
        expect<u32>(index).toBe(0, "membership");
      if (model[index]) {
        bitmapRemove(bitmap, origin, index);
        count -= 1;
      } else {
        bitmapAdd(bitmap, origin, index);
        count += 1;
      }
      model[index] = !model[index];
      if (bitmap.setCount != count) expect<u32>(bitmap.setCount).toBe(count, "count");
      if (count == 0) continue;
      const lowest = bitmapLowest(bitmap, origin);
      if (<u32>model.indexOf(true) != lowest) expect<u32>(lowest).toBe(<u32>model.indexOf(true));
    }
    expect<u32>(bitmap.setCount).toBe(count);
  });
});
