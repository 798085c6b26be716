import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  arenaMetadataBytes,
  arenaOpen,
  check,
  slotFree,
  slotPin,
  slotResolve,
  slotUnpin,
} from "../../assembly/index";
import {
  GRANULE_BYTES,
  GRANULE_SHIFT,
  Random,
  arenaAddress,
  coldAddress,
  epochOf,
  generationOf,
  hotAddress,
  offsetOf,
  plane,
  planeWithArena,
  poolAddress,
  status,
} from "./support";

let base: u32 = 0;

describe("arena: open and close", () => {
  test("computes metadata bytes for the capacities it accepts, 0 for others", () => {
    expect<u32>(arenaMetadataBytes(0, 6)).toBe(0);
    expect<u32>(arenaMetadataBytes(abi.ARENA_GRANULES_MAX + 1, 6)).toBe(0);
    expect<u32>(arenaMetadataBytes(u32.MAX_VALUE, 6)).toBe(0);
    expect<u32>(arenaMetadataBytes(1, 6)).toBe(64);
    expect<u32>(arenaMetadataBytes(abi.ARENA_GRANULES_MAX, 6) % 64).toBe(0);
    expect<u32>(arenaMetadataBytes(abi.ARENA_GRANULES_MAX, 12) % 64).toBe(0);
  });

  test("STATUS_BAD_ARGUMENT: refuses a capacity, granule or pool out of range", () => {
    base = plane(8, 4, 64);
    expect<u32>(arenaOpen(base, 0, 0, 6)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(arenaOpen(base, 0, abi.ARENA_GRANULES_MAX + 1, 6)).toBe(0);
    expect<u32>(arenaOpen(base, 0, 1, abi.GRANULE_SHIFT_MIN - 1)).toBe(0);
    expect<u32>(arenaOpen(base, 0, 1, abi.GRANULE_SHIFT_MAX + 1)).toBe(0);
    expect<u32>(arenaOpen(base, abi.POOL_COUNT, 1, 6)).toBe(0);
    expect<u32>(arenaOpen(base, abi.POOL_COUNT - 1, 1, abi.GRANULE_SHIFT_MAX)).toBe(1);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_NO_METADATA: refuses when the region or the arena table is full", () => {
    base = plane(8, 3, 64);
    expect<u32>(arenaOpen(base, 0, 4096, 6)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_METADATA);
    expect<u32>(arenaOpen(base, 0, 1, 6)).toBe(1);
    expect<u32>(arenaOpen(base, 0, 1, 6)).toBe(2);
    expect<u32>(arenaOpen(base, 0, 1, 6)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_METADATA);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(arenaOpen(base, 0, 1, 6)).toBe(1);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_NO_ARENA: refuses arenas that are closed, 0 or outside the table", () => {
    base = plane(8, 3, 64);
    const arenas: u32[] = [0, 1, 2, 3, u32.MAX_VALUE];
    for (let i = 0; i < arenas.length; i++) {
      expect<u32>(arenaClose(base, arenas[i])).toBe(abi.STATUS_NO_ARENA);
      expect<u32>(arenaAllocate(base, arenas[i], 1, 1)).toBe(0);
      expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
      expect<u32>(arenaAllocateWhole(base, arenas[i], 1)).toBe(0);
      expect<u32>(status(base)).toBe(abi.STATUS_NO_ARENA);
    }
  });

  test("STATUS_NOT_EMPTY: refuses to close an arena that has live blocks", () => {
    base = planeWithArena(8, 64);
    const slot = arenaAllocate(base, 1, 1, 1);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_NOT_EMPTY);
    slotFree(base, slot, 1);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_NO_ARENA);
    expect<u32>(check(base)).toBe(0);
  });
});

describe("arena: allocate and free", () => {
  beforeEach(() => {
    base = planeWithArena(8, 100);
  });

  test("STATUS_BAD_ARGUMENT: refuses 0 bytes and alignments that are no power of two", () => {
    expect<u32>(arenaAllocate(base, 1, 0, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
    expect<u32>(arenaAllocate(base, 1, 1, 0)).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 1, 48)).toBe(0);
    expect<u32>(arenaAllocateWhole(base, 1, 0)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_BAD_ARGUMENT);
  });

  test("STATUS_NO_ROOM: refuses what is larger than the largest block, up to 32 bits", () => {
    expect<u32>(arenaAllocate(base, 1, 64 * GRANULE_BYTES + 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(arenaAllocate(base, 1, u32.MAX_VALUE, 1)).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 1, 0x80000000)).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 64 * GRANULE_BYTES, 1)).toBe(1);
    expect<u32>(arenaAllocate(base, 1, 64 * GRANULE_BYTES, 1)).toBe(0);
  });

  test("STATUS_NO_SLOT: refuses when the slot table is full and leaves the tree alone", () => {
    for (let slot: u32 = 1; slot <= 7; slot++) {
      expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(slot);
    }
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_SLOT);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_SLOT);
    expect<u32>(check(base)).toBe(0);
  });

  test("places a block at a multiple of its alignment", () => {
    arenaAllocate(base, 1, 1, 1);
    const slot = arenaAllocate(base, 1, 1, 16 * GRANULE_BYTES);
    expect<u32>(offsetOf(base, slot) % 16).toBe(0);
    expect<u32>(load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING)).toBe(4);
    expect<u32>(load<u32>(hotAddress(base, slot), abi.HOT_OFF_REQUESTED)).toBe(1);
  });

  test("STATUS_STALE: refuses a double free and a free by an old handle", () => {
    const slot = arenaAllocate(base, 1, 1, 1);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotFree(base, slot, 2)).toBe(abi.STATUS_STALE);
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(slot);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotResolve(base, slot, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotResolve(base, slot, 2)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_FOREIGN: refuses slots that were never handed out", () => {
    arenaAllocate(base, 1, 1, 1);
    const slots: u32[] = [0, 2, 8, u32.MAX_VALUE];
    for (let i = 0; i < slots.length; i++) {
      expect<u32>(slotFree(base, slots[i], 1)).toBe(abi.STATUS_FOREIGN);
      expect<u32>(slotUnpin(base, slots[i], 1)).toBe(abi.STATUS_FOREIGN);
      expect<u32>(slotResolve(base, slots[i], 1)).toBe(abi.STATUS_FOREIGN);
      expect<u32>(slotPin(base, slots[i], 1)).toBe(0);
      expect<u32>(status(base)).toBe(abi.STATUS_FOREIGN);
    }
  });

  test("owns an arena whole, whatever its length, and refuses others meanwhile", () => {
    const bytes = 100 * GRANULE_BYTES;
    expect<u32>(arenaAllocateWhole(base, 1, bytes + 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ROOM);
    const slot = arenaAllocateWhole(base, 1, bytes - 5);
    expect<u32>(slot).toBe(1);
    expect<u32>(load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING)).toBe(abi.ORDER_WHOLE);
    expect<u32>(load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_WHOLE_SLOT)).toBe(slot);
    expect<u64>(load<u64>(poolAddress(base, 0), abi.POOL_OFF_CLAIMED)).toBe(bytes);
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(0);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ROOM);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    arenaAllocate(base, 1, 1, 1);
    expect<u32>(arenaAllocateWhole(base, 1, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_NO_ROOM);
  });

  test("equals a model of its counters, checked at every step, seed 0x0badcafe", () => {
    base = planeWithArena(48, 100);
    const random = new Random(0x0badcafe);
    const live = new Array<u32>();
    let granted: u64 = 0;
    let requested: u64 = 0;
    for (let step = 0; step < 4000; step++) {
      if (random.below(2) == 0) {
        const bytes = 1 + random.below(10 * GRANULE_BYTES);
        const slot = arenaAllocate(base, 1, bytes, (<u32>1) << random.below(9));
        if (slot != 0) {
          live.push(slot);
          requested += bytes;
          granted += (<u64>GRANULE_BYTES) << load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING);
        }
      } else if (live.length != 0) {
        const i = random.below(live.length);
        const slot = live[i];
        live[i] = live[live.length - 1];
        live.pop();
        requested -= load<u32>(hotAddress(base, slot), abi.HOT_OFF_REQUESTED);
        granted -= (<u64>GRANULE_BYTES) << load<u8>(hotAddress(base, slot), abi.HOT_OFF_SIZING);
        expect<u32>(slotFree(base, slot, generationOf(base, slot))).toBe(abi.STATUS_OK);
      }
      const row = arenaAddress(base, 1);
      expect<u64>(load<u64>(row, abi.ARENA_OFF_CLAIMED)).toBe(granted);
      const usage = ((<u64>live.length) << abi.USAGE_COUNT_SHIFT) + requested;
      expect<u64>(load<u64>(row, abi.ARENA_OFF_USAGE)).toBe(usage);
      expect<u32>(check(base)).toBe(0);
    }
  });
});

describe("arena: pin and unpin", () => {
  beforeEach(() => {
    base = planeWithArena(8, 100);
  });

  test("STATUS_PINNED: refuses to free a block until its last pin is gone", () => {
    const slot = arenaAllocate(base, 1, 1, 1);
    expect<u32>(slotPin(base, slot, 1)).toBe(epochOf(base, slot));
    expect<u32>(slotPin(base, slot, 1)).toBe(epochOf(base, slot));
    expect<u32>(load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PINNED_COUNT)).toBe(1);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_PINNED);
    expect<u32>(slotUnpin(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_PINNED);
    expect<u32>(slotUnpin(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PINNED_COUNT)).toBe(0);
    expect<u32>(slotFree(base, slot, 1)).toBe(abi.STATUS_OK);
    expect<u32>(slotPin(base, slot, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_STALE);
    expect<u32>(slotUnpin(base, slot, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(check(base)).toBe(0);
  });

  test("STATUS_NOT_PINNED: refuses an unpin without a pin", () => {
    const slot = arenaAllocate(base, 1, 1, 1);
    expect<u32>(slotUnpin(base, slot, 1)).toBe(abi.STATUS_NOT_PINNED);
  });

  test("STATUS_PIN_LIMIT: refuses one pin more than the limit", () => {
    const slot = arenaAllocate(base, 1, 1, 1);
    for (let i = 0; i < abi.PIN_COUNT_MAX; i++) slotPin(base, slot, 1);
    expect<u32>(slotPin(base, slot, 1)).toBe(0);
    expect<u32>(status(base)).toBe(abi.STATUS_PIN_LIMIT);
    expect<u32>(load<u16>(coldAddress(base, slot), abi.COLD_OFF_PINS)).toBe(abi.PIN_COUNT_MAX);
  });
});

describe("arena: pools", () => {
  test("adds the arenas of one pool and keeps the counters of another apart", () => {
    base = plane(8, 4, 4096);
    expect<u32>(arenaOpen(base, 2, 16, GRANULE_SHIFT)).toBe(1);
    expect<u32>(arenaOpen(base, 2, 16, GRANULE_SHIFT)).toBe(2);
    expect<u32>(arenaOpen(base, 5, 16, GRANULE_SHIFT)).toBe(3);
    for (let arena: u32 = 1; arena <= 3; arena++) arenaAllocate(base, arena, 100, 1);
    expect<u64>(load<u64>(poolAddress(base, 2), abi.POOL_OFF_REQUESTED_PEAK)).toBe(200);
    expect<u64>(load<u64>(poolAddress(base, 5), abi.POOL_OFF_REQUESTED_PEAK)).toBe(100);
    expect<u32>(check(base)).toBe(0);
  });
});
