import * as abi from "../../assembly/abi";
import { bitsFloorLog2 } from "../../assembly/bits";
import {
  NO_GRANULE,
  OrderTree,
  orderTreeBytes,
  orderTreeClaim,
  orderTreeClaimBelow,
  orderTreeClaimRun,
  orderTreeClaimRunBelow,
  orderTreeClaimSuperblock,
  orderTreeClaimWhole,
  orderTreeFormat,
  orderTreeRelease,
  orderTreeReleaseRun,
  orderTreeReleaseWhole,
} from "../../assembly/order-tree";
import { stretchClaimOutside, stretchFreeFrom } from "../../assembly/stretch";
import { Random, garbage } from "./support";

function create(capacity: u32): OrderTree {
  const tree = changetype<OrderTree>(garbage(orderTreeBytes(capacity, true)));
  orderTreeFormat(tree, capacity, true);
  return tree;
}

/** A tree is entirely free exactly when its mask is its capacity: one block per bit. */
function isEntirelyFree(tree: OrderTree): bool {
  return tree.free == tree.capacity && tree.mask == tree.capacity;
}

// The model: one byte per granule, and a list of the claimed blocks.
const isClaimed = new StaticArray<bool>(512);
const offsets = new StaticArray<u32>(512);
const orders = new StaticArray<u32>(512);

function isRunFree(offset: u32, order: u32): bool {
  for (let i = offset; i < offset + (1 << order); i++) if (isClaimed[i]) return false;
  return true;
}

/** The lowest free, aligned run of `order` below `limit`. */
function naiveLowest(capacity: u32, order: u32, limit: u32): u32 {
  for (let i: u32 = 0; i < limit && i + (1 << order) <= capacity; i += 1 << order) {
    if (isRunFree(i, order)) return i;
  }
  return NO_GRANULE;
}

function setClaimed(offset: u32, order: u32, value: bool): void {
  for (let i = offset; i < offset + (1 << order); i++) isClaimed[i] = value;
}

/** Compares tree and model step by step; returns the number of the first wrong step, or 0. */
function firstDifference(seed: u32, capacity: u32, stepCount: u32): u32 {
  const tree = create(capacity);
  const random = new Random(seed);
  isClaimed.fill(false);
  let liveCount: u32 = 0;
  let free = capacity;
  for (let step: u32 = 1; step <= stepCount; step++) {
    // Phases of growth and of decline, so that full and empty trees are both met.
    const isGrowing = random.below(8) < (step % 256 < 128 ? 6 : 2);
    if (isGrowing && liveCount < 512) {
      const order = random.below(bitsFloorLog2(capacity) + 2);
      const isBounded = random.below(3) == 0;
      const limit = isBounded ? random.below(capacity + 1) : capacity;
      const lowest = naiveLowest(capacity, order, limit);
      const offset = isBounded
        ? orderTreeClaimBelow(tree, order, limit)
        : orderTreeClaim(tree, order);
      if (isBounded && offset != lowest) return step;
      if ((offset == NO_GRANULE) != (lowest == NO_GRANULE)) return step;
      if (offset == NO_GRANULE) continue;
      if (offset % (1 << order) != 0 || offset + (1 << order) > capacity) return step;
      if (!isRunFree(offset, order)) return step;
      setClaimed(offset, order, true);
      offsets[liveCount] = offset;
      orders[liveCount] = order;
      liveCount += 1;
      free -= 1 << order;
    } else if (liveCount != 0) {
      const i = random.below(liveCount);
      orderTreeRelease(tree, orders[i], offsets[i]);
      setClaimed(offsets[i], orders[i], false);
      free += 1 << orders[i];
      liveCount -= 1;
      offsets[i] = offsets[liveCount];
      orders[i] = orders[liveCount];
    }
    if (tree.free != free) return step;
  }
  for (let i: u32 = 0; i < liveCount; i++) orderTreeRelease(tree, orders[i], offsets[i]);
  return isEntirelyFree(tree) ? 0 : stepCount + 1;
}

/** Length of the longest free stretch that a run of `granules` may start in, as it must start. */
function naiveHasRun(capacity: u32, granules: u32, step: u32): bool {
  for (let start: u32 = 0; start + granules <= capacity; start += step) {
    let length: u32 = 0;
    while (length < granules && !isClaimed[start + length]) length += 1;
    if (length == granules) return true;
  }
  return false;
}

function setRunClaimed(offset: u32, granules: u32, value: bool): void {
  for (let i = offset; i < offset + granules; i++) isClaimed[i] = value;
}

/** Compares runs with the byte map; returns the number of the first wrong step, or 0. */
function firstRunDifference(seed: u32, capacity: u32, stepCount: u32): u32 {
  const tree = create(capacity);
  const random = new Random(seed);
  isClaimed.fill(false);
  let liveCount: u32 = 0;
  let free = capacity;
  for (let step: u32 = 1; step <= stepCount; step++) {
    const isGrowing = random.below(8) < (step % 256 < 128 ? 6 : 2);
    if (isGrowing && liveCount < 512) {
      const granules = 1 + random.below(random.below(4) == 0 ? capacity / 3 : 20);
      const runStep: u32 = granules % 16 == 0 ? 16 : 1;
      const isBounded = random.below(4) == 0;
      const isOutside = !isBounded && random.below(4) == 0;
      const low = random.below(capacity + 1);
      const high = low + random.below(capacity + 1 - low);
      const hasRun = naiveHasRun(capacity, granules, runStep);
      let offset: u32;
      if (isBounded) offset = orderTreeClaimRunBelow(tree, granules, runStep, low);
      else if (isOutside) offset = stretchClaimOutside(tree, granules, runStep, low, high);
      else offset = orderTreeClaimRun(tree, granules, runStep);
      if (offset == NO_GRANULE) {
        // The search looks at a bounded number of stretches, all of them in a tree this small.
        if (hasRun && !isBounded && !isOutside) return step;
        continue;
      }
      if (offset % runStep != 0 || offset + granules > capacity) return step;
      if (isBounded && offset >= low) return step;
      if (isOutside && offset < high && offset + granules > low) return step;
      for (let i = offset; i < offset + granules; i++) if (isClaimed[i]) return step;
      setRunClaimed(offset, granules, true);
      offsets[liveCount] = offset;
      orders[liveCount] = granules;
      liveCount += 1;
      free -= granules;
    } else if (liveCount != 0) {
      const i = random.below(liveCount);
      orderTreeReleaseRun(tree, offsets[i], orders[i]);
      setRunClaimed(offsets[i], orders[i], false);
      free += orders[i];
      liveCount -= 1;
      offsets[i] = offsets[liveCount];
      orders[i] = orders[liveCount];
    }
    if (tree.free != free) return step;
    const from = random.below(capacity);
    let length: u32 = 0;
    while (from + length < capacity && !isClaimed[from + length]) length += 1;
    if (stretchFreeFrom(tree, from, capacity) != length) return step;
  }
  for (let i: u32 = 0; i < liveCount; i++) orderTreeReleaseRun(tree, offsets[i], orders[i]);
  return isEntirelyFree(tree) ? 0 : stepCount + 1;
}

describe("order tree", () => {
  test("starts entirely free, one block per bit of the capacity, for capacities 1 to 200", () => {
    for (let capacity: u32 = 1; capacity <= 200; capacity++) {
      const tree = create(capacity);
      expect<bool>(isEntirelyFree(tree)).toBe(true);
      orderTreeClaimWhole(tree);
      expect<u32>(tree.mask).toBe(0);
      expect<u32>(orderTreeClaim(tree, 0)).toBe(NO_GRANULE);
      orderTreeReleaseWhole(tree);
      expect<bool>(isEntirelyFree(tree)).toBe(true);
    }
  });

  test("hands out every block of every order once, for capacities 1 to 200", () => {
    for (let capacity: u32 = 1; capacity <= 200; capacity++) {
      const tree = create(capacity);
      for (let order: u32 = 0; order <= bitsFloorLog2(capacity); order++) {
        const blockCount = capacity >> order;
        isClaimed.fill(false);
        for (let i: u32 = 0; i < blockCount; i++) {
          const offset = orderTreeClaim(tree, order);
          if (offset == NO_GRANULE || !isRunFree(offset, order)) expect<u32>(capacity).toBe(0);
          setClaimed(offset, order, true);
        }
        expect<u32>(orderTreeClaim(tree, order)).toBe(NO_GRANULE);
        expect<u32>(tree.free).toBe(capacity - (blockCount << order));
        // Odd blocks first: their buddies are claimed, so only the second round coalesces.
        for (let i: u32 = 1; i < blockCount; i += 2) orderTreeRelease(tree, order, i << order);
        for (let i: u32 = 0; i < blockCount; i += 2) orderTreeRelease(tree, order, i << order);
        expect<bool>(isEntirelyFree(tree)).toBe(true);
      }
    }
  });

  test("refuses orders above its highest, also the highest that a request can map to", () => {
    const tree = create(100);
    expect<u32>(orderTreeClaim(tree, 7)).toBe(NO_GRANULE);
    expect<u32>(orderTreeClaim(tree, 28)).toBe(NO_GRANULE);
    expect<u32>(orderTreeClaimBelow(tree, 28, 100)).toBe(NO_GRANULE);
  });

  test("claims the lowest place of the smallest order that has one", () => {
    const tree = create(64);
    expect<u32>(orderTreeClaim(tree, 0)).toBe(0);
    expect<u32>(orderTreeClaim(tree, 3)).toBe(8);
    expect<u32>(orderTreeClaim(tree, 0)).toBe(1);
    expect<u32>(orderTreeClaim(tree, 5)).toBe(32);
    orderTreeRelease(tree, 3, 8);
    expect<u32>(orderTreeClaimBelow(tree, 3, 8)).toBe(NO_GRANULE);
    expect<u32>(orderTreeClaimBelow(tree, 3, 9)).toBe(8);
  });

  test("holds the largest arena", () => {
    const tree = create(abi.ARENA_GRANULES_MAX);
    expect<u32>(tree.orderMax).toBe(abi.ORDER_COUNT_MAX - 1);
    expect<u32>(orderTreeClaim(tree, 0)).toBe(0);
    expect<u32>(orderTreeClaim(tree, 25)).toBe(abi.ARENA_GRANULES_MAX >> 1);
    orderTreeRelease(tree, 0, 0);
    orderTreeRelease(tree, 25, abi.ARENA_GRANULES_MAX >> 1);
    expect<bool>(isEntirelyFree(tree)).toBe(true);
  });

  test("equals a byte map, 64 granules, seed 0x00000001", () => {
    expect<u32>(firstDifference(0x00000001, 64, 20000)).toBe(0, "first wrong step");
  });
  test("equals a byte map, 100 granules, seed 0x1234abcd", () => {
    expect<u32>(firstDifference(0x1234abcd, 100, 20000)).toBe(0, "first wrong step");
  });
  test("equals a byte map, 511 granules, seed 0xdeadbeef", () => {
    expect<u32>(firstDifference(0xdeadbeef, 511, 20000)).toBe(0, "first wrong step");
  });
  test("equals a byte map over capacities 1 to 200, seeds equal to the capacity", () => {
    for (let capacity: u32 = 1; capacity <= 200; capacity++) {
      expect<u32>(firstDifference(capacity, capacity, 500)).toBe(0, "first wrong step");
    }
  });

  test("claims runs that cost no more than their length", () => {
    const tree = create(1024);
    const offset = orderTreeClaimRun(tree, 33, 1);
    expect<u32>(offset).toBe(0);
    expect<u32>(tree.free).toBe(1024 - 33);
    expect<u32>(orderTreeClaim(tree, 0)).toBe(33);
    orderTreeRelease(tree, 0, 33);
    orderTreeReleaseRun(tree, offset, 33);
    expect<bool>(isEntirelyFree(tree)).toBe(true);
  });

  test("joins free blocks for a run that none of them holds alone", () => {
    const tree = create(100); // blocks of 64, 32 and 4
    expect<u32>(orderTreeClaimRun(tree, 100, 1)).toBe(0);
    expect<u32>(tree.free).toBe(0);
    orderTreeReleaseRun(tree, 0, 100);
    expect<bool>(isEntirelyFree(tree)).toBe(true);
    expect<u32>(orderTreeClaimRun(tree, 101, 1)).toBe(NO_GRANULE);
    expect<u32>(orderTreeClaim(tree, 0)).toBe(96);
    expect<u32>(orderTreeClaimRun(tree, 97, 1)).toBe(NO_GRANULE);
    expect<u32>(orderTreeClaimRun(tree, 95, 1)).toBe(0);
    expect<u32>(orderTreeClaimRun(tree, 3, 1)).toBe(97);
  });

  test("keeps long stretches: a superblock and a long run go to the tightest place", () => {
    const tree = create(16 * 64);
    for (let i: u32 = 0; i < 16; i++) expect<u32>(orderTreeClaimSuperblock(tree)).toBe(i * 64);
    // Free: superblocks 4 to 7, 9 to 10, and 14.
    for (let i: u32 = 4; i <= 7; i++) orderTreeRelease(tree, 6, i * 64);
    for (let i: u32 = 9; i <= 10; i++) orderTreeRelease(tree, 6, i * 64);
    orderTreeRelease(tree, 6, 14 * 64);
    expect<u32>(orderTreeClaimSuperblock(tree)).toBe(14 * 64);
    expect<u32>(orderTreeClaimRun(tree, 96, 1)).toBe(9 * 64);
    expect<u32>(orderTreeClaimSuperblock(tree)).toBe(4 * 64);
  });

  test("equals a byte map for runs, seeds 1 to 40", () => {
    for (let seed: u32 = 1; seed <= 40; seed++) {
      expect<u32>(firstRunDifference(seed, 97 + seed * 10, 2000)).toBe(0, "first wrong step");
    }
  });
});
