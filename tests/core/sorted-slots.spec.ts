import * as abi from "../../assembly/abi";
import { slotsAcquire, slotsRecycle } from "../../assembly/slots";
import { sortedSlotsAt, sortedSlotsBuild, sortedSlotsByLength } from "../../assembly/sorted-slots";
import { arenaAllocate } from "../../assembly/index";
import { Random, offsetOf, plane, planeWithSlabs } from "./support";

describe("sorted slots", () => {
  test("lists the live slots of one arena by falling offset, seed 0x600df00d", () => {
    const base = plane(400, 4, 64);
    const random = new Random(0x600df00d);
    let inArena: u32 = 0;
    for (let slot: u32 = 1; slot < 400; slot++) {
      slotsAcquire(base, 1 + (slot & 1), random.below(1 << 26), 0, 1, abi.SLOT_STATE_LIVE);
    }
    for (let slot: u32 = 1; slot < 400; slot++) {
      if (slot % 5 == 0) slotsRecycle(base, slot);
      else if ((slot & 1) == 0) inArena += 1;
    }
    const count = sortedSlotsBuild(base, 1);
    expect<u32>(count).toBe(inArena);
    for (let i: u32 = 1; i < count; i++) {
      const above = offsetOf(base, sortedSlotsAt(base, i - 1));
      expect<bool>(above >= offsetOf(base, sortedSlotsAt(base, i))).toBe(true);
    }
  });

  test("sorts every length from 0 to 70", () => {
    const base = plane(80, 4, 64);
    for (let length: u32 = 0; length <= 70; length++) {
      expect<u32>(sortedSlotsBuild(base, 1)).toBe(length);
      for (let i: u32 = 1; i < length; i++) {
        const above = offsetOf(base, sortedSlotsAt(base, i - 1));
        expect<bool>(above > offsetOf(base, sortedSlotsAt(base, i))).toBe(true);
      }
      slotsAcquire(base, 1, (length * 37) % 71, 0, 1, abi.SLOT_STATE_LIVE);
    }
  });

  test("sorts by falling length, and pages as long as their slab if they are to stay together", () => {
    const base = planeWithSlabs(16, 16);
    const page = arenaAllocate(base, 1, 64, 1);
    const short = arenaAllocate(base, 1, 40_000, 1);
    const long = arenaAllocate(base, 1, 400_000, 1);
    sortedSlotsByLength(base, sortedSlotsBuild(base, 1), false);
    expect<u32>(sortedSlotsAt(base, 0)).toBe(long);
    expect<u32>(sortedSlotsAt(base, 1)).toBe(short);
    expect<u32>(sortedSlotsAt(base, 2)).toBe(page);
    sortedSlotsByLength(base, 3, true);
    expect<u32>(sortedSlotsAt(base, 0)).toBe(long);
    expect<u32>(sortedSlotsAt(base, 1)).toBe(page);
    expect<u32>(sortedSlotsAt(base, 2)).toBe(short);
  });
});
