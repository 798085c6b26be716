// What an allocation costs, beside what JavaScript offers, in one process and interleaved.
//
//   node bench/core.mjs [--json FILE]
//
// A tensor is allocated, pinned for its view, and freed: four in a stack, freed in reverse. The peer
// is a fresh typed array of the same length, which the collector frees.
import { BuddyAllocator, createTensorMemory } from "tierheap";
import { median, report } from "./support.mjs";

const ROUNDS = 60;
const STACKS_PER_ROUND = 250;
const ELEMENTS = 12288;

const memory = await createTensorMemory({ budgets: { ram: "64MiB" } });
const buddy = await BuddyAllocator.create({ totalBytes: 2 ** 26 });

function tensorStack(shape) {
  const options = { kind: "ACTIVATIONS", shape, dtype: "f32" };
  const tensors = [];
  for (let depth = 0; depth < 4; depth++) {
    const tensor = memory.allocate(options);
    const pin = tensor.pin();
    pin.view[0] = depth;
    pin[Symbol.dispose]();
    tensors.push(tensor);
  }
  while (tensors.length > 0) tensors.pop().free();
}

function buddyStack(bytes) {
  const handles = [];
  for (let depth = 0; depth < 4; depth++) handles.push(buddy.tryAllocate(bytes));
  while (handles.length > 0) buddy.free(handles.pop());
}

let sum = 0;
function arrayStack(elements) {
  const arrays = [];
  for (let depth = 0; depth < 4; depth++) {
    const array = new Float32Array(elements);
    array[0] = depth;
    arrays.push(array);
  }
  while (arrays.length > 0) sum += arrays.pop()[0];
}

function timePerTensor(work) {
  const start = process.hrtime.bigint();
  for (let stack = 0; stack < STACKS_PER_ROUND; stack++) work();
  return Number(process.hrtime.bigint() - start) / (STACKS_PER_ROUND * 4);
}

const contestants = {
  tensor: () => tensorStack([ELEMENTS]),
  buddy: () => buddyStack(ELEMENTS * 4),
  array: () => arrayStack(ELEMENTS),
};
const samples = { tensor: [], buddy: [], array: [] };
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, work] of Object.entries(contestants)) {
    const nanoseconds = timePerTensor(work);
    if (round >= ROUNDS / 4) samples[name].push(nanoseconds);
  }
}
await memory.close();

const tensor = median(samples.tensor);
const buddyNs = median(samples.buddy);
const array = median(samples.array);
report("core", [
  {
    id: "core/buddy-allocate-free",
    value: buddyNs,
    unit: "ns",
    beside: `new Float32Array ${array.toFixed(0)} ns`,
  },
  {
    id: "core/tensor-allocate-pin-free",
    value: tensor,
    unit: "ns",
    beside: `new Float32Array ${array.toFixed(0)} ns`,
  },
  { id: "core/typed-array-over-tensor", value: array / tensor, unit: "ratio" },
]);
if (Number.isNaN(sum)) throw new Error("the peer was optimised away");
