// Before anything is timed: does each byte belong to one block at most? Random operations on an arena
// that is often full, with an owner noted for every granule; then everything is freed.
import { openPlane } from "../contestants/tierheap.mjs";
import { xorshift } from "../random.mjs";
import { FILL_ARENA_BYTES, logUniformBytes, powerOfTwoBytes } from "../workloads.mjs";

const OPERATION_COUNT = 60_000;
const GRANULE_BYTES = 64;

export async function run() {
  const [heap] = await openPlane([FILL_ARENA_BYTES]);
  const random = xorshift(5);
  const owners = new Int32Array(FILL_ARENA_BYTES / GRANULE_BYTES);
  const live = [];
  let overlapCount = 0;
  let refusalCount = 0;
  for (let operation = 1; operation <= OPERATION_COUNT; operation++) {
    // Phases of growth and of shrinkage, so that the arena is full now and nearly empty then.
    const allocateShare = Math.floor(operation / 10_000) % 2 === 0 ? 0.6 : 0.4;
    if (live.length === 0 || random() < allocateShare) {
      const bytes = random() < 0.5 ? logUniformBytes(random) : powerOfTwoBytes(random);
      const slot = heap.tryAllocate(bytes);
      if (slot === 0) refusalCount += 1;
      else {
        const first = heap.offsetOf(slot) / GRANULE_BYTES;
        const end = first + Math.ceil(heap.grantedBytesOf(slot) / GRANULE_BYTES);
        if (!Number.isInteger(first) || end > owners.length) overlapCount += 1;
        for (let granule = first; granule < end; granule++) {
          if (owners[granule] !== 0) overlapCount += 1;
          owners[granule] = operation;
        }
        live.push({ slot, first, end });
      }
    } else {
      const index = Math.floor(live.length * random());
      const { slot, first, end } = live[index];
      live[index] = live.at(-1);
      live.pop();
      owners.fill(0, first, end);
      heap.free(slot);
    }
  }
  for (const { slot } of live) heap.free(slot);
  const { capacityBytes, freeBytes, largestFreeBlockBytes } = heap.counters;
  const returned = Math.min(freeBytes, largestFreeBlockBytes) / capacityBytes;
  const isSound = heap.check() === 0;
  return {
    figures: [
      {
        id: "core/overlaps",
        value: overlapCount,
        unit: "granules",
        target: 0,
        met: overlapCount === 0 && isSound,
        beside: `${OPERATION_COUNT} operations, ${refusalCount} refused for want of room`,
      },
      {
        id: "core/returned-in-one-block",
        value: returned * 100,
        unit: "%",
        target: 100,
        met: returned === 1,
      },
    ],
  };
}
