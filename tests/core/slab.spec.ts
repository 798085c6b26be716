import * as abi from "../../assembly/abi";
import { ArenaRow, arenaRow, arenaTree } from "../../assembly/arena-row";
import { sizeClassOf, sizeClassUnits } from "../../assembly/size-class";
import { NO_UNIT, slabClaim, slabClaimIn, slabOpen, slabRelease } from "../../assembly/slab";
import { Random, planeWithSlabs } from "./support";

let base: u32 = 0;
const PAGE: u32 = sizeClassOf(191); // 12 KiB, 21 to a slab

function row(): ArenaRow {
  return arenaRow(base, 1);
}

/** A page of an open slab, else of a new one. */
function claim(sizeClass: u32): u32 {
  const offset = slabClaim(base, row(), sizeClass);
  return offset == NO_UNIT ? slabOpen(base, row(), sizeClass) : offset;
}

describe("slab", () => {
  beforeEach(() => {
    base = planeWithSlabs(64, 16);
  });

  test("cuts a superblock into equal pages and opens the next when they are used up", () => {
    for (let page: u32 = 0; page < 21; page++) {
      expect<u32>(claim(PAGE)).toBe(page * 192);
    }
    expect<u32>(row().slabCount).toBe(1);
    expect<u32>(claim(PAGE)).toBe(abi.SUPERBLOCK_UNITS);
    expect<u32>(row().slabCount).toBe(2);
  });

  test("claims the lowest free page of the lowest slab first", () => {
    for (let page: u32 = 0; page < 42; page++) claim(PAGE);
    slabRelease(base, row(), abi.SUPERBLOCK_UNITS);
    slabRelease(base, row(), 5 * 192);
    slabRelease(base, row(), 3 * 192);
    expect<u32>(claim(PAGE)).toBe(3 * 192);
    expect<u32>(claim(PAGE)).toBe(5 * 192);
    expect<u32>(claim(PAGE)).toBe(abi.SUPERBLOCK_UNITS);
  });

  test("gives a slab back with its last page", () => {
    const free = arenaTree(base, row()).free;
    const first = claim(PAGE);
    const second = claim(PAGE);
    slabRelease(base, row(), first);
    expect<u32>(arenaTree(base, row()).free).toBe(free - (1 << abi.SUPERBLOCK_ORDER));
    slabRelease(base, row(), second);
    expect<u32>(arenaTree(base, row()).free).toBe(free);
    expect<u32>(row().slabCount).toBe(0);
  });

  test("claims in the slab that the caller chooses", () => {
    for (let page: u32 = 0; page < 42; page++) claim(PAGE);
    slabRelease(base, row(), 3 * 192);
    slabRelease(base, row(), abi.SUPERBLOCK_UNITS);
    expect<u32>(slabClaimIn(base, row(), PAGE, 1)).toBe(abi.SUPERBLOCK_UNITS);
    expect<u32>(slabClaimIn(base, row(), PAGE, 0)).toBe(3 * 192);
  });

  test("hands out every page of every class once", () => {
    for (let sizeClass: u32 = 0; sizeClass < <u32>abi.SLAB_CLASS_COUNT; sizeClass++) {
      const units = sizeClassUnits(sizeClass);
      const pageCount = <u32>abi.SUPERBLOCK_UNITS / units;
      const count = pageCount << 4;
      let sum: u64 = 0;
      for (let i: u32 = 0; i < count; i++) {
        const offset = claim(sizeClass);
        if ((offset % abi.SUPERBLOCK_UNITS) % units != 0) expect<u32>(offset).toBe(0);
        sum += offset;
      }
      expect<u32>(claim(sizeClass)).toBe(NO_UNIT);
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
        const offset = claim(PAGE);
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
