// What recovery rebuilds, and what it names instead. That it does so after a cut at any store is
// tested from outside, in tests/node/interrupted-core.test.ts.
import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  arenaMetadataBytes,
  arenaOpen,
  check,
  recover,
  slotFree,
  slotPin,
} from "../../assembly/index";
import {
  GRANULE_SHIFT,
  Random,
  SLAB_UNITS,
  arenaAddress,
  epochOf,
  generationOf,
  hotAddress,
  plane,
  planeWithSlabs,
  stateOf,
  liveCountOf,
} from "./support";

const MIB: u32 = 1 << 20;
let base: u32 = 0;

/** A plane with pages, runs, cached blocks, pins and gaps in its one arena of 8 MiB. */
function usedPlane(): u32 {
  const used = planeWithSlabs(256, 32);
  const random = new Random(0xc0ffee);
  for (let step = 0; step < 400; step++) {
    const slot = 1 + random.below(120);
    if (random.below(3) != 0) {
      arenaAllocate(used, 1, 1 << random.below(18), 1);
    } else if (stateOf(used, slot) == abi.SLOT_STATE_LIVE) {
      slotFree(used, slot, generationOf(used, slot));
    }
  }
  slotPin(used, 1, generationOf(used, 1));
  assert(check(used) == 0);
  return used;
}

/** Fills the metadata of arena 1 with garbage. */
function ruin(): void {
  const row = arenaAddress(base, 1);
  const bytes = load<u32>(row, abi.ARENA_OFF_METADATA_BYTES);
  memory.fill(base + load<u32>(row, abi.ARENA_OFF_TREE), 0x5a, bytes);
}

describe("recover", () => {
  beforeEach(() => {
    base = usedPlane();
  });

  test("rebuilds trees, slabs, caches and counters from the slots alone", () => {
    const live = liveCountOf(base, 1);
    ruin();
    store<u32>(base, 0, abi.CONTROL_OFF_SLOT_FREE_HEAD);
    store<u32>(base, 12345, abi.CONTROL_OFF_SLOT_BOUND_COUNT);
    store<u32>(base, 0, abi.CONTROL_OFF_REGION_FREE_HEAD);
    store<u64>(arenaAddress(base, 1), 99999, abi.ARENA_OFF_USAGE);
    store<u32>(base, 1, abi.CONTROL_OFF_GUARD);
    expect<u32>(check(base)).toBe(abi.STATUS_BUSY);
    expect<u32>(recover(base)).toBe(0);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(liveCountOf(base, 1)).toBe(live);
    expect<u32>(load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PINNED_COUNT)).toBe(1);
  });

  test("gives every live block another epoch, so that no view of it is trusted", () => {
    const epoch = epochOf(base, 1);
    expect<u32>(recover(base)).toBe(0);
    expect<u32>(epochOf(base, 1)).not.toBe(epoch);
  });

  test("keeps a block that owns its arena whole, and arenas of both kinds", () => {
    base = plane(64, 6, 16 * SLAB_UNITS);
    const whole = arenaAllocateWhole(base, arenaOpen(base, 3, SLAB_UNITS, GRANULE_SHIFT), MIB);
    const plain = arenaOpen(base, 1, 1000, GRANULE_SHIFT);
    const gap = arenaOpen(base, 2, 1000, GRANULE_SHIFT);
    const last = arenaOpen(base, 2, SLAB_UNITS, GRANULE_SHIFT);
    const run = arenaAllocate(base, last, MIB / 2, 1);
    arenaAllocate(base, plain, 40_000, 1);
    expect<u32>(arenaClose(base, gap)).toBe(abi.STATUS_OK);
    store<u32>(base, 0, abi.CONTROL_OFF_REGION_FREE_HEAD);
    expect<u32>(recover(base)).toBe(0);
    expect<u32>(slotFree(base, whole, generationOf(base, whole))).toBe(abi.STATUS_OK);
    expect<u32>(slotFree(base, run, generationOf(base, run))).toBe(abi.STATUS_OK);
    expect<u32>(arenaAllocateWhole(base, last, MIB)).not.toBe(0);
    expect<u32>(arenaMetadataBytes(1000, GRANULE_SHIFT)).toBeGreaterThan(0);
    expect<u32>(arenaOpen(base, 2, 1000, GRANULE_SHIFT)).toBe(gap);
  });

  test("names what no slot table can have, and leaves the guard taken", () => {
    const hot = hotAddress(base, 1);
    const offset = load<u32>(hot, abi.HOT_OFF_OFFSET);
    store<u32>(hot, offset + 1, abi.HOT_OFF_OFFSET);
    expect<u32>(recover(base)).toBe(abi.INV_TREE_4);
    store<u32>(hot, 0xffffffff, abi.HOT_OFF_OFFSET);
    expect<u32>(recover(base)).toBe(abi.INV_TREE_4);
    expect<u32>(check(base)).toBe(abi.STATUS_BUSY);
    store<u32>(hot, offset, abi.HOT_OFF_OFFSET);
    store<u16>(hot, 2, abi.HOT_OFF_ARENA);
    expect<u32>(recover(base)).toBe(abi.INV_SLOT_2);
    store<u16>(hot, 1, abi.HOT_OFF_ARENA);
    store<u8>(hot, 77, abi.HOT_OFF_STATE);
    expect<u32>(recover(base)).toBe(abi.INV_SLOT_1);
    store<u8>(hot, <u8>abi.SLOT_STATE_LIVE, abi.HOT_OFF_STATE);
    expect<u32>(recover(base)).toBe(0);
  });

  test("names arena rows that overlap or leave the region", () => {
    const row = arenaAddress(base, 1);
    const tree = load<u32>(row, abi.ARENA_OFF_TREE);
    store<u32>(row, tree + 64, abi.ARENA_OFF_TREE);
    expect<u32>(recover(base)).toBe(abi.INV_REGION_1);
    store<u32>(row, 64, abi.ARENA_OFF_TREE);
    expect<u32>(recover(base)).toBe(abi.INV_REGION_1);
    store<u32>(row, tree, abi.ARENA_OFF_TREE);
    memory.copy(arenaAddress(base, 2), row, abi.ARENA_BYTES);
    expect<u32>(recover(base)).toBe(abi.INV_REGION_1);
  });

  test("answers on a plane whose tables but the header are garbage, seed 0x5eed", () => {
    const random = new Random(0x5eed);
    const totalBytes = load<u32>(base, abi.CONTROL_OFF_TOTAL_BYTES);
    for (let round = 0; round < 40; round++) {
      for (let i = 0; i < 200; i++) {
        const at = abi.CONTROL_HEADER_BYTES + 4 * random.below((totalBytes - 192) >> 2);
        store<u32>(
          base + at,
          random.below(2) == 0 ? random.below(300) : random.below(u32.MAX_VALUE),
        );
      }
      recover(base);
    }
    expect<u32>(recover(base)).toBeGreaterThan(abi.INV_TREE_1 - 1);
  });

  test("refuses what is no control plane", () => {
    store<u32>(base, 0);
    expect<u32>(recover(base)).toBe(abi.STATUS_BAD_MAGIC);
  });
});
