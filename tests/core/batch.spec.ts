import * as abi from "../../assembly/abi";
import { arenaAllocate, check, slotFreeBatch, slotPin } from "../../assembly/index";
import {
  arenaAddress,
  garbage,
  generationOf,
  planeWithSlabs,
  status,
  liveCountOf,
} from "./support";

function put(entries: u32, index: u32, slot: u32, generation: u32): void {
  store<u32>(entries + index * abi.BATCH_ENTRY_BYTES, slot, abi.BATCH_OFF_SLOT);
  store<u32>(entries + index * abi.BATCH_ENTRY_BYTES, generation, abi.BATCH_OFF_GENERATION);
}

function statusAt(entries: u32, index: u32): u32 {
  return load<u32>(entries + index * abi.BATCH_ENTRY_BYTES, abi.BATCH_OFF_GENERATION);
}

describe("batch", () => {
  test("frees every handle in one call", () => {
    const base = planeWithSlabs(1024, 16);
    const entries = garbage(1000 * abi.BATCH_ENTRY_BYTES);
    for (let index: u32 = 0; index < 1000; index++) {
      const slot = arenaAllocate(base, 1, 1 + (index & 511), 1);
      put(entries, index, slot, generationOf(base, slot));
    }
    expect<u32>(slotFreeBatch(base, entries, 1000)).toBe(0);
    for (let index: u32 = 0; index < 1000; index++) {
      expect<u32>(statusAt(entries, index)).toBe(abi.STATUS_OK);
    }
    expect<u32>(liveCountOf(base, 1)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("says which handles it refused, and frees the rest", () => {
    const base = planeWithSlabs(64, 16);
    const entries = garbage(6 * abi.BATCH_ENTRY_BYTES);
    const first = arenaAllocate(base, 1, 64, 1);
    const pinned = arenaAllocate(base, 1, 64, 1);
    const last = arenaAllocate(base, 1, 64, 1);
    slotPin(base, pinned, generationOf(base, pinned));
    put(entries, 0, first, generationOf(base, first));
    put(entries, 1, pinned, generationOf(base, pinned));
    put(entries, 2, first, generationOf(base, first));
    put(entries, 3, 0, 1);
    put(entries, 4, 63, 1);
    put(entries, 5, last, generationOf(base, last));
    expect<u32>(slotFreeBatch(base, entries, 6)).toBe(4);
    expect<u32>(statusAt(entries, 0)).toBe(abi.STATUS_OK);
    expect<u32>(statusAt(entries, 1)).toBe(abi.STATUS_PINNED);
    expect<u32>(statusAt(entries, 2)).toBe(abi.STATUS_STALE, "a handle that comes twice");
    expect<u32>(statusAt(entries, 3)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(statusAt(entries, 4)).toBe(abi.STATUS_FOREIGN);
    expect<u32>(statusAt(entries, 5)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_BUSY: touches nothing without the guard", () => {
    const base = planeWithSlabs(64, 16);
    const entries = garbage(abi.BATCH_ENTRY_BYTES);
    const slot = arenaAllocate(base, 1, 64, 1);
    const generation = generationOf(base, slot);
    put(entries, 0, slot, generation);
    store<u32>(base, 1, abi.CONTROL_OFF_GUARD);
    expect<u32>(slotFreeBatch(base, entries, 1)).toBe(1);
    expect<u32>(status(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(statusAt(entries, 0)).toBe(generation);
    store<u32>(base, 0, abi.CONTROL_OFF_GUARD);
    expect<u32>(slotFreeBatch(base, entries, 0)).toBe(0);
    expect<u32>(check(base)).toBe(0);
  });
});
