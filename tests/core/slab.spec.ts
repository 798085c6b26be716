import * as abi from "../../assembly/abi";
import { ArenaRow, arenaRow, arenaTree } from "../../assembly/arena-row";
import { sizeClassOf, sizeClassUnits } from "../../assembly/size-class";
import {
  NO_UNIT,
  slabClaim,
  slabClaimBelow,
  slabLargerClass,
  slabOpenBelow,
  slabRelease,
} from "../../assembly/slab";
import { Random, planeWithSlabs } from "./support";

let base: u32 = 0;
const PAGE: u32 = sizeClassOf(191); // 12 KiB, 21 to a slab

function row(): ArenaRow {
  return arenaRow(base, 1);
}

describe("slab", () => {
  beforeEach(() => {
    base = planeWithSlabs(64, 16);
  });

  test("cuts a superblock into equal pages and opens the next when they are used up", () => {
    for (let page: u32 = 0; page < 21; page++) {
      expect<u32>(slabClaim(base, row(), PAGE)).toBe(page * 192);
    }
    expect<u32>(row().slabCount).toBe(1);
    expect<u32>(slabClaim(base, row(), PAGE)).toBe(abi.SUPERBLOCK_UNITS);
    expect<u32>(row().slabCount).toBe(2);
  });

  test("claims the lowest free page of the lowest slab first", () => {
    for (let page: u32 = 0; page < 42; page++) slabClaim(base, row(), PAGE);
    slabRelease(base, row(), abi.SUPERBLOCK_UNITS);
    slabRelease(base, row(), 5 * 192);
    slabRelease(base, row(), 3 * 192);
    expect<u32>(slabClaim(base, row(), PAGE)).toBe(3 * 192);
    expect<u32>(slabClaim(base, row(), PAGE)).toBe(5 * 192);
    expect<u32>(slabClaim(base, row(), PAGE)).toBe(abi.SUPERBLOCK_UNITS);
  });

  test("gives a slab back with its last page", () => {
    const free = arenaTree(base, row()).free;
    const first = slabClaim(base, row(), PAGE);
    const second = slabClaim(base, row(), PAGE);
    slabRelease(base, row(), first);
    expect<u32>(arenaTree(base, row()).free).toBe(free - (1 << abi.SUPERBLOCK_ORDER));
    slabRelease(base, row(), second);
    expect<u32>(arenaTree(base, row()).free).toBe(free);
    expect<u32>(row().slabCount).toBe(0);
  });

  test("claims below a limit, opens below a limit, and refuses when there is no lower place", () => {
    expect<u32>(slabClaimBelow(base, row(), PAGE, 16)).toBe(NO_UNIT);
    expect<u32>(slabOpenBelow(base, row(), PAGE, 0)).toBe(NO_UNIT);
    expect<u32>(slabOpenBelow(base, row(), PAGE, 1)).toBe(0);
    expect<u32>(slabClaimBelow(base, row(), PAGE, 0)).toBe(NO_UNIT);
    expect<u32>(slabClaimBelow(base, row(), PAGE, 1)).toBe(192);
  });

  test("finds a larger class with a free page that keeps the alignment", () => {
    slabClaim(base, row(), 20); // 21 units
    slabClaim(base, row(), 23); // 24 units
    expect<u32>(slabLargerClass(base, row(), 10, 1)).toBe(20);
    expect<u32>(slabLargerClass(base, row(), 10, 8)).toBe(23);
    expect<u32>(slabLargerClass(base, row(), 23, 1)).toBe(abi.SLAB_CLASS_COUNT);
  });

  test("hands out every page of every class once", () => {
    for (let sizeClass: u32 = 0; sizeClass < <u32>abi.SLAB_CLASS_COUNT; sizeClass++) {
      const units = sizeClassUnits(sizeClass);
      const pageCount = <u32>abi.SUPERBLOCK_UNITS / units;
      const count = pageCount << 4;
      let sum: u64 = 0;
      for (let i: u32 = 0; i < count; i++) {
        const offset = slabClaim(base, row(), sizeClass);
        if ((offset % abi.SUPERBLOCK_UNITS) % units != 0) expect<u32>(offset).toBe(0);
        sum += offset;
      }
      expect<u32>(slabClaim(base, row(), sizeClass)).toBe(NO_UNIT);
      for (let slab: u32 = 0; slab < 16; slab++) {
        for (let page: u32 = 0; page < pageCount; page++) {
          const offset = slab * abi.SUPERBLOCK_UNITS + page * units;
          sum -= offset;
          slabRelease(base, row(), offset);
        }
      }
      expect<u64>(sum).toBe(0);
      expect<u32>(arenaTree(base, row()).free).toBe(row().capacity);
    }
  });

  test("equals a set of pages, seed 0x51ab51ab", () => {
    const random = new Random(0x51ab51ab);
    const live = new Array<u32>();
    const seen = new StaticArray<bool>(16 * 21);
    for (let step = 0; step < 20000; step++) {
      if (random.below(16) < (step % 2048 < 1024 ? 10 : 6)) {
        const offset = slabClaim(base, row(), PAGE);
        if (offset == NO_UNIT) {
          expect<i32>(live.length).toBe(16 * 21);
          continue;
        }
        const index = (offset / abi.SUPERBLOCK_UNITS) * 21 + (offset % abi.SUPERBLOCK_UNITS) / 192;
        expect<bool>(seen[index]).toBe(false);
        seen[index] = true;
        live.push(offset);
      } else if (live.length != 0) {
        const i = random.below(live.length);
        const offset = live[i];
        live[i] = live[live.length - 1];
        live.pop();
        seen[(offset / abi.SUPERBLOCK_UNITS) * 21 + (offset % abi.SUPERBLOCK_UNITS) / 192] = false;
        slabRelease(base, row(), offset);
      }
    }
  });
});
