// Lanes as far as the plain build has them: one. What several do is tested with threads, in
// tests/node/workers.test.ts, and by exploring their schedules, in tests/schedules.
import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  laneAttach,
  laneRelease,
  laneReserve,
  slotAdopt,
  slotFree,
  slotHandOver,
  slotPin,
} from "../../assembly/index";
import { slotsLane } from "../../assembly/slots";
import { generationOf, planeWithArena } from "./support";

let base: u32 = 0;

describe("lane", () => {
  beforeEach(() => {
    base = planeWithArena(16, 64);
  });

  test("a plain plane has one, and no room for others", () => {
    expect<u32>(laneReserve(base)).toBe(0);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_STATUS)).toBe(abi.STATUS_NO_METADATA);
    expect<u32>(laneAttach(base)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(laneRelease(base, 2)).toBe(abi.STATUS_BAD_ARGUMENT);
  });

  test("a block that nobody handed over is not adopted: STATUS_NOT_OWNER", () => {
    const slot = arenaAllocate(base, 1, 64, 1);
    expect<u32>(slotAdopt(base, slot, 1)).toBe(abi.STATUS_NOT_OWNER);
    expect<u32>(slotAdopt(base, slot, 2)).toBe(abi.STATUS_STALE);
    expect<u32>(slotAdopt(base, 9, 1)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotsLane(base, slot)).toBe(abi.LANE_FIRST);
  });

  test("a block is handed over once, unless it is pinned or gone", () => {
    const slot = arenaAllocate(base, 1, 64, 1);
    slotPin(base, slot, 1);
    expect<u32>(slotHandOver(base, slot, 1)).toBe(abi.STATUS_PINNED);
    const other = arenaAllocate(base, 1, 64, 1);
    expect<u32>(slotHandOver(base, other, generationOf(base, other))).toBe(abi.STATUS_OK);
    expect<u32>(slotsLane(base, other)).toBe(0);
    const gone = arenaAllocate(base, 1, 64, 1);
    slotFree(base, gone, 1);
    expect<u32>(slotHandOver(base, gone, 1)).toBe(abi.STATUS_STALE);
  });
});
