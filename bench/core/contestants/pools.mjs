// What a program does without an allocator: typed arrays, fresh or kept for reuse. The collector pays
// for these, and large live memories distort it, so they run in a process without the other peers.
// Dropping a reference is all that freeing a fresh array means; its cost shows in the next allocation.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const prepare = "const arrays = new Array(placeCount).fill(null);";

export const typedArray = {
  id: "new-float32array",
  title: "new Float32Array",
  isSlow: true,
  open: async (capacities) => capacities.map(() => ({})),
  source: {
    prepare,
    allocate: "arrays[place] = new Float32Array(bytes >>> 2);",
    free: "arrays[place] = null;",
  },
};

export const buffer = {
  id: "buffer-alloc-unsafe",
  title: "Buffer.allocUnsafe",
  isSlow: true,
  open: async (capacities) => capacities.map(() => ({ allocate: Buffer.allocUnsafe })),
  source: {
    prepare: `const { allocate } = heap; ${prepare}`,
    allocate: "arrays[place] = allocate(bytes);",
    free: "arrays[place] = null;",
  },
};

/** A stack of arrays for each size. It never gives a byte back. */
class MapPool {
  #stacks = new Map();

  take(bytes) {
    const stack = this.#stacks.get(bytes);
    return stack !== undefined && stack.length > 0 ? stack.pop() : new Float32Array(bytes >>> 2);
  }

  give(array) {
    const stack = this.#stacks.get(array.byteLength);
    if (stack === undefined) this.#stacks.set(array.byteLength, [array]);
    else stack.push(array);
  }

  get heldBytes() {
    return [...this.#stacks].reduce((sum, [bytes, stack]) => sum + bytes * stack.length, 0);
  }
}

export const mapPool = {
  id: "map-pool",
  title: "Map pool (size to arrays)",
  open: async (capacities) => capacities.map(() => ({ pool: new MapPool() })),
  heldBytes: ({ pool }) => pool.heldBytes,
  source: {
    prepare: `const { pool } = heap; ${prepare}`,
    allocate: "arrays[place] = pool.take(bytes);",
    free: "pool.give(arrays[place]);",
  },
};

export const typedArrayPool = {
  id: "typedarray-pool",
  title: "npm typedarray-pool",
  isSlow: true,
  open: async (capacities) => {
    const { mallocFloat32, freeFloat32, clearCache } = require("typedarray-pool");
    clearCache();
    return capacities.map(() => ({ take: mallocFloat32, give: freeFloat32 }));
  },
  // The package keeps its one pool here, and stacks of buffers in it by the log2 of their bytes.
  heldBytes: () =>
    globalThis.__TYPEDARRAY_POOL.DATA.reduce(
      (sum, { length }, order) => sum + length * 2 ** order,
      0,
    ),
  source: {
    prepare: `const { take, give } = heap; ${prepare}`,
    allocate: "arrays[place] = take(bytes >>> 2);",
    free: "give(arrays[place]);",
  },
};
