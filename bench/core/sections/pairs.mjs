// Workload (c): allocate and free at once, in an empty arena and in one that is full of other blocks.
import { GROUPS, openAll } from "../contestants.mjs";
import { compileDriver } from "../driver.mjs";
import { CHUNK_LENGTH, rounds, Samples, takeTurns, timed } from "../timing.mjs";
import {
  CHURN_ARENA_BYTES,
  CHURN_LIVE_COUNT,
  churn,
  FILL_ARENA_BYTES,
  replacements,
  stackOfEight,
} from "../workloads.mjs";

const CHUNKS_PER_ROUND = 40;
/** Places of the pairs and stacks, beyond those of the blocks that fill the arena. */
const SPARE_PLACE_COUNT = 8;

const METRICS = [
  { metric: "pair-4096-empty", isBusy: false, bytes: 4096 },
  { metric: "pair-4096-busy", isBusy: true, bytes: 4096 },
  { metric: "pair-2304-busy", isBusy: true, bytes: 2304 },
  { metric: "stack-of-8-busy", isBusy: true, sizes: stackOfEight() },
];

export async function run({ group, isQuick }) {
  const { fillPlaces, fillSizes } = churn({ burstCount: 0 });
  const ageing = replacements();
  const placeCount = CHURN_LIVE_COUNT + SPARE_PLACE_COUNT;
  const capacities = [FILL_ARENA_BYTES, CHURN_ARENA_BYTES];
  const { entries, absent } = await openAll(GROUPS[group], capacities);
  for (const entry of entries) {
    const { contestant, heaps } = entry;
    entry.samples = METRICS.map(() => new Samples());
    entry.empty = compileDriver(contestant.source)(heaps[0], placeCount);
    entry.busy = compileDriver(contestant.source)(heaps[1], placeCount);
    entry.busy.fill(fillPlaces, fillSizes, 0, CHURN_LIVE_COUNT);
    if (!contestant.isSlow) {
      entry.busy.replay(ageing.places, ageing.sizes, 0, ageing.places.length);
    }
  }
  const turn = ({ empty, busy, samples }, counts) => {
    METRICS.forEach(({ isBusy, bytes, sizes }, index) => {
      const driver = isBusy ? busy : empty;
      for (let chunk = 0; chunk < CHUNKS_PER_ROUND; chunk++) {
        const pairCount = CHUNK_LENGTH / 2;
        const work =
          sizes === undefined
            ? () => driver.pairs(bytes, CHURN_LIVE_COUNT, pairCount)
            : () => driver.stacks(sizes, CHURN_LIVE_COUNT, Math.floor(pairCount / sizes.length));
        const milliseconds = timed(work);
        const done = sizes === undefined ? pairCount : Math.floor(pairCount / sizes.length) * 8;
        if (counts) samples[index].add(0, milliseconds, done);
      }
    });
  };
  await takeTurns(entries, turn, { ...rounds(isQuick), collects: group === "pools" });
  const rows = entries.flatMap(({ contestant, samples }) =>
    METRICS.map(({ metric }, index) => ({ metric, contestant, samples: samples[index] })),
  );
  return { rows, absent };
}
