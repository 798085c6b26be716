// What the statistics cost: the same work in two memories, one with latencies and samples, one with counters
// alone. They take turns, chunk by chunk, so that a busy moment hits both.
import { createTensorMemory } from "../../../dist/src/node.js";
import { nullSink } from "../../../dist/src/stats/null-sink.js";
import { Recorder } from "../../../dist/src/stats/recorder.js";
import { printFeatures } from "../../features.mjs";
import { median } from "../../support.mjs";
import { forwardPass } from "../llm-trace.mjs";
import { timed } from "../timing.mjs";

const PASS_ROWS = 64;
const ROUND_COUNT = 400;
const OVERHEAD_MAX = 0.03;
const TIMED_OPERATIONS = 10_000;

const tidy = (value) => Number(value.toPrecision(4));

/** Workloads; each does so many operations with a memory. */
const WORKLOADS = [
  {
    name: "forward pass: allocate, pin, free",
    id: "pass",
    prepare: () => {
      const { places, sizes } = forwardPass(PASS_ROWS);
      return (memory) => {
        const tensors = [];
        for (const [index, place] of places.entries()) {
          if (sizes[index] === 0) tensors[place].free();
          else {
            const shape = [sizes[index] / 4];
            const tensor = memory.allocate({ kind: "ACTIVATIONS", shape, dtype: "f32" });
            tensor.pin()[Symbol.dispose]();
            tensors[place] = tensor;
          }
        }
        return places.length;
      };
    },
  },
  {
    name: "pairs: allocate and free at once",
    id: "pairs",
    prepare: () => (memory) => {
      for (let index = 0; index < 500; index++) {
        memory.allocate({ kind: "ACTIVATIONS", byteLength: 4096 }).free();
      }
      return 500;
    },
  },
  {
    name: "lookups: tryAcquire of what is resident",
    id: "lookups",
    prepare: (memories) => {
      for (const memory of memories) memory.allocate({ kind: "KV_CACHE", id: "a", byteLength: 64 });
      return (memory) => {
        for (let index = 0; index < 500; index++) memory.tryAcquire("a")[Symbol.dispose]();
        return 500;
      };
    },
  },
];

/** Bytes that a timed operation leaves to the collector: what the recorder is told 10,000 times. */
function bytesPerTimed() {
  const clock = { monotonicMs: () => performance.now() };
  const recorder = new Recorder({ clock, next: nullSink, sampledOneIn: new Map() });
  const samples = [];
  for (let round = 0; round < 15; round++) {
    globalThis.gc();
    const before = process.memoryUsage().heapUsed;
    for (let index = 1; index <= TIMED_OPERATIONS; index++) recorder.time("allocate", index / 1000);
    samples.push((process.memoryUsage().heapUsed - before) / TIMED_OPERATIONS);
  }
  return median(samples);
}

export async function run({ isQuick }) {
  const open = (statistics) =>
    createTensorMemory({ profile: "generic", budgets: { ram: "256MiB" }, statistics });
  const [full, counters] = [await open("full"), await open("counters")];
  const memories = [full, counters];
  const table = {};
  const figures = [];
  for (const { name, id, prepare } of WORKLOADS) {
    const work = prepare(memories);
    const samples = { full: [], counters: [] };
    const ratios = [];
    const roundCount = isQuick ? ROUND_COUNT / 4 : ROUND_COUNT;
    for (let round = -roundCount / 4; round < roundCount; round++) {
      // Whoever is second finds the caches as the first one has left them.
      const order = round % 2 === 0 ? ["full", "counters"] : ["counters", "full"];
      const times = {};
      for (const which of order) {
        let count = 0;
        const milliseconds = timed(() => {
          count = work(which === "full" ? full : counters);
        });
        times[which] = (milliseconds * 1e6) / count;
      }
      if (round < 0) continue;
      for (const which of order) samples[which].push(times[which]);
      ratios.push(times.full / times.counters);
    }
    // Of pairs that lie next to each other: what else the machine does is the same for both.
    const overhead = median(ratios) - 1;
    table[name] = {
      "full, ns": tidy(median(samples.full)),
      "counters, ns": tidy(median(samples.counters)),
      "overhead, %": tidy(100 * overhead),
    };
    figures.push({
      id: `core/statistics-overhead-${id}`,
      value: tidy(1 + overhead),
      unit: "ratio",
      target: 1 + OVERHEAD_MAX,
      met: overhead <= OVERHEAD_MAX,
      beside: `${tidy(median(samples.full))} beside ${tidy(median(samples.counters))} ns per operation`,
    });
  }
  const allocate = full.stats().latencies.find((each) => each.name === "allocate");
  // A floor: something must have been recorded, and the other memory must have recorded nothing.
  if (allocate === undefined || counters.stats().latencies.length > 0) {
    throw new Error("the two memories do not differ in their statistics");
  }
  const timedBytes = bytesPerTimed();
  const bytes = timedBytes / allocate.sampledOneIn;
  figures.push({
    id: "core/statistics-allocations",
    value: Math.round(bytes),
    unit: "bytes",
    target: 0,
    met: Math.round(bytes) === 0,
    beside: `per operation: ${tidy(timedBytes)} bytes each time that one of ${allocate.sampledOneIn} is timed`,
  });
  printFeatures(full.stats());
  await full.close();
  await counters.close();
  return { tables: [table], figures };
}
