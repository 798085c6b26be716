import * as abi from "../../assembly/abi";
import { sizeClassLastUnit, sizeClassOf, sizeClassUnits } from "../../assembly/size-class";

describe("size class", () => {
  test("is the smallest class that holds a length, at every boundary", () => {
    let below: u32 = 0;
    for (let sizeClass: u32 = 0; sizeClass < <u32>abi.SIZE_CLASS_COUNT; sizeClass++) {
      const units = sizeClassUnits(sizeClass);
      expect<bool>(units > below).toBe(true);
      expect<u32>(sizeClassOf(below)).toBe(sizeClass, "one unit past the class below");
      expect<u32>(sizeClassOf(units - 1)).toBe(sizeClass, "its own length");
      below = units;
    }
  });

  test("loses at most a seventeenth, and nothing up to 32 units", () => {
    for (let lastUnit: u32 = 0; lastUnit < 100000; lastUnit++) {
      const units = sizeClassUnits(sizeClassOf(lastUnit));
      const lost = units - (lastUnit + 1);
      if (lost * 17 > units || (lastUnit < 32 && lost != 0)) expect<u32>(lastUnit).toBe(0);
    }
  });

  test("is a multiple of the alignment asked for", () => {
    for (let power: u32 = 0; power <= 16; power++) {
      const alignment = (<u32>1) << power;
      for (let bytes: u32 = 1; bytes < 200000; bytes += 997) {
        const units = sizeClassUnits(sizeClassOf(sizeClassLastUnit(bytes, alignment)));
        const granted = units << abi.UNIT_SHIFT;
        if (granted < bytes || granted % alignment != 0) expect<u32>(bytes).toBe(alignment);
      }
    }
  });

  test("of 0 bytes is one that no arena has", () => {
    expect<bool>(sizeClassOf(sizeClassLastUnit(0, 1)) >= <u32>abi.SIZE_CLASS_COUNT).toBe(true);
    expect<bool>(sizeClassOf(sizeClassLastUnit(1, 0)) >= <u32>abi.SIZE_CLASS_COUNT).toBe(true);
  });

  test("of a slab is at most 32 KiB", () => {
    expect<u32>(sizeClassUnits(abi.SLAB_CLASS_COUNT - 1) << abi.UNIT_SHIFT).toBe(32768);
  });
});
