// Workload (d), reuse of freed blocks, and what the metadata takes. Nothing here is timed.

import { openPlane, plane } from "../contestants/tierheap.mjs";
import { tlsf } from "../contestants/tlsf.mjs";
import { absence, GROUPS } from "../contestants.mjs";
import { xorshift } from "../random.mjs";
import { FILL_ARENA_BYTES, FILL_MIXES } from "../workloads.mjs";

const CHURN_COUNT = 200_000;
const SLOW_CHURN_COUNT = 10_000;
const CHURN_SHARE = 0.6;
const REUSE_COUNT = 200;
const REUSE_SIZES = [12_288, 2304, 36_864, 6144, 16_384, 100_000];
const LARGEST_STEP_BYTES = 256;
/** What a memory with a budget of 16 MiB has. */
const SHORT_ARENA_BYTES = 2 ** 21;

/** Blocks and their requested bytes; any of them can be taken out. */
class LiveBlocks {
  handles = [];
  sizes = [];
  bytes = 0;

  add(handle, bytes) {
    this.handles.push(handle);
    this.sizes.push(bytes);
    this.bytes += bytes;
  }

  take(index) {
    const handle = this.handles[index];
    this.bytes -= this.sizes[index];
    this.handles[index] = this.handles.at(-1);
    this.sizes[index] = this.sizes.at(-1);
    this.handles.pop();
    this.sizes.pop();
    return handle;
  }
}

function fill(heap, live, draw, onRefusal) {
  for (;;) {
    const bytes = draw();
    let handle = heap.tryAllocate(bytes);
    if (!handle && onRefusal?.(heap, bytes)) handle = heap.tryAllocate(bytes);
    if (!handle) return;
    live.add(handle, bytes);
  }
}

/** The same sizes without those that are longer than an eighth of a short arena. */
function shortOnly(mix) {
  return (random) => {
    let bytes = mix(random);
    while (bytes > SHORT_ARENA_BYTES / 8) bytes = mix(random);
    return bytes;
  };
}

/** Biggest block obtainable, in steps of 256 B; class caches are drained first. */
function largestBytes(heap) {
  heap.drain?.();
  let low = 0;
  let high = Math.floor(heap.capacityBytes / LARGEST_STEP_BYTES);
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    const handle = heap.tryAllocate(middle * LARGEST_STEP_BYTES);
    if (handle) {
      heap.free(handle);
      low = middle;
    } else high = middle - 1;
  }
  return low * LARGEST_STEP_BYTES;
}

/** Compaction on demand, for a request that was refused. */
const compacting = (heap, bytes) => heap.compact(undefined, bytes) > 0;

function fillAndChurn(heap, mix, churnCount, isCompacting) {
  const random = xorshift(77);
  const draw = () => mix(random);
  const live = new LiveBlocks();
  const usable = heap.capacityBytes + heap.metadataBytes;
  fill(heap, live, draw);
  const filled = live.bytes / usable;
  const watermarkBytes = live.bytes * CHURN_SHARE;
  const freeOne = () => heap.free(live.take(Math.floor(live.handles.length * random())));
  while (live.bytes > watermarkBytes) freeOne();
  for (let operation = 0; operation < churnCount; operation++) {
    if (live.bytes > watermarkBytes) freeOne();
    else {
      const bytes = draw();
      const handle = heap.tryAllocate(bytes);
      if (handle) live.add(handle, bytes);
    }
  }
  const largest = largestBytes(heap) / (heap.capacityBytes - live.bytes);
  fill(heap, live, draw, isCompacting ? compacting : undefined);
  const used = live.bytes / heap.capacityBytes;
  return { filled, largest, refilled: live.bytes / usable, used };
}

/** How many of 200 freed blocks come back when as many of the same size are allocated. */
function reuseCount(heap, bytes) {
  const blocks = [];
  for (let index = 0; index < REUSE_COUNT; index++) {
    blocks.push(heap.tryAllocate(bytes));
    heap.tryAllocate(64);
  }
  const seen = new Set(blocks.map((block) => heap.offsetOf(block)));
  for (const block of blocks) heap.free(block);
  heap.drain?.();
  let count = 0;
  for (let index = 0; index < REUSE_COUNT; index++) {
    if (seen.has(heap.offsetOf(heap.tryAllocate(bytes)))) count += 1;
  }
  return count;
}

async function reuseFigure({ id, open }, target) {
  const counts = [];
  for (const bytes of REUSE_SIZES) {
    const [heap] = await open([FILL_ARENA_BYTES]);
    counts.push(reuseCount(heap, bytes));
  }
  const value = Math.min(...counts);
  const judged = target === undefined ? {} : { target, met: value >= target };
  const beside = `least of ${REUSE_SIZES.join(", ")} B: ${counts.join(" ")}`;
  return { id: `core/reuse-of-200/${id}`, value, unit: "blocks", ...judged, beside };
}

const cell = ({ filled, largest, refilled }) =>
  [filled, refilled, largest].map((share) => (share * 100).toFixed(1)).join(" / ");

function mixFigures(mixName, id, { filled, largest, refilled }) {
  const percent = (metric, share) => ({
    id: `core/${metric}-${mixName}/${id}`,
    value: share * 100,
    unit: "%",
  });
  return [
    percent("fill", filled),
    percent("refill", refilled),
    percent("largest-of-free", largest),
  ];
}

export async function run({ isQuick }) {
  const contestants = isQuick
    ? [plane, tlsf]
    : GROUPS.heaps.filter(({ id }) => id === plane.id || !/^(floor|tierheap)/.test(id));
  const figures = [];
  const tabledFigures = [];
  const absent = [];
  const table = {};
  for (const contestant of contestants) {
    try {
      const row = {};
      for (const [mixName, mix] of Object.entries(FILL_MIXES)) {
        const [heap] = await contestant.open([FILL_ARENA_BYTES]);
        const churnCount = contestant.isSlow ? SLOW_CHURN_COUNT : CHURN_COUNT;
        const result = fillAndChurn(heap, mix, churnCount);
        row[mixName] = cell(result);
        tabledFigures.push(...mixFigures(mixName, contestant.id, result));
      }
      table[`${contestant.title}: fill / refill / largest, %`] = row;
      figures.push(await reuseFigure(contestant, contestant === plane ? REUSE_COUNT : undefined));
    } catch (error) {
      absent.push(absence(contestant, error));
    }
  }
  for (const [mixName, mix] of Object.entries(FILL_MIXES)) {
    const [heap] = await openPlane([FILL_ARENA_BYTES]);
    const { used, refilled } = fillAndChurn(heap, mix, CHURN_COUNT, true);
    const value = used * 100;
    const judged = mixName === "tensor-sizes" ? { target: 99, met: value >= 99 } : {};
    figures.push({
      id: `core/capacity-used-compacting-${mixName}/tierheap`,
      value,
      unit: "%",
      ...judged,
      beside: `of the arena; ${(refilled * 100).toFixed(1)} % of arena and metadata`,
    });
  }
  for (const mixName of ["log-uniform", "tensor-sizes"]) {
    const mix = shortOnly(FILL_MIXES[mixName]);
    const values = [];
    for (const { open } of [plane, tlsf]) {
      const [heap] = await open([SHORT_ARENA_BYTES]);
      values.push(fillAndChurn(heap, mix, CHURN_COUNT, heap.compact !== undefined).used * 100);
    }
    figures.push({
      id: `core/capacity-used-in-2-mib-${mixName}/tierheap`,
      value: values[0],
      unit: "%",
      beside: `of the arena, compacting; tlsf ${values[1].toFixed(1)} %`,
    });
  }
  const [heap] = await openPlane([FILL_ARENA_BYTES]);
  const metadata = (heap.metadataBytes / FILL_ARENA_BYTES) * 100;
  figures.push({
    id: "core/metadata",
    value: metadata,
    unit: "%",
    target: 1,
    met: metadata <= 1,
    beside: "of a 64 MiB arena, one slot per 4 KiB",
  });
  return { tables: [table], tabledFigures, figures, absent };
}
