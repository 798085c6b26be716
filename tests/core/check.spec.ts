// Each invariant is broken by one damaged word, and `check` must name it.
import * as abi from "../../assembly/abi";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  arenaMetadataBytes,
  arenaOpen,
  check,
  compactBegin,
  compactNext,
  slotFree,
  slotPin,
} from "../../assembly/index";
import {
  GRANULE_BYTES,
  GRANULE_SHIFT,
  Random,
  arenaAddress,
  cacheAddress,
  coldAddress,
  generationOf,
  hotAddress,
  plane,
  planeWithArena,
  planeWithSlabs,
  poolAddress,
  superblockAddress,
  treeAddress,
} from "./support";

let base: u32 = 0;

/** What `check` says while the word at `address` is `value`; the word is restored. */
function checkWith(address: u32, value: u32): u32 {
  const before = load<u32>(address);
  store<u32>(address, value);
  const broken = check(base);
  store<u32>(address, before);
  expect<u32>(check(base)).toBe(0, "restored");
  return broken;
}

/** What `check` says while the word at `address` is higher by `delta`. */
function checkAfterAdding(address: u32, delta: u32): u32 {
  return checkWith(address, load<u32>(address) + delta);
}

/** Address of the row of `order` in the tree of arena 1. */
function orderAddress(order: u32): u32 {
  return treeAddress(base, 1) + abi.TREE_HEADER_BYTES + order * abi.ORDER_BYTES;
}

/** Address of the first word of a level of `order`. */
function levelAddress(order: u32, level: u32): u32 {
  return treeAddress(base, 1) + load<u32>(orderAddress(order) + 4 * level);
}

describe("check", () => {
  // Arena 1 of 128 granules: slots 1 to 12 of one granule, of which 2, 5 and 10 are free again, and
  // slot 13 of eight granules; slot 3 is pinned.
  beforeEach(() => {
    base = plane(32, 8, 4096);
    arenaOpen(base, 1, 128, GRANULE_SHIFT);
    for (let i = 0; i < 12; i++) arenaAllocate(base, 1, GRANULE_BYTES - 1, 1);
    arenaAllocate(base, 1, 8 * GRANULE_BYTES, 1);
    slotFree(base, 2, 1);
    slotFree(base, 5, 1);
    slotFree(base, 10, 1);
    slotPin(base, 3, 1);
    expect<u32>(check(base)).toBe(0);
  });

  test("INV-TREE-1: a free block with a free buddy", () => {
    // Granules 1, 4 and 9 are free. Bits 0 and 1 instead of 1 and 4 keep every count.
    const word = levelAddress(0, 0);
    expect<u32>(load<u32>(word)).toBe(0b1000010010);
    expect<u32>(checkWith(word, 0b1000000011)).toBe(abi.INV_TREE_1);
  });

  test("INV-TREE-2: a wrong summary bit, a bit past the end, a wrong level table", () => {
    const summary = levelAddress(0, 1);
    expect<u32>(checkWith(summary, 0)).toBe(abi.INV_TREE_2);
    expect<u32>(checkWith(summary, 3)).toBe(abi.INV_TREE_2);
    expect<u32>(checkWith(summary, 5)).toBe(abi.INV_TREE_2);
    expect<u32>(checkAfterAdding(levelAddress(5, 0), 16)).toBe(abi.INV_TREE_2);
    expect<u32>(checkAfterAdding(orderAddress(0), 8)).toBe(abi.INV_TREE_2);
    expect<u32>(checkAfterAdding(orderAddress(0) + 4, 8)).toBe(abi.INV_TREE_2);
    expect<u32>(checkAfterAdding(orderAddress(0) + abi.ORDER_OFF_LEVEL_COUNT, 1)).toBe(
      abi.INV_TREE_2,
    );
    expect<u32>(checkAfterAdding(orderAddress(0) + abi.ORDER_OFF_BLOCK_COUNT, 1)).toBe(
      abi.INV_TREE_2,
    );
    expect<u32>(checkAfterAdding(treeAddress(base, 1) + abi.TREE_OFF_CAPACITY, 1)).toBe(
      abi.INV_TREE_2,
    );
    expect<u32>(checkAfterAdding(treeAddress(base, 1) + abi.TREE_OFF_ORDER_MAX, 1)).toBe(
      abi.INV_TREE_2,
    );
  });

  test("INV-TREE-3: a mask bit or a count of free blocks that is wrong", () => {
    const mask = treeAddress(base, 1) + abi.TREE_OFF_MASK;
    expect<u32>(checkWith(mask, load<u32>(mask) ^ 1)).toBe(abi.INV_TREE_3);
    expect<u32>(checkWith(mask, load<u32>(mask) | (1 << 30))).toBe(abi.INV_TREE_3);
    expect<u32>(checkAfterAdding(orderAddress(0) + abi.ORDER_OFF_FREE_COUNT, 1)).toBe(
      abi.INV_TREE_3,
    );
  });

  test("INV-TREE-4: a free block on a live one, a live block on another, a wrong sum", () => {
    const word = levelAddress(0, 0);
    expect<u32>(checkWith(word, 0b1000010100)).toBe(abi.INV_TREE_4, "granule 2 is slot 3's");
    expect<u32>(checkWith(hotAddress(base, 1), 2)).toBe(abi.INV_TREE_4, "slot 1 onto slot 3");
    expect<u32>(checkAfterAdding(treeAddress(base, 1) + abi.TREE_OFF_FREE, 1)).toBe(abi.INV_TREE_4);
  });

  test("INV-TREE-4: the target of a move counts as claimed, and only while it is pending", () => {
    compactBegin(base, 1, 0, false);
    expect<u32>(compactNext(base)).not.toBe(0);
    expect<u32>(check(base)).toBe(0);
    expect<u32>(checkWith(base + abi.CONTROL_OFF_PLAN_SLOT, 0)).toBe(abi.INV_TREE_4);
  });

  test("INV-SLOT-1: counts of states, unknown states, a table end that is wrong", () => {
    expect<u32>(checkAfterAdding(base + abi.CONTROL_OFF_SLOT_BOUND_COUNT, 1)).toBe(abi.INV_SLOT_1);
    expect<u32>(checkAfterAdding(base + abi.CONTROL_OFF_SLOT_FREE_COUNT, 1)).toBe(abi.INV_SLOT_1);
    expect<u32>(checkAfterAdding(base + abi.CONTROL_OFF_SLOT_RETIRED_COUNT, 1)).toBe(
      abi.INV_SLOT_1,
    );
    const state = hotAddress(base, 1) + abi.HOT_OFF_SIZING;
    expect<u32>(checkWith(state, 0x0500)).toBe(abi.INV_SLOT_1);
    expect<u32>(checkWith(base + abi.CONTROL_OFF_SLOT_FRESH, 0)).toBe(abi.INV_SLOT_1);
    expect<u32>(checkWith(base + abi.CONTROL_OFF_SLOT_FRESH, 33)).toBe(abi.INV_SLOT_1);
  });

  test("INV-SLOT-2: a live block outside its arena, unaligned, or of an impossible length", () => {
    const hot = hotAddress(base, 13);
    expect<u32>(checkWith(hot + abi.HOT_OFF_OFFSET, 128)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hot + abi.HOT_OFF_OFFSET, 0xfffffff8)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkAfterAdding(hot + abi.HOT_OFF_OFFSET, 1)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hot + abi.HOT_OFF_REQUESTED, 8 * GRANULE_BYTES + 1)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hot + abi.HOT_OFF_REQUESTED, 0)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hot + abi.HOT_OFF_GENERATION, 0)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hot + abi.HOT_OFF_GENERATION, u32.MAX_VALUE)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkAfterAdding(hot + abi.HOT_OFF_SIZING, 60)).toBe(abi.INV_SLOT_2);
    const cold = coldAddress(base, 13);
    expect<u32>(checkAfterAdding(hot + abi.HOT_OFF_SIZING, 1 << 16)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkAfterAdding(hot + abi.HOT_OFF_SIZING, -(1 << 16))).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(cold + abi.COLD_OFF_EPOCH, 0)).toBe(abi.INV_SLOT_2);
    const pins = coldAddress(base, 3) + abi.COLD_OFF_PINS;
    expect<u32>(checkWith(pins, 0)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(pins, abi.PIN_COUNT_MAX + 1)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(arenaAddress(base, 1) + abi.ARENA_OFF_WHOLE_SLOT, 1)).toBe(
      abi.INV_SLOT_2,
    );
  });

  test("INV-SLOT-2: an arena owned whole by a slot that does not know it", () => {
    const arena = arenaOpen(base, 0, 100, GRANULE_SHIFT);
    const slot = arenaAllocateWhole(base, arena, 1);
    expect<u32>(check(base)).toBe(0);
    const whole = arenaAddress(base, arena) + abi.ARENA_OFF_WHOLE_SLOT;
    expect<u32>(checkWith(whole, 0)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(hotAddress(base, slot) + abi.HOT_OFF_OFFSET, 1)).toBe(abi.INV_SLOT_2);
    slotFree(base, slot, 1);
    expect<u32>(checkWith(whole, 1)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(whole, u32.MAX_VALUE)).toBe(abi.INV_SLOT_2);
  });

  test("INV-SLOT-3: a free list with a cycle, a live slot, a stranger or a wrong end", () => {
    // The list is 10, 5, 2.
    const next = hotAddress(base, 10) + abi.HOT_OFF_REQUESTED;
    expect<u32>(checkWith(next, 10)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(next, 1)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(next, 31)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(next, u32.MAX_VALUE)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(next, 0)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(hotAddress(base, 2) + abi.HOT_OFF_REQUESTED, 5)).toBe(abi.INV_SLOT_3);
    expect<u32>(checkWith(base + abi.CONTROL_OFF_SLOT_FREE_HEAD, 5)).toBe(abi.INV_SLOT_3);
  });

  test("INV-ARENA-1: claimed bytes that are not the sum", () => {
    expect<u32>(checkAfterAdding(arenaAddress(base, 1) + abi.ARENA_OFF_CLAIMED, 64)).toBe(
      abi.INV_ARENA_1,
    );
  });

  test("INV-ARENA-2: requested bytes that are not the sum", () => {
    expect<u32>(checkAfterAdding(arenaAddress(base, 1) + abi.ARENA_OFF_USAGE, 1)).toBe(
      abi.INV_ARENA_2,
    );
  });

  test("INV-ARENA-3: a live count that is not the number", () => {
    expect<u32>(checkAfterAdding(arenaAddress(base, 1) + abi.ARENA_OFF_USAGE + 4, 1 << 8)).toBe(
      abi.INV_ARENA_3,
    );
  });

  test("INV-ARENA-4: a pinned count that is not the number", () => {
    expect<u32>(checkAfterAdding(arenaAddress(base, 1) + abi.ARENA_OFF_PINNED_COUNT, 1)).toBe(
      abi.INV_ARENA_4,
    );
  });

  test("INV-POOL-1: counters that are not sums, exceed their peak, or lie in no pool", () => {
    const pool = poolAddress(base, 1);
    expect<u32>(checkAfterAdding(pool + abi.POOL_OFF_HEADROOM, 1)).toBe(abi.INV_POOL_1);
    expect<u32>(checkWith(pool + abi.POOL_OFF_REQUESTED_PEAK, 1)).toBe(abi.INV_POOL_1);
    expect<u32>(checkWith(pool + abi.POOL_OFF_CLAIMED, 1)).toBe(abi.INV_POOL_1);
    expect<u32>(checkWith(pool + abi.POOL_OFF_CLAIMED_PEAK, 1)).toBe(abi.INV_POOL_1);
    expect<u32>(checkWith(poolAddress(base, 4) + abi.POOL_OFF_CLAIMED, 1)).toBe(abi.INV_POOL_1);
    const poolOfArena = arenaAddress(base, 1) + abi.ARENA_OFF_POOL;
    expect<u32>(checkWith(poolOfArena, 2)).toBe(abi.INV_POOL_1);
    expect<u32>(checkWith(poolOfArena, abi.POOL_COUNT)).toBe(abi.INV_POOL_1);
  });

  test("INV-REGION-1: a broken free list, a tree that is lost or not its arena's", () => {
    arenaOpen(base, 0, 8, GRANULE_SHIFT);
    arenaOpen(base, 0, 8, GRANULE_SHIFT);
    expect<u32>(arenaClose(base, 2)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    const head = base + load<u32>(base, abi.CONTROL_OFF_REGION_FREE_HEAD);
    expect<u32>(checkAfterAdding(head, 64)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(head, 0)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(head, 32)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(head + 4, 0)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(head + 4, u32.MAX_VALUE)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(base + abi.CONTROL_OFF_REGION_FREE_HEAD, 0)).toBe(abi.INV_REGION_1);
    const row = arenaAddress(base, 1);
    expect<u32>(checkWith(row + abi.ARENA_OFF_STATE, abi.ARENA_STATE_CLOSED)).toBe(
      abi.INV_REGION_1,
    );
    expect<u32>(checkAfterAdding(row + abi.ARENA_OFF_TREE, 64)).toBe(abi.INV_REGION_1);
    expect<u32>(checkAfterAdding(row + abi.ARENA_OFF_METADATA_BYTES, 64)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(row + abi.ARENA_OFF_CAPACITY, 0)).toBe(abi.INV_REGION_1);
    expect<u32>(checkWith(arenaAddress(base, 4) + abi.ARENA_OFF_STATE, abi.ARENA_STATE_OPEN)).toBe(
      abi.INV_REGION_1,
    );
  });

  test("INV-REGION-1: two free extents that touch", () => {
    base = plane(8, 8, 4096);
    const treeBytes = arenaMetadataBytes(8, GRANULE_SHIFT);
    arenaOpen(base, 0, 8, GRANULE_SHIFT);
    const region = load<u32>(base, abi.CONTROL_OFF_REGION);
    const rest = load<u32>(base + region + treeBytes);
    store<u32>(base + region + treeBytes, 64);
    store<u32>(base + region + treeBytes + 4, region + treeBytes + 64);
    store<u32>(base + region + treeBytes + 64, rest - 64);
    store<u32>(base + region + treeBytes + 68, 0);
    expect<u32>(check(base)).toBe(abi.INV_REGION_1);
  });

  test("accepts every state of an ordinary life: full, whole, retired, several arenas", () => {
    const arena = arenaOpen(base, 0, 33, GRANULE_SHIFT);
    const whole = arenaAllocateWhole(base, arena, 33 * GRANULE_BYTES);
    store<u32>(hotAddress(base, 1), 0xfffffffe, abi.HOT_OFF_GENERATION);
    expect<u32>(slotFree(base, 1, 0xfffffffe)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
    while (arenaAllocate(base, 1, 1, 1) != 0) expect<u32>(check(base)).toBe(0);
    expect<u32>(slotFree(base, whole, generationOf(base, whole))).toBe(abi.STATUS_OK);
    expect<u32>(arenaClose(base, arena)).toBe(abi.STATUS_OK);
    expect<u32>(check(base)).toBe(0);
  });

  test("answers on a plane of which any one word is garbage, seed 0xfeedbee5", () => {
    const random = new Random(0xfeedbee5);
    const wordCount = load<u32>(base, abi.CONTROL_OFF_TOTAL_BYTES) >> 2;
    let namedCount = 0;
    for (let step = 0; step < 20000; step++) {
      const word = base + 4 * random.below(wordCount);
      if (word == base + abi.CONTROL_OFF_GUARD) continue;
      const before = load<u32>(word);
      store<u32>(word, random.below(2) == 0 ? random.below(200) : random.below(u32.MAX_VALUE));
      if (check(base) != 0) namedCount += 1;
      store<u32>(word, before);
    }
    expect<i32>(namedCount).toBeGreaterThan(0);
    expect<u32>(check(base)).toBe(0);
  });

  test("answers on a plane whose whole content but the header is garbage, seed 0x0ddba115", () => {
    base = planeWithArena(64, 200);
    const random = new Random(0x0ddba115);
    const totalBytes = load<u32>(base, abi.CONTROL_OFF_TOTAL_BYTES);
    for (let round = 0; round < 50; round++) {
      store<u32>(base, random.below(65), abi.CONTROL_OFF_SLOT_FRESH);
      for (let offset: u32 = abi.CONTROL_HEADER_BYTES; offset < totalBytes; offset += 4) {
        store<u32>(base + offset, random.below(u32.MAX_VALUE));
      }
      expect<u32>(check(base)).not.toBe(0);
    }
  });
});

describe("check of a slab arena", () => {
  // Slots 1 to 25 are pages of 12 KiB, 25 to 22 in the second slab; 3 and 4 are cached; slot 26 is a
  // run of 9 granules, slot 27 an exact one, slot 28 a page of 64 bytes.
  beforeEach(() => {
    base = planeWithSlabs(64, 32);
    for (let i = 0; i < 25; i++) arenaAllocate(base, 1, 12288, 1);
    arenaAllocate(base, 1, 36864, 1);
    arenaAllocate(base, 1, 1000000, 1);
    arenaAllocate(base, 1, 1, 1);
    slotFree(base, 3, 1);
    slotFree(base, 4, 1);
    expect<u32>(check(base)).toBe(0);
  });

  test("INV-SLAB-1: a row that its class does not imply, a wrong count, word or bit past the end", () => {
    const row = superblockAddress(base, 0);
    const counts = row + abi.SUPERBLOCK_OFF_FREE_COUNT;
    expect<u32>(checkWith(row, (21 << 16) | 96)).toBe(abi.INV_SLAB_1, "no class of slabs");
    expect<u32>(checkAfterAdding(row, 1)).toBe(abi.INV_SLAB_1, "another class");
    expect<u32>(checkAfterAdding(row, 1 << 16)).toBe(abi.INV_SLAB_1, "page count");
    expect<u32>(checkAfterAdding(counts, 1)).toBe(abi.INV_SLAB_1, "free count");
    expect<u32>(checkWith(row + abi.SUPERBLOCK_OFF_PAGE_UNITS, 0)).toBe(abi.INV_SLAB_1);
    const second = superblockAddress(base, 1) + abi.SUPERBLOCK_OFF_FREE_COUNT;
    expect<u32>(checkAfterAdding(second, 1 << 16)).toBe(abi.INV_SLAB_1, "lowest word");
    const map = base + load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PAGE_MAPS);
    expect<u32>(checkWith(map, 1 << 21)).toBe(abi.INV_SLAB_1, "page 21 of 21");
    expect<u32>(checkWith(row, 0xffff)).toBe(abi.INV_SLAB_1, "slab count");
    const slabCount = arenaAddress(base, 1) + abi.ARENA_OFF_SLAB_COUNT;
    expect<u32>(checkAfterAdding(slabCount, 1)).toBe(abi.INV_SLAB_1);
  });

  test("INV-SLAB-2: a partial set that misses a slab, has a stranger, or counts wrongly", () => {
    const set = base + load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PARTIALS) + 71 * 32;
    const word = treeAddress(base, 1) + load<u32>(set);
    expect<u32>(load<u32>(word)).not.toBe(0, "the set of 12 KiB");
    expect<u32>(checkWith(word, 0)).toBe(abi.INV_SLAB_2);
    expect<u32>(checkWith(word, load<u32>(word) | 1)).toBe(abi.INV_SLAB_2, "a full slab");
    expect<u32>(checkAfterAdding(set + abi.ORDER_OFF_FREE_COUNT, 1)).toBe(abi.INV_SLAB_2);
    expect<u32>(checkAfterAdding(set, 8)).toBe(abi.INV_SLAB_2);
  });

  test("INV-SLAB-4: less room in a mixed slab than a stretch of free units in it", () => {
    compactBegin(base, 1, 0, false);
    const row = superblockAddress(base, 1);
    expect<u32>(load<u16>(row, abi.SUPERBLOCK_OFF_SIZE_CLASS)).toBe(abi.SIZE_CLASS_MIXED);
    expect<u32>(check(base)).toBe(0);
    const room = load<u16>(row, abi.SUPERBLOCK_OFF_ROOM);
    store<u16>(row, 3, abi.SUPERBLOCK_OFF_ROOM);
    expect<u32>(check(base)).toBe(abi.INV_SLAB_4);
    store<u16>(row, room, abi.SUPERBLOCK_OFF_ROOM);
    expect<u32>(check(base)).toBe(0);
  });

  test("INV-SLAB-3: a bound block that is no page, a free page, or the page of another", () => {
    const offset = hotAddress(base, 1) + abi.HOT_OFF_OFFSET;
    expect<u32>(checkAfterAdding(offset, 1)).toBe(abi.INV_SLAB_3);
    expect<u32>(checkWith(offset, 21 * 192)).toBe(abi.INV_SLAB_3, "past the last page");
    expect<u32>(checkWith(offset, abi.SUPERBLOCK_UNITS + 20 * 192)).toBe(abi.INV_SLAB_3, "free");
    expect<u32>(checkWith(offset, 192)).toBe(abi.INV_SLAB_3, "the page of slot 2");
    const second = superblockAddress(base, 1);
    const map = base + load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_PAGE_MAPS);
    const word = map + abi.PAGE_MAP_BYTES;
    const counts = second + abi.SUPERBLOCK_OFF_FREE_COUNT;
    const bits = load<u32>(word);
    store<u32>(counts, load<u32>(counts) - 1);
    store<u32>(word, bits & (bits - 1));
    expect<u32>(check(base)).toBe(abi.INV_SLAB_3, "nobody's page");
    store<u32>(word, bits);
    store<u32>(counts, load<u32>(counts) + 1);
    expect<u32>(check(base)).toBe(0);
  });

  test("INV-SLAB-3 and INV-TREE-4: the target of a move counts as claimed", () => {
    slotFree(base, 1, 1);
    slotFree(base, 2, 1);
    compactBegin(base, 1, 0, false);
    while (compactNext(base) != 0) {
      expect<u32>(check(base)).toBe(0);
      const broken = checkWith(base + abi.CONTROL_OFF_PLAN_SLOT, 0);
      expect<bool>(broken == abi.INV_SLAB_3 || broken == abi.INV_TREE_4).toBe(true);
    }
  });

  test("INV-SLOT-2: a run at a wrong step or past the end, a cached block with a pin", () => {
    const run = hotAddress(base, 26);
    expect<u32>(checkAfterAdding(run, 1)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkWith(run, 0xffffffc0)).toBe(abi.INV_SLOT_2);
    expect<u32>(checkAfterAdding(hotAddress(base, 3) + abi.HOT_OFF_SIZING, 1 << 16)).toBe(
      abi.INV_SLOT_2,
    );
  });

  test("INV-TREE-5: a short map with a granule too few, too many, or another", () => {
    const tree = treeAddress(base, 1);
    const map = load<u32>(tree, abi.TREE_OFF_SHORT_MAP);
    let index: u32 = 0;
    while (load<u32>(tree + map + 4 * index) == 0) index += 1;
    const word = load<u32>(tree + map + 4 * index);
    expect<u32>(checkWith(tree + map + 4 * index, word & (word - 1))).toBe(abi.INV_TREE_5);
    expect<u32>(checkWith(tree + map + 4 * index, word ^ 1)).toBe(abi.INV_TREE_5);
    expect<u32>(checkWith(tree + map, 1)).toBe(abi.INV_TREE_5);
    expect<u32>(checkAfterAdding(tree + abi.TREE_OFF_SHORT_MAP, 8)).toBe(abi.INV_TREE_2);
  });

  test("INV-TREE-4: a run on free granules", () => {
    expect<u32>(checkAfterAdding(hotAddress(base, 27) + abi.HOT_OFF_REQUESTED, 8192)).not.toBe(0);
    expect<u32>(checkAfterAdding(hotAddress(base, 26), 64)).toBe(abi.INV_TREE_4);
  });

  test("INV-CACHE-1: a list with a live slot, a cycle, a wrong end, or a cached slot in none", () => {
    const cache = cacheAddress(base, 71);
    expect<u32>(load<u32>(cache)).toBe(4, "the cache of 12 KiB");
    expect<u32>(checkWith(cache, 5)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkWith(cache, 3)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkWith(cache, u32.MAX_VALUE)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkAfterAdding(cache + abi.CACHE_OFF_TALLY, 1)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkAfterAdding(cache + abi.CACHE_OFF_TALLY, 2)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkWith(cache + abi.CACHE_OFF_TALLY, u32.MAX_VALUE)).toBe(abi.INV_CACHE_1);
    const next = hotAddress(base, 4) + abi.HOT_OFF_REQUESTED;
    expect<u32>(checkWith(next, 4)).toBe(abi.INV_CACHE_1);
    expect<u32>(checkWith(next, 0)).toBe(abi.INV_CACHE_1);
  });

  test("INV-CACHE-2: a budget that is not the sum of the limits", () => {
    const budget = arenaAddress(base, 1) + abi.ARENA_OFF_CACHE_BUDGET;
    expect<u32>(checkAfterAdding(budget, 64)).toBe(abi.INV_CACHE_2);
    expect<u32>(checkAfterAdding(cacheAddress(base, 3) + abi.CACHE_OFF_LIMIT, 1)).not.toBe(0);
  });

  test("INV-REGION-1: a layout that does not follow from the capacity", () => {
    const row = arenaAddress(base, 1);
    const offsets: u32[] = [
      abi.ARENA_OFF_GRANULE_SHIFT,
      abi.ARENA_OFF_CAPACITY,
      abi.ARENA_OFF_UNIT_SHIFT,
      abi.ARENA_OFF_CACHES,
      abi.ARENA_OFF_CACHE_CLASS_COUNT,
      abi.ARENA_OFF_PARTIALS,
      abi.ARENA_OFF_SUPERBLOCKS,
      abi.ARENA_OFF_PAGE_MAPS,
      abi.ARENA_OFF_SUPERBLOCK_COUNT,
    ];
    for (let i = 0; i < offsets.length; i++) {
      expect<u32>(checkAfterAdding(row + offsets[i], 64)).toBe(abi.INV_REGION_1);
      expect<u32>(checkWith(row + offsets[i], 0)).toBe(abi.INV_REGION_1);
    }
  });

  test("answers on a slab arena of which any one word is garbage, seed 0xbadf00d5", () => {
    const random = new Random(0xbadf00d5);
    const wordCount = load<u32>(base, abi.CONTROL_OFF_TOTAL_BYTES) >> 2;
    let namedCount = 0;
    for (let step = 0; step < 20000; step++) {
      const word = base + 4 * random.below(wordCount);
      if (word == base + abi.CONTROL_OFF_GUARD) continue;
      const before = load<u32>(word);
      store<u32>(word, random.below(2) == 0 ? random.below(200) : random.below(u32.MAX_VALUE));
      if (check(base) != 0) namedCount += 1;
      store<u32>(word, before);
    }
    expect<i32>(namedCount).toBeGreaterThan(0);
    expect<u32>(check(base)).toBe(0);
  });
});
