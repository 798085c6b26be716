// Allocators over an ArrayBuffer that npm has. All are slow in some workload, so they run a part of
// each. A missing one is reported, not fatal: nothing else needs them.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { touched } from "./touched.mjs";

const require = createRequire(import.meta.url);

async function load(name) {
  const module = await import(pathToFileURL(require.resolve(name)));
  return module.default ?? module;
}

/** Fits the three to one shape; `allocate` gives 0 or null when there is no room. */
function heapOf({ capacityBytes, allocate, free, offsetOf = (handle) => handle, ...names }) {
  return { capacityBytes, metadataBytes: 0, tryAllocate: allocate, free, offsetOf, ...names };
}

export const thingMalloc = {
  id: "thing-malloc",
  title: "@thi.ng/malloc",
  isSlow: true,
  open: async (capacities) => {
    const { MemPool } = await load("@thi.ng/malloc");
    return capacities.map((capacityBytes) => {
      const pool = new MemPool({ buf: touched(new ArrayBuffer(capacityBytes)) });
      const allocate = (bytes) => pool.malloc(bytes);
      return heapOf({ capacityBytes, allocate, free: (address) => pool.free(address), pool });
    });
  },
  source: {
    prepare: "const { pool } = heap; const handles = new Int32Array(placeCount);",
    allocate: "handles[place] = pool.malloc(bytes);",
    free: "pool.free(handles[place]);",
  },
};

export const npmMalloc = {
  id: "npm-malloc",
  title: "npm malloc",
  isSlow: true,
  open: async (capacities) => {
    const Allocator = await load("malloc");
    return capacities.map((capacityBytes) => {
      const allocator = new Allocator(touched(new ArrayBuffer(capacityBytes)));
      const allocate = (bytes) => (bytes > capacityBytes ? 0 : allocator.alloc(bytes));
      return heapOf({ capacityBytes, allocate, free: (a) => allocator.free(a), allocator });
    });
  },
  source: {
    prepare: "const { allocator } = heap; const handles = new Int32Array(placeCount);",
    allocate: "handles[place] = allocator.alloc(bytes);",
    free: "allocator.free(handles[place]);",
  },
};

export const npmAlloc = {
  id: "npm-alloc",
  title: "npm alloc (buddy)",
  isSlow: true,
  needsPowerOfTwo: true,
  open: async (capacities) => {
    const Buddy = await load("alloc/lib/buddy.js");
    return capacities.map((capacityBytes) => {
      const buddy = new Buddy(Buffer.from(touched(new ArrayBuffer(capacityBytes))), {
        minSize: 64,
      });
      return heapOf({
        capacityBytes,
        allocate: (bytes) => buddy.alloc(bytes),
        free: (block) => buddy.free(block),
        offsetOf: (block) => block.byteOffset,
        buddy,
      });
    });
  },
  source: {
    prepare: "const { buddy } = heap; const handles = new Array(placeCount).fill(null);",
    allocate: "handles[place] = buddy.alloc(bytes);",
    free: "buddy.free(handles[place]);",
  },
};
