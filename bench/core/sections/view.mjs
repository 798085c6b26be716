// The view metric: four tensors of n, 3n, n and 2n floats with a view each, freed in reverse.

import { VIEW_GROUPS } from "../contestants/views.mjs";
import { openAll } from "../contestants.mjs";
import { compileDriver } from "../driver.mjs";
import { rounds, Samples, takeTurns, timed } from "../timing.mjs";
import { FILL_ARENA_BYTES, tensorStack } from "../workloads.mjs";

const CHUNKS_PER_ROUND = 20;
const STACKS_PER_CHUNK = 125;
const SLOW_STACKS_PER_CHUNK = 25;
const METRICS = [576, 12_288].map((elements) => ({
  metric: `view-${elements}`,
  sizes: tensorStack(elements),
}));

export async function run({ group, isQuick }) {
  const { entries, absent } = await openAll(VIEW_GROUPS[group], [FILL_ARENA_BYTES]);
  for (const entry of entries) {
    entry.samples = METRICS.map(() => new Samples());
    entry.driver = compileDriver(entry.contestant.source)(entry.heaps[0], 4);
  }
  const turn = ({ contestant, driver, samples }, counts) => {
    const stackCount = contestant.isSlow ? SLOW_STACKS_PER_CHUNK : STACKS_PER_CHUNK;
    METRICS.forEach(({ sizes }, index) => {
      for (let chunk = 0; chunk < CHUNKS_PER_ROUND; chunk++) {
        const milliseconds = timed(() => driver.stacks(sizes, 0, stackCount));
        if (counts) samples[index].add(0, milliseconds, stackCount * sizes.length);
      }
    });
  };
  await takeTurns(entries, turn, { ...rounds(isQuick), collects: group === "pools" });
  for (const { contestant, heaps } of entries) await contestant.close?.(heaps[0]);
  const rows = entries.flatMap(({ contestant, samples }) =>
    METRICS.map(({ metric }, index) => ({ metric, contestant, samples: samples[index] })),
  );
  return { rows, absent };
}
