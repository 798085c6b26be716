// Our own rows. All three check every handle.
//
//   core     the exports of core.wasm as they are; slot and generation in two integer arrays
//   plane    ControlPlane, which the library itself calls; the headline figures are this row's
//   buddy    BuddyAllocator, whose handles are doubles
import { readFile } from "node:fs/promises";
import * as abi from "../../../dist/assembly/abi.js";
import { createUnsharedMemory } from "../../../dist/src/core/linear-memory.js";
import { arenaMetadataBytesMax } from "../../../dist/src/core/metadata-bytes.js";
import { importFresh } from "./fresh-copy.mjs";

/** Smallest block, as log2 of its bytes: the same in every figure, of speed and of memory. */
const GRANULE_SHIFT = 6;
const BYTES_PER_SLOT = 4096;
const SLOT_COUNT_MIN = 4096;

function tableLengths(capacities, slotCount) {
  const bytes = capacities.reduce((sum, capacity) => sum + capacity, 0);
  const wanted = slotCount ?? Math.max(SLOT_COUNT_MIN, Math.ceil(bytes / BYTES_PER_SLOT));
  return {
    slotCapacity: Math.min(abi.SLOT_CAPACITY_MAX, wanted),
    arenaCapacity: capacities.length + 1,
    metadataBytes: capacities.reduce(
      (sum, capacity) => sum + arenaMetadataBytesMax(capacity, 2 ** GRANULE_SHIFT, capacity),
      0,
    ),
  };
}

/** An arena of a control plane. Handles are slots: for what is not timed. */
export class PlaneHeap {
  constructor(plane, arena, capacityBytes) {
    this.plane = plane;
    this.arena = arena;
    this.capacityBytes = capacityBytes;
    /** Everything the bookkeeping takes, used or only reserved. */
    this.metadataBytes = plane.byteLength;
  }

  tryAllocate(bytes) {
    return this.plane.allocate(this.arena, bytes, 1);
  }

  free(slot) {
    this.plane.free(slot, this.plane.generationOf(slot));
  }

  offsetOf(slot) {
    return this.plane.offsetOf(slot);
  }

  grantedBytesOf(slot) {
    return this.plane.grantedBytesOf(slot);
  }

  get counters() {
    return this.plane.arenaCounters(this.arena);
  }

  /** Gives back what the class caches hold: to start a plan of moves does that. */
  drain() {
    this.plane.beginCompaction(this.arena);
  }

  /** The first invariant that is broken, as a number, or 0. */
  check() {
    return this.plane.check();
  }

  /**
   * Compacts.
   *
   * @param needBytes Ends when as many are free in a row; 0 asks for as many as can be.
   * @returns Bytes moved.
   */
  compact(move = () => {}, needBytes = 0) {
    let movedBytes = 0;
    this.plane.beginCompaction(this.arena, needBytes, true);
    for (let next = this.plane.nextMove(); next !== null; next = this.plane.nextMove()) {
      move(next.sourceOffset, next.targetOffset, next.byteLength);
      if (this.plane.commitMove()) movedBytes += next.byteLength;
    }
    return movedBytes;
  }
}

/**
 * Opens arenas of one control plane, as a program has them.
 *
 * @param options.slotCount Most blocks live at once. Default: one per 4 KiB, at least 4,096.
 * @param options.isFresh Use code that no other control plane of this process has used.
 */
export async function openPlane(capacities, { slotCount, isFresh = false } = {}) {
  const { ControlPlane } = await (isFresh ? freshCopy() : sharedCopy());
  const plane = await ControlPlane.create({
    ...tableLengths(capacities, slotCount),
    createMemory: createUnsharedMemory,
  });
  return capacities.map((capacity) => {
    const arena = plane.openArena(0, capacity, GRANULE_SHIFT);
    if (arena === 0) throw new Error(`no arena of ${capacity} bytes`);
    return new PlaneHeap(plane, arena, capacity);
  });
}

const freshCopy = () => importFresh("dist/src/core/control-plane.js");

let copy;
function sharedCopy() {
  copy ??= freshCopy();
  return copy;
}

export const plane = {
  id: "tierheap",
  title: "tierheap, ControlPlane",
  open: openPlane,
  source: {
    prepare: `const { plane, arena } = heap;
      const slots = new Int32Array(placeCount), generations = new Int32Array(placeCount);`,
    allocate: `const slot = plane.allocate(arena, bytes, 1);
      slots[place] = slot; generations[place] = plane.generationOf(slot);`,
    free: "plane.free(slots[place], generations[place]);",
  },
};

async function openCore(capacities, { slotCount } = {}) {
  const { slotCapacity, arenaCapacity, metadataBytes } = tableLengths(capacities, slotCount);
  const module = await WebAssembly.compile(
    await readFile(new URL("../../../dist/core.wasm", import.meta.url)),
  );
  const instantiate = async (memory) =>
    (await WebAssembly.instantiate(module, { env: { memory } })).exports;
  const probe = await instantiate(createUnsharedMemory(1));
  const base = probe.controlHeapBase();
  const tableBytes = probe.controlBytes(slotCapacity, arenaCapacity, metadataBytes) >>> 0;
  const memory = createUnsharedMemory(Math.ceil((base + tableBytes) / 65536));
  const core = await instantiate(memory);
  const { byteLength } = memory.buffer;
  const status = core.controlInit(base, byteLength - base, slotCapacity, arenaCapacity);
  if (status !== abi.STATUS_OK) throw new Error(`the core refused its configuration: ${status}`);
  const words = new Int32Array(memory.buffer);
  const hot = base + words[(base + abi.CONTROL_OFF_HOT) / 4];
  return capacities.map((capacity) => ({
    core,
    base,
    arena: core.arenaOpen(base, 0, Math.floor(capacity / 2 ** GRANULE_SHIFT), GRANULE_SHIFT),
    words,
    generationWord: (hot + abi.HOT_OFF_GENERATION) / 4,
    slotWords: abi.HOT_BYTES / 4,
  }));
}

export const core = {
  id: "tierheap-core",
  title: "tierheap, core.wasm",
  open: openCore,
  source: {
    prepare: `const { base, arena, words, generationWord, slotWords } = heap;
      const { arenaAllocate, slotFree } = heap.core;
      const slots = new Int32Array(placeCount), generations = new Int32Array(placeCount);`,
    allocate: `const slot = arenaAllocate(base, arena, bytes, 1);
      slots[place] = slot; generations[place] = words[generationWord + slot * slotWords];`,
    free: `if (slotFree(base, slots[place], generations[place]) !== 0) throw new Error("refused");`,
  },
};

async function openBuddy(capacities, { slotCount } = {}) {
  const heaps = [];
  for (const totalBytes of capacities) {
    const { BuddyAllocator } = await importFresh("dist/src/buddy-allocator.js");
    const blockCountMax = tableLengths([totalBytes], slotCount, () => 0).slotCapacity - 1;
    const granuleBytes = 2 ** GRANULE_SHIFT;
    heaps.push({ buddy: await BuddyAllocator.create({ totalBytes, granuleBytes, blockCountMax }) });
  }
  return heaps;
}

export const buddy = {
  id: "tierheap-buddy",
  title: "tierheap, BuddyAllocator",
  open: openBuddy,
  source: {
    prepare: "const { buddy } = heap; const handles = new Float64Array(placeCount);",
    allocate: "handles[place] = buddy.tryAllocate(bytes);",
    free: "buddy.free(handles[place]);",
  },
};
