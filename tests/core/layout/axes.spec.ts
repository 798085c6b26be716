import { axesSwap } from "../../../assembly/layout/axes";
import { rowsCopy } from "../../../assembly/layout/rows";
import { garbage } from "../support";

/** Bytes of which neighbours differ. */
function counted(byteLength: u32): usize {
  const address = garbage(byteLength);
  for (let index: u32 = 0; index < byteLength; index++) {
    store<u8>(address + index, <u8>(index * 7 + (index >> 8)));
  }
  return address;
}

function isSwapped(source: usize, target: usize, outer: u32, inner: u32, rowBytes: u32): bool {
  for (let o: u32 = 0; o < outer; o++) {
    for (let i: u32 = 0; i < inner; i++) {
      const from = source + (o * inner + i) * rowBytes;
      const to = target + (i * outer + o) * rowBytes;
      if (memory.compare(from, to, rowBytes) != 0) return false;
    }
  }
  return true;
}

describe("axes", () => {
  test("swaps rows of every short length, and of a long one, in shapes around a square", () => {
    for (let rowBytes: u32 = 1; rowBytes <= 33; rowBytes++) {
      for (let outer: u32 = 1; outer <= 18; outer += 1 + (outer >> 2)) {
        for (let inner: u32 = 1; inner <= 18; inner += 1 + (inner >> 2)) {
          const byteLength = outer * inner * rowBytes;
          const source = counted(byteLength);
          const target = garbage(byteLength + 1);
          const edge = load<u8>(target + byteLength);
          axesSwap(source, target, outer, inner, rowBytes);
          assert(isSwapped(source, target, outer, inner, rowBytes));
          assert(load<u8>(target + byteLength) == edge);
        }
      }
    }
    const source = counted(2 * 3 * 1100);
    const target = garbage(2 * 3 * 1100);
    axesSwap(source, target, 2, 3, 1100);
    expect<bool>(isSwapped(source, target, 2, 3, 1100)).toBe(true);
  });

  test("swaps more than a band", () => {
    for (let rowBytes: u32 = 1; rowBytes <= 8; rowBytes <<= 1) {
      const source = counted(13 * 200 * rowBytes);
      const target = garbage(13 * 200 * rowBytes);
      axesSwap(source, target, 13, 200, rowBytes);
      expect<bool>(isSwapped(source, target, 13, 200, rowBytes)).toBe(true);
    }
  });
});

describe("rows", () => {
  test("copies rows and nothing between them", () => {
    for (let rowBytes: u32 = 0; rowBytes <= 40; rowBytes++) {
      const source = counted(300);
      const target = garbage(400);
      memory.fill(target, 0x5a, 400);
      rowsCopy(source, rowBytes + 3, target, rowBytes + 5, rowBytes, 6);
      for (let row: u32 = 0; row < 6; row++) {
        const from = source + row * (rowBytes + 3);
        const to = target + row * (rowBytes + 5);
        assert(memory.compare(from, to, rowBytes) == 0);
        for (let gap: u32 = 0; gap < 5; gap++) assert(load<u8>(to + rowBytes + gap) == 0x5a);
      }
    }
    const source = counted(4000);
    const target = garbage(5000);
    memory.fill(target, 0x5a, 5000);
    rowsCopy(source, 1200, target, 1300, 1100, 3);
    expect<i32>(memory.compare(source + 2400, target + 2600, 1100)).toBe(0);
    expect<u8>(load<u8>(target + 3700)).toBe(0x5a);
  });
});
