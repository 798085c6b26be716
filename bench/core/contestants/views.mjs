// The view metric: a tensor is a block and a typed array over it, ready to be written.

import { floor } from "./floor.mjs";
import { importFresh } from "./fresh-copy.mjs";
import { mapPool, typedArray, typedArrayPool } from "./pools.mjs";
import { openPlane, plane } from "./tierheap.mjs";
import { openTlsf, tlsf } from "./tlsf.mjs";

const views = "const views = new Array(placeCount).fill(null);";

async function openPlaneWithBytes(capacities) {
  const heaps = await openPlane(capacities);
  return heaps.map((heap) => Object.assign(heap, { buffer: new ArrayBuffer(heap.capacityBytes) }));
}

/** What the library offers for this: a block and its view, which is kept for the next owner. */
const viewAllocator = {
  id: "tierheap-view",
  title: "tierheap, ViewAllocator",
  open: async (capacities) => {
    const { ViewAllocator } = await importFresh("dist/src/view-allocator.js");
    const heaps = [];
    for (const totalBytes of capacities) {
      const blockCountMax = Math.ceil(totalBytes / 4096);
      heaps.push({
        allocator: await ViewAllocator.create({ totalBytes, blockCountMax, dtype: "f32" }),
      });
    }
    return heaps;
  },
  source: {
    prepare: "const { allocator } = heap; const blocks = new Array(placeCount).fill(null);",
    allocate: `const block = allocator.tryAllocate(bytes >>> 2);
      block.view[0] = place;
      blocks[place] = block;`,
    free: "blocks[place].free(); blocks[place] = null;",
  },
};

/** One pool per shape, as a program has them; the driver finds it by the number of bytes. */
const fixedShapes = {
  id: "tierheap-fixed-shape",
  title: "tierheap, FixedShapePool",
  open: async (capacities) => {
    const { createTensorMemory } = await importFresh("dist/src/node.js");
    const memories = [];
    for (const ram of capacities) {
      memories.push({ memory: await createTensorMemory({ budgets: { ram } }) });
    }
    return memories;
  },
  close: ({ memory }) => memory.close(),
  source: {
    prepare: `const { memory } = heap; const tensors = new Array(placeCount).fill(null);
      const pools = [];
      const open = (bytes) =>
        memory.fixedShapePool({ kind: "ACTIVATIONS", shape: [bytes >>> 2], dtype: "f32" });`,
    allocate: `const tensor = (pools[bytes >>> 8] ??= open(bytes)).allocate();
      tensor.view[0] = place;
      tensors[place] = tensor;`,
    free: "tensors[place].free(); tensors[place] = null;",
  },
};

const newView = {
  id: "tierheap-new-view",
  title: "tierheap, ControlPlane and new view",
  open: openPlaneWithBytes,
  source: {
    prepare: `${plane.source.prepare} ${views} const { buffer } = heap;`,
    allocate: `${plane.source.allocate}
      const view = new Float32Array(buffer, plane.offsetOf(slot), bytes >>> 2);
      view[0] = place;
      views[place] = view;`,
    free: plane.source.free,
  },
};

const tensor = {
  id: "tierheap-tensor",
  title: "tierheap, TensorMemory: allocate, pin, free",
  open: async (capacities) => {
    const { createTensorMemory } = await importFresh("dist/src/node.js");
    const memories = [];
    for (const ram of capacities) {
      memories.push({ memory: await createTensorMemory({ budgets: { ram } }) });
    }
    return memories;
  },
  close: ({ memory }) => memory.close(),
  source: {
    prepare: "const { memory } = heap; const tensors = new Array(placeCount).fill(null);",
    allocate: `const tensor = memory.allocate({
        kind: "ACTIVATIONS", shape: [bytes >>> 2], dtype: "f32",
      });
      const pin = tensor.pin();
      pin.view[0] = place;
      pin[Symbol.dispose]();
      tensors[place] = tensor;`,
    free: "tensors[place].free(); tensors[place] = null;",
  },
};

const tlsfView = {
  id: "tlsf-new-view",
  title: "AssemblyScript tlsf and new view",
  open: openTlsf,
  source: {
    prepare: `${tlsf.source.prepare} ${views} const { buffer } = heap;`,
    allocate: `const address = allocate(bytes);
      handles[place] = address;
      const view = new Float32Array(buffer, address, bytes >>> 2);
      view[0] = place;
      views[place] = view;`,
    free: tlsf.source.free,
  },
};

function written(contestant) {
  const { allocate } = contestant.source;
  const source = { ...contestant.source, allocate: `${allocate} arrays[place][0] = place;` };
  return { ...contestant, source };
}

export const VIEW_GROUPS = {
  heaps: [floor, viewAllocator, fixedShapes, newView, tensor, tlsfView],
  pools: [
    floor,
    viewAllocator,
    fixedShapes,
    tensor,
    ...[mapPool, typedArrayPool, typedArray].map(written),
  ],
};
