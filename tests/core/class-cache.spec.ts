import * as abi from "../../assembly/abi";
import { arenaRow } from "../../assembly/arena-row";
import { classCacheDrain, classCacheShare } from "../../assembly/class-cache";
import {
  arenaAllocate,
  arenaAllocateWhole,
  arenaClose,
  check,
  compactBegin,
  slotFree,
  slotResolve,
} from "../../assembly/index";
import { sizeClassOf } from "../../assembly/size-class";
import {
  arenaAddress,
  cacheAddress,
  epochOf,
  generationOf,
  hotAddress,
  offsetOf,
  planeWithSlabs,
  poolAddress,
  stateOf,
} from "./support";

let base: u32 = 0;
const PAGE_BYTES: u32 = 12288;
const PAGE: u32 = sizeClassOf(191);

function allocate(bytes: u32): u32 {
  const slot = arenaAllocate(base, 1, bytes, 1);
  assert(slot != 0);
  return slot;
}

function free(slot: u32): void {
  expect<u32>(slotFree(base, slot, generationOf(base, slot))).toBe(abi.STATUS_OK);
}

function isCached(slot: u32): bool {
  return stateOf(base, slot) == abi.SLOT_STATE_CACHED;
}

function isAmple(): bool {
  return load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_IS_AMPLE) != 0;
}

/** Allocates and frees as many pages. Returns how many of them are cached then. */
function cachedAfterFreeing(count: i32): i32 {
  const slots = new Array<u32>();
  for (let i = 0; i < count; i++) slots.push(allocate(PAGE_BYTES));
  for (let i = 0; i < count; i++) free(slots[i]);
  let cachedCount = 0;
  for (let i = 0; i < count; i++) cachedCount += isCached(slots[i]) ? 1 : 0;
  return cachedCount;
}

describe("class cache", () => {
  beforeEach(() => {
    base = planeWithSlabs(4096, 32); // 8 MiB: a share is 64 KiB, the total at least 256 KiB
  });

  afterEach(() => {
    expect<u32>(check(base)).toBe(0);
  });

  test("gives the block freed last to the next request of its class, with its slot and place", () => {
    const first = allocate(PAGE_BYTES);
    const second = allocate(PAGE_BYTES);
    const offset = offsetOf(base, second);
    const epoch = epochOf(base, second);
    free(first);
    free(second);
    expect<bool>(isCached(first) && isCached(second)).toBe(true);
    expect<u32>(slotResolve(base, second, 1)).toBe(abi.STATUS_STALE);
    expect<u32>(slotResolve(base, second, 2)).toBe(abi.STATUS_STALE, "cached, though it matches");
    expect<u32>(allocate(PAGE_BYTES - 100)).toBe(second);
    expect<u32>(generationOf(base, second)).toBe(2);
    expect<u32>(offsetOf(base, second)).toBe(offset);
    expect<u32>(epochOf(base, second)).toBe(epoch, "views of this block stay true");
    expect<u32>(allocate(PAGE_BYTES)).toBe(first);
  });

  test("does not serve another class, nor an alignment that the class does not have", () => {
    free(allocate(PAGE_BYTES));
    expect<u32>(allocate(PAGE_BYTES + 1)).toBe(2);
    expect<u32>(arenaAllocate(base, 1, PAGE_BYTES, 512)).toBe(3);
    expect<u32>(arenaAllocate(base, 1, PAGE_BYTES, 256)).toBe(1);
  });

  test("keeps what is freed while much of the arena is free, and a share when little is", () => {
    const share = classCacheShare(arenaRow(base, 1), PAGE_BYTES, 0);
    expect<u32>(share).toBe(5);
    expect<u32>(classCacheShare(arenaRow(base, 1), 64, 0)).toBe(abi.CACHE_SHARE_BLOCKS);
    expect<i32>(cachedAfterFreeing(20)).toBe(20);
    expect<bool>(classCacheDrain(base, arenaRow(base, 1))).toBe(true);
    allocate(7 << 20);
    expect<i32>(cachedAfterFreeing(20)).toBe(share);
  });

  test("drains every class when no budget is left for one that has none", () => {
    allocate(7 << 20);
    const first = allocate(65536);
    free(first);
    for (let i: u32 = 1; i <= 3; i++) free(allocate(65536 - i * 4096));
    expect<bool>(isCached(first)).toBe(true);
    free(allocate(32768));
    expect<bool>(isCached(first)).toBe(false);
    const budget = load<u32>(arenaAddress(base, 1), abi.ARENA_OFF_CACHE_BUDGET);
    expect<u32>(budget).toBe(2 * 32768);
  });

  test("claims pages ahead for a class that has budget, the lowest one first", () => {
    expect<i32>(cachedAfterFreeing(3)).toBe(3);
    const slots = new Array<u32>();
    for (let i = 0; i < 4; i++) slots.push(allocate(PAGE_BYTES));
    const cache = cacheAddress(base, PAGE);
    let next = load<u32>(cache, abi.CACHE_OFF_HEAD);
    expect<u32>(next).not.toBe(0, "a page that nobody has freed");
    let page = offsetOf(base, slots[3]);
    for (; next != 0; next = load<u32>(hotAddress(base, next), abi.HOT_OFF_REQUESTED)) {
      expect<u32>(offsetOf(base, next)).toBe(page + PAGE_BYTES / 64);
      expect<bool>(isCached(next)).toBe(true);
      page = offsetOf(base, next);
    }
    expect<u32>(slotResolve(base, load<u32>(cache, abi.CACHE_OFF_HEAD), 1)).toBe(abi.STATUS_STALE);
  });

  describe("of an ample arena", () => {
    beforeEach(() => {
      // Budgets run out, though little was ever requested.
      for (let i: u32 = 1; !isAmple() && i < 200; i++) free(allocate(i * 320));
      expect<bool>(isAmple()).toBe(true);
      classCacheDrain(base, arenaRow(base, 1));
    });

    test("claims pages ahead from the second page of a class on, though none was freed", () => {
      const cache = cacheAddress(base, PAGE);
      allocate(PAGE_BYTES);
      expect<u32>(load<u32>(cache, abi.CACHE_OFF_HEAD)).toBe(0, "the first page comes alone");
      allocate(PAGE_BYTES);
      const next = load<u32>(cache, abi.CACHE_OFF_HEAD);
      expect<u32>(next).not.toBe(0);
      expect<u32>(allocate(PAGE_BYTES)).toBe(next);
    });

    test("doubles its shares", () => {
      const row = arenaRow(base, 1);
      expect<u32>(classCacheShare(row, PAGE_BYTES, 0)).toBe(abi.CACHE_FIRST_BLOCKS);
      expect<u32>(classCacheShare(row, PAGE_BYTES, 32)).toBe(5);
      expect<u32>(classCacheShare(row, 64, 7)).toBe(7);
      expect<u32>(classCacheShare(row, 64, 99)).toBe(abi.CACHE_SHARE_BLOCKS);
    });

    test("keeps twice as much, until the pool needs more", () => {
      expect<i32>(cachedAfterFreeing(120)).toBe(120);
      free(allocate(3 << 20));
      classCacheDrain(base, arenaRow(base, 1));
      expect<i32>(cachedAfterFreeing(120)).toBeLessThan(90, "an eighth of what is free");
      expect<bool>(isAmple()).toBe(false);
    });
  });

  test("counts what is taken from it with the pool, also when the arena is closed", () => {
    for (let i = 0; i < 7; i++) free(allocate(PAGE_BYTES));
    const taken = load<u64>(cacheAddress(base, PAGE), abi.CACHE_OFF_TALLY) >> abi.TALLY_TAKEN_SHIFT;
    expect<u64>(taken).toBe(6);
    expect<u64>(load<u64>(poolAddress(base, 0), abi.POOL_OFF_ALLOCATIONS)).toBe(1);
    arenaClose(base, 1);
    expect<u64>(load<u64>(poolAddress(base, 0), abi.POOL_OFF_ALLOCATIONS)).toBe(7);
  });

  test("is drained before a refusal, so that all its bytes can be had", () => {
    free(allocate(PAGE_BYTES));
    free(allocate(40000));
    const slot = allocate(8 << 20);
    expect<u32>(offsetOf(base, slot)).toBe(0);
    expect<u32>(arenaAllocate(base, 1, 1, 1)).toBe(0);
  });

  test("is drained when the slot table is full", () => {
    base = planeWithSlabs(4, 16);
    free(allocate(100));
    expect<u32>(allocate(1000)).toBe(2);
    expect<u32>(allocate(2000)).toBe(3);
    expect<u32>(allocate(3000)).toBe(1);
    expect<u32>(arenaAllocate(base, 1, 4000, 1)).toBe(0);
  });

  test("is drained before its arena is owned whole, compacted or closed", () => {
    const slot = allocate(PAGE_BYTES);
    free(slot);
    const whole = arenaAllocateWhole(base, 1, 8 << 20);
    expect<u32>(whole).toBe(slot, "its slot is free again");
    free(whole);
    free(allocate(PAGE_BYTES));
    expect<u32>(compactBegin(base, 1, 0, false)).toBe(0);
    expect<u32>(load<u32>(cacheAddress(base, PAGE), abi.CACHE_OFF_HEAD)).toBe(0);
    free(allocate(PAGE_BYTES));
    expect<u32>(arenaClose(base, 1)).toBe(abi.STATUS_OK);
    expect<u32>(arenaAllocate(base, 1, PAGE_BYTES, 1)).toBe(0);
  });

  test("leaves out a slot whose generations are used up: it is retired", () => {
    const slot = allocate(PAGE_BYTES);
    free(slot);
    store<u32>(hotAddress(base, slot), 0xfffffffe, abi.HOT_OFF_GENERATION);
    expect<u32>(allocate(PAGE_BYTES)).toBe(slot);
    free(slot);
    expect<u32>(stateOf(base, slot)).toBe(abi.SLOT_STATE_RETIRED);
    expect<u32>(allocate(PAGE_BYTES)).toBe(slot + 1);
  });

  test("tells whether it drained anything", () => {
    expect<bool>(classCacheDrain(base, arenaRow(base, 1))).toBe(false);
    free(allocate(PAGE_BYTES));
    expect<bool>(classCacheDrain(base, arenaRow(base, 1))).toBe(true);
    expect<bool>(classCacheDrain(base, arenaRow(base, 1))).toBe(false);
  });
});
