import * as abi from "../../assembly/abi";
import {
  slotsAcquire,
  slotsCold,
  slotsHasRoom,
  slotsHot,
  slotsRebind,
  slotsRecycle,
  slotsVerify,
} from "../../assembly/slots";
import { epochOf, generationOf, plane } from "./support";

let base: u32 = 0;

describe("slots", () => {
  beforeEach(() => {
    base = plane(8, 2, 64);
  });

  test("hands out slots from 1 with generation 1 and epoch 1, whatever the memory held", () => {
    for (let slot: u32 = 1; slot <= 7; slot++) {
      expect<u32>(slotsAcquire(base, 1, slot * 2, 1, 100, abi.SLOT_STATE_LIVE)).toBe(slot);
      expect<u32>(generationOf(base, slot)).toBe(1);
      expect<u32>(epochOf(base, slot)).toBe(1);
      expect<u32>(slotsHot(base, slot).offset).toBe(slot * 2);
    }
    expect<bool>(slotsHasRoom(base)).toBe(false);
  });

  test("reuses the slot freed last, with the next generation and epoch", () => {
    for (let i = 0; i < 3; i++) slotsAcquire(base, 1, i, 0, 1, abi.SLOT_STATE_LIVE);
    slotsRecycle(base, 1);
    slotsRecycle(base, 3);
    expect<u32>(slotsAcquire(base, 1, 9, 0, 1, abi.SLOT_STATE_LIVE)).toBe(3);
    expect<u32>(generationOf(base, 3)).toBe(2);
    expect<u32>(epochOf(base, 3)).toBe(2);
    expect<u32>(slotsAcquire(base, 1, 9, 0, 1, abi.SLOT_STATE_LIVE)).toBe(1);
    expect<u32>(slotsAcquire(base, 1, 9, 0, 1, abi.SLOT_STATE_LIVE)).toBe(4);
  });

  test("tells live, stale and foreign handles apart", () => {
    const slot = slotsAcquire(base, 1, 0, 0, 1, abi.SLOT_STATE_LIVE);
    expect<u32>(slotsVerify(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotsVerify(base, slot, 2)).toBe(abi.STATUS_STALE);
    expect<u32>(slotsVerify(base, 0, 0)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotsVerify(base, slot + 1, 1)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotsVerify(base, u32.MAX_VALUE, 1)).toBe(abi.STATUS_FOREIGN);
    slotsRecycle(base, slot);
    expect<u32>(slotsVerify(base, slot, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotsVerify(base, slot, 2)).toBe(abi.STATUS_STALE, "free, though it matches");
  });

  test("retires a slot whose generations are used up instead of wrapping", () => {
    const slot = slotsAcquire(base, 1, 0, 0, 1, abi.SLOT_STATE_LIVE);
    slotsHot(base, slot).generation = 0xfffffffd;
    slotsRecycle(base, slot);
    expect<u32>(slotsAcquire(base, 1, 0, 0, 1, abi.SLOT_STATE_LIVE)).toBe(slot);
    expect<u32>(slotsVerify(base, slot, 0xfffffffe)).toBe(abi.STATUS_OK);
    slotsRecycle(base, slot);
    expect<u32>(slotsHot(base, slot).state).toBe(abi.SLOT_STATE_RETIRED);
    expect<u32>(slotsVerify(base, slot, 0xffffffff)).toBe(abi.STATUS_STALE);
    expect<u32>(load<u32>(base, abi.CONTROL_OFF_SLOT_RETIRED_COUNT)).toBe(1);
    expect<u32>(slotsAcquire(base, 1, 0, 0, 1, abi.SLOT_STATE_LIVE)).toBe(slot + 1);
  });

  test("changes the epoch on every rebind and skips 0", () => {
    const slot = slotsAcquire(base, 1, 5, 0, 1, abi.SLOT_STATE_LIVE);
    slotsRebind(base, slot, 3);
    expect<u32>(epochOf(base, slot)).toBe(2);
    expect<u32>(slotsHot(base, slot).offset).toBe(3);
    slotsCold(base, slot).epoch = u32.MAX_VALUE;
    slotsRebind(base, slot, 2);
    expect<u32>(epochOf(base, slot)).toBe(1);
  });
});
