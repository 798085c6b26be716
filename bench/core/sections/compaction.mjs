// Compaction: what it moves beside the least that could be moved and beside a compactor that slides
// every block down; how fast; what is whole afterwards. Then the pauses of compaction in steps.
import { openPlane } from "../contestants/tierheap.mjs";
import { xorshift } from "../random.mjs";
import { timed } from "../timing.mjs";
import { FILL_ARENA_BYTES, logUniformBytes } from "../workloads.mjs";

const MIB = 2 ** 20;
const FREED_SHARE = 0.4;
const COPY_BYTES = 32 * MIB;
const STEP_BUDGET_BYTES = 4 * MIB;
/** Steps that move less than this are the ends of plans, no pauses worth comparing. */
const FULL_STEP_BYTES = 3 * MIB;

/** Fills the arena, frees a random 40 % of the blocks and stamps the others all over. */
async function fragmented(seed) {
  const [heap] = await openPlane([FILL_ARENA_BYTES]);
  const random = xorshift(seed);
  const blocks = [];
  for (;;) {
    const bytes = logUniformBytes(random);
    const slot = heap.tryAllocate(bytes);
    if (slot === 0) break;
    blocks.push({ slot, bytes });
  }
  for (let count = Math.floor(blocks.length * FREED_SHARE); count > 0; count--) {
    const index = Math.floor(blocks.length * random());
    heap.free(blocks[index].slot);
    blocks[index] = blocks.at(-1);
    blocks.pop();
  }
  return { heap, blocks };
}

const wordsOf = (memory, heap, { slot, bytes }) =>
  new Uint32Array(memory.buffer, heap.offsetOf(slot), bytes >>> 2);

function stamp(memory, heap, blocks) {
  for (const block of blocks) wordsOf(memory, heap, block).fill(block.slot);
}

function damagedCount(memory, heap, blocks) {
  return blocks.filter((block) => wordsOf(memory, heap, block).some((word) => word !== block.slot))
    .length;
}

const byOffset = (heap) =>
  [...heap.plane.blocks(heap.arena)].sort((left, right) => left.offset - right.offset);

/** Bytes that a compactor moves which slides every block down to the end of the one before. */
function slidingBytes(extents) {
  let end = 0;
  let moved = 0;
  for (const { offset, grantedBytes, requestedBytes } of extents) {
    if (offset !== end) moved += requestedBytes;
    end += grantedBytes;
  }
  return moved;
}

/**
 * Requested bytes of the blocks in the window, as long as the free space, where they are least. Such a
 * window must become empty, so no compactor that ends with one piece can move less.
 */
function lowerBoundBytes(extents, capacityBytes) {
  const liveBytes = extents.reduce((sum, { grantedBytes }) => sum + grantedBytes, 0);
  const length = capacityBytes - liveBytes;
  const edges = extents.flatMap(({ offset, grantedBytes }) => [offset, offset + grantedBytes]);
  const starts = [0, ...edges, ...edges.map((edge) => edge - length)];
  const liveIn = (start) =>
    extents.reduce((sum, { offset, grantedBytes, requestedBytes }) => {
      const isInside = offset + grantedBytes > start && offset < start + length;
      return isInside ? sum + requestedBytes : sum;
    }, 0);
  const inside = starts.filter((start) => start >= 0 && start + length <= capacityBytes);
  return Math.min(...inside.map(liveIn));
}

function largestGapBytes(extents, capacityBytes) {
  let end = 0;
  let largest = 0;
  for (const { offset, grantedBytes } of extents) {
    largest = Math.max(largest, offset - end);
    end = offset + grantedBytes;
  }
  return Math.max(largest, capacityBytes - end);
}

const quantile = (samples, share) => {
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
};
const middle = (samples) => quantile(samples, 0.5);

async function compactOnce(memory, seed) {
  const { heap, blocks } = await fragmented(seed);
  stamp(memory, heap, blocks);
  const before = byOffset(heap);
  const copyMs = timed(() => memory.scratch.copyWithin(0, COPY_BYTES, COPY_BYTES * 2));
  let movedBytes = 0;
  const ms = timed(() => {
    movedBytes = heap.compact((source, target, length) => {
      memory.bytes.copyWithin(target, source, source + length);
    });
  });
  const after = byOffset(heap);
  const { freeBytes, largestFreeBlockBytes, requestedBytes } = heap.counters;
  return {
    movedBytes,
    speed: movedBytes / ms / 1e6,
    copySpeed: COPY_BYTES / copyMs / 1e6,
    sliding: slidingBytes(before),
    least: lowerBoundBytes(before, FILL_ARENA_BYTES),
    damaged: damagedCount(memory, heap, blocks),
    isSound: heap.check() === 0,
    onePiece: largestGapBytes(after, FILL_ARENA_BYTES) / freeBytes,
    largest: largestFreeBlockBytes / (FILL_ARENA_BYTES - requestedBytes),
  };
}

/** Compacts one arena in steps; after each, a plain copy of as much as the budget. */
async function pauses(memory, seed, samples) {
  const { heap } = await fragmented(seed);
  const step = () => {
    let movedBytes = 0;
    for (;;) {
      const next = heap.plane.nextMove();
      if (next === null) return { movedBytes, isDone: true };
      if (movedBytes > 0 && movedBytes + next.byteLength > STEP_BUDGET_BYTES) {
        heap.plane.postponeMove();
        return { movedBytes, isDone: false };
      }
      const { sourceOffset, targetOffset, byteLength } = next;
      memory.bytes.copyWithin(targetOffset, sourceOffset, sourceOffset + byteLength);
      if (heap.plane.commitMove()) movedBytes += byteLength;
    }
  };
  let isFirst = true;
  for (let isDone = false; !isDone; isFirst = false) {
    let movedBytes = 0;
    const ms = timed(() => {
      if (isFirst) heap.plane.beginCompaction(heap.arena, 0, true);
      ({ movedBytes, isDone } = step());
    });
    const from = (samples.copies.length * STEP_BUDGET_BYTES) % (FILL_ARENA_BYTES / 2);
    const copyMs = timed(() =>
      memory.scratch.copyWithin(
        from,
        FILL_ARENA_BYTES / 2 + from,
        FILL_ARENA_BYTES / 2 + from + STEP_BUDGET_BYTES,
      ),
    );
    if (movedBytes < FULL_STEP_BYTES) continue;
    samples.steps.push(ms);
    samples.copies.push(copyMs);
  }
}

export async function run({ isQuick }) {
  const buffer = new ArrayBuffer(FILL_ARENA_BYTES);
  const scratch = new Uint8Array(FILL_ARENA_BYTES).fill(1);
  const memory = { buffer, bytes: new Uint8Array(buffer).fill(1), scratch };
  // The first runs wait for the engine to compile.
  for (let seed = 91; seed <= 94; seed++) await compactOnce(memory, seed);
  const results = [];
  for (let seed = 1; seed <= (isQuick ? 3 : 9); seed++) {
    results.push(await compactOnce(memory, seed));
  }
  const pick = (key) => middle(results.map((result) => result[key]));
  const total = (key) => results.reduce((sum, result) => sum + result[key], 0);
  const samples = { steps: [], copies: [] };
  for (let seed = 11; seed <= (isQuick ? 15 : 50); seed++) await pauses(memory, seed, samples);

  const speedShare = pick("speed") / pick("copySpeed");
  const overSliding = total("movedBytes") / total("sliding");
  const onePiece = Math.min(...results.map((result) => result.onePiece)) * 100;
  const damaged = total("damaged");
  const isSound = results.every((result) => result.isSound);
  const pause = (share) => quantile(samples.steps, share) / quantile(samples.copies, share);
  const least = `${samples.steps.length} steps`;
  const times = (share) =>
    `${quantile(samples.steps, share).toFixed(2)} ms, copy ${quantile(samples.copies, share).toFixed(2)} ms; ${least}`;
  const MiB = (bytes) => (bytes / MIB / results.length).toFixed(1);
  const figures = [
    {
      id: "core/compaction-damaged-blocks",
      value: damaged,
      unit: "blocks",
      target: 0,
      met: damaged === 0 && isSound,
    },
    {
      id: "core/compaction-one-piece",
      value: onePiece,
      unit: "%",
      target: 100,
      met: onePiece >= 100,
      beside: "largest gap between blocks, of the free bytes; least of the seeds",
    },
    {
      id: "core/compaction-largest-block",
      value: pick("largest") * 100,
      unit: "%",
      beside: "of capacity less requested",
    },
    {
      id: "core/compaction-moved",
      value: total("movedBytes") / results.length / MIB,
      unit: "MiB",
      beside: `sliding ${MiB(total("sliding"))}, lower bound ${MiB(total("least"))}`,
    },
    {
      id: "core/compaction-moved-over-sliding",
      value: overSliding,
      unit: "ratio",
      target: 0.6,
      met: overSliding <= 0.6,
    },
    {
      id: "core/compaction-moved-over-lower-bound",
      value: total("movedBytes") / total("least"),
      unit: "ratio",
    },
    {
      id: "core/compaction-speed",
      value: pick("speed"),
      unit: "GB/s",
      beside: `copyWithin of 32 MiB ${pick("copySpeed").toFixed(2)}`,
    },
    {
      id: "core/compaction-speed-over-copy",
      value: speedShare,
      unit: "ratio",
      target: 0.5,
      met: speedShare >= 0.5,
    },
    {
      id: "core/pause-p50-over-copy",
      value: pause(0.5),
      unit: "ratio",
      target: 1.3,
      met: pause(0.5) <= 1.3,
      beside: times(0.5),
    },
    { id: "core/pause-p99-over-copy", value: pause(0.99), unit: "ratio", beside: times(0.99) },
  ];
  return { figures };
}
