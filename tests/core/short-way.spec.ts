// The short way of arenaAllocate and slotFree must do exactly what the long way does: two planes, one of which only goes the long
// way, get the same calls and must hold the same bytes after each.
import * as abi from "../../assembly/abi";
import { arenaAllocate as longAllocate, arenaFree as longFree } from "../../assembly/arena";
import { arenaAllocate, check, slotFree, slotPin } from "../../assembly/index";
import { Random, generationOf, planeWithSlabs, stateOf, status } from "./support";

/** Bytes of both planes that matter: all but the header's status and garbage never written. */
function isEqual(left: u32, right: u32): bool {
  const arenaBytes = abi.ARENAS_OFFSET + 2 * abi.ARENA_BYTES - 16;
  if (memory.compare(left + 16, right + 16, arenaBytes) != 0) return false;
  const hot = load<u32>(left, abi.CONTROL_OFF_HOT);
  const used = load<u32>(left, abi.CONTROL_OFF_SLOT_FRESH);
  if (memory.compare(left + hot, right + hot, used * abi.HOT_BYTES) != 0) return false;
  const arena = left + abi.ARENAS_OFFSET + abi.ARENA_BYTES;
  const caches = load<u32>(arena, abi.ARENA_OFF_CACHES);
  const cacheBytes = load<u32>(arena, abi.ARENA_OFF_CACHE_CLASS_COUNT) * abi.CACHE_BYTES;
  return memory.compare(left + caches, right + caches, cacheBytes) == 0;
}

describe("short way", () => {
  test("leaves every row as the long way does, seed 0x5ca1ab1e", () => {
    const left = planeWithSlabs(512, 16);
    const right = planeWithSlabs(512, 16);
    const random = new Random(0x5ca1ab1e);
    const slots = new Array<u32>();
    let cachedCount = 0;
    for (let step = 0; step < 30000; step++) {
      if (random.below(2) == 0) {
        const bytes = (<u32>1) << random.below(18);
        const alignment = (<u32>1) << random.below(18);
        const requested = bytes + random.below(3) * (bytes >> 2);
        const slot = arenaAllocate(left, 1, requested, alignment);
        expect<u32>(longAllocate(right, 1, requested, alignment)).toBe(slot);
        if (slot != 0) slots.push(slot);
      } else if (slots.length != 0) {
        const i = random.below(slots.length);
        const slot = slots[i];
        slots[i] = slots[slots.length - 1];
        slots.pop();
        const generation = generationOf(left, slot);
        expect<u32>(slotFree(left, slot, generation)).toBe(abi.STATUS_OK);
        expect<u32>(longFree(right, slot, generation)).toBe(abi.STATUS_OK);
        if (stateOf(left, slot) == abi.SLOT_STATE_CACHED) cachedCount += 1;
      }
      if (!isEqual(left, right)) expect<i32>(step).toBe(-1, "the planes differ");
      if (step % 100 == 0) expect<u32>(check(left)).toBe(0);
    }
    expect<i32>(cachedCount).toBeGreaterThan(3000);
  });

  test("refuses what the long way refuses, with the same status", () => {
    const base = planeWithSlabs(16, 16);
    const slot = arenaAllocate(base, 1, 100, 1);
    const other = arenaAllocate(base, 1, 100, 1);
    slotFree(base, other, 1);
    expect<u32>(slotFree(base, slot, 2)).toBe(abi.STATUS_STALE);
    expect<u32>(slotFree(base, 0, 0)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotFree(base, 15, 1)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotFree(base, u32.MAX_VALUE, 1)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(slotFree(base, other, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotFree(base, other, 2)).toBe(abi.STATUS_STALE);
    slotPin(base, slot, 1);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_PINNED);

    const requests: u32[] = [0, 1, 100, 0, 100, 48, 1, 100, 0x20000, u32.MAX_VALUE, 0x80000000];
    for (let i = 0; i + 1 < requests.length; i++) {
      const isAligned = popcnt(requests[i + 1]) == 1 && requests[i + 1] <= 0x10000;
      if (requests[i] != 0 && requests[i] != u32.MAX_VALUE && isAligned) continue;
      expect<u32>(arenaAllocate(base, 1, requests[i], requests[i + 1])).toBe(0);
    }
    expect<u32>(arenaAllocate(base, 0, 100, 1)).toBe(0);
    expect<u32>(arenaAllocate(base, 2, 100, 1)).toBe(0);
    expect<u32>(arenaAllocate(base, u32.MAX_VALUE, 100, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    store<u32>(base, 1, abi.CONTROL_OFF_GUARD);
    expect<u32>(arenaAllocate(base, 1, 100, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BUSY);
    store<u32>(base, 0, abi.CONTROL_OFF_GUARD);
    expect<u32>(arenaAllocate(base, 1, 100, 1)).toBe(other);
    expect<u32>(check(base)).toBe(0);
  });
});
