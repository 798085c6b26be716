// One thread of the section `workers`: a heap of its own, and one that it shares, on which it runs the
// same operations whenever it is told to.
import { parentPort, workerData } from "node:worker_threads";
import { BuddyAllocator } from "../../dist/src/node.js";
import { xorshift } from "./random.mjs";

const { token, totalBytes, seed, sizes, liveCount } = workerData;
const heaps = {
  shared: await BuddyAllocator.attach(token),
  own: await BuddyAllocator.create({ totalBytes }),
};
const random = xorshift(seed);
const live = {};
for (const [name, heap] of Object.entries(heaps)) {
  live[name] = Array.from({ length: liveCount }, (_, index) =>
    heap.tryAllocate(sizes[index % sizes.length]),
  );
}

/** Frees a random block and allocates one in its place, `pairCount` times. */
function run(heap, handles, pairCount) {
  for (let pair = 0; pair < pairCount; pair++) {
    const index = Math.floor(random() * liveCount);
    heap.free(handles[index]);
    handles[index] = heap.tryAllocate(sizes[Math.floor(random() * sizes.length)]);
    if (handles[index] === 0) throw new Error("the heap is too small for the bench");
  }
}

parentPort.on("message", ({ name, pairCount, gate }) => {
  // All begin together: the last one to come opens the gate.
  const words = new Int32Array(gate);
  Atomics.add(words, 0, 1);
  while (Atomics.load(words, 0) < Atomics.load(words, 1));
  const startMs = performance.now();
  run(heaps[name], live[name], pairCount);
  parentPort.postMessage(performance.now() - startMs);
});
parentPort.postMessage("ready");
