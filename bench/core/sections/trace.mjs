// Workload (b), timed chunk by chunk; then what the pools still hold when everything was freed.
import { absence, GROUPS, openAll } from "../contestants.mjs";
import { compileDriver } from "../driver.mjs";
import { checkedTrace } from "../llm-trace.mjs";
import { CHUNK_LENGTH, rounds, Samples, takeTurns, timed } from "../timing.mjs";
import { TRACE_ARENA_BYTES } from "../workloads.mjs";

/** A slow contestant runs this many operations, each time on a fresh heap. */
const SLOW_OPERATION_COUNT = 40_000;

/** Times one run through the trace. */
export function replayTimed(driver, trace, count, samples) {
  const { places, sizes } = trace;
  for (let from = 0; from < count; from += CHUNK_LENGTH) {
    const to = Math.min(count, from + CHUNK_LENGTH);
    const milliseconds = timed(() => driver.replay(places, sizes, from, to));
    samples?.add(from / CHUNK_LENGTH, milliseconds, to - from);
  }
}

export async function run({ group, isQuick }) {
  const trace = checkedTrace();
  const { entries, absent } = await openAll(GROUPS[group], [TRACE_ARENA_BYTES]);
  for (const entry of entries) {
    entry.samples = new Samples();
    entry.compiled = compileDriver(entry.contestant.source);
    entry.driver = entry.compiled(entry.heaps[0], trace.placeCount);
  }
  const collects = group === "pools";
  const turn = async (entry, counts) => {
    const { contestant } = entry;
    if (contestant.isSlow) {
      const [heap] = await contestant.open([TRACE_ARENA_BYTES]);
      entry.driver = entry.compiled(heap, trace.placeCount);
    }
    const count = contestant.isSlow ? SLOW_OPERATION_COUNT : trace.count;
    replayTimed(entry.driver, trace, count, counts ? entry.samples : undefined);
  };
  await takeTurns(entries, turn, { ...rounds(isQuick, 25), collects });

  // A slow contestant is compared with the others on the part that it did.
  const start = (samples) => samples.first(SLOW_OPERATION_COUNT / CHUNK_LENGTH);
  const rows = entries.flatMap(({ contestant, samples }) => [
    ...(contestant.isSlow ? [] : [{ metric: "llm-trace", contestant, samples }]),
    { metric: "llm-trace-start", contestant, samples: start(samples) },
  ]);
  const figures = [];
  for (const { contestant, compiled } of entries) {
    if (contestant.heldBytes === undefined) continue;
    try {
      const [heap] = await contestant.open([TRACE_ARENA_BYTES]);
      compiled(heap, trace.placeCount).replay(trace.places, trace.sizes, 0, trace.count);
      figures.push({
        id: `core/held-after-trace-over-peak/${contestant.id}`,
        value: contestant.heldBytes(heap) / trace.liveBytesPeak,
        unit: "ratio",
      });
    } catch (error) {
      absent.push(absence(contestant, error));
    }
  }
  return { rows, figures, absent };
}
