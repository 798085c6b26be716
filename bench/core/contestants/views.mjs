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

/** The view is kept beside the slot and made again when place or length of its block differ. */
const keptView = {
  id: "tierheap-kept-view",
  title: "tierheap, ControlPlane and kept view",
  open: openPlaneWithBytes,
  source: {
    prepare: `${plane.source.prepare} ${views}
      const buffer = heap.buffer, kept = new Array(plane.slotCapacity).fill(null);`,
    allocate: `${plane.source.allocate}
      const offset = plane.offsetOf(slot);
      let view = kept[slot];
      if (view === null || view.byteOffset !== offset || view.byteLength !== bytes) {
        view = new Float32Array(buffer, offset, bytes >>> 2);
        kept[slot] = view;
      }
      view[0] = place;
      views[place] = view;`,
    free: plane.source.free,
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
  heaps: [floor, keptView, newView, tensor, tlsfView],
  pools: [floor, keptView, tensor, ...[mapPool, typedArrayPool, typedArray].map(written)],
};
