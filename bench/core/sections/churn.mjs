// Workload (a): bursts over 20,000 live blocks, freeing and allocating timed apart.
import { GROUPS, openAll } from "../contestants.mjs";
import { compileDriver } from "../driver.mjs";
import { rounds, Samples, takeTurns, timed } from "../timing.mjs";
import { BURST_LENGTH, BURSTS_PER_ROUND, CHURN_ARENA_BYTES, churn } from "../workloads.mjs";

/** A slow contestant does this many bursts a round. */
const SLOW_BURST_COUNT = 4;

export async function run({ group, isQuick }) {
  const plan = rounds(isQuick, 8);
  const roundCount = plan.roundCount + plan.warmUpCount;
  const workload = churn({ burstCount: BURSTS_PER_ROUND * roundCount });
  const liveCount = workload.fillSizes.length;
  const { entries, absent } = await openAll(GROUPS[group], [CHURN_ARENA_BYTES]);
  for (const entry of entries) {
    entry.allocating = new Samples();
    entry.freeing = new Samples();
    entry.driver = compileDriver(entry.contestant.source)(entry.heaps[0], liveCount);
    entry.driver.fill(workload.fillPlaces, workload.fillSizes, 0, liveCount);
    entry.burst = 0;
  }
  const turn = (entry, counts) => {
    const { contestant, driver, allocating, freeing } = entry;
    const burstCount = contestant.isSlow ? SLOW_BURST_COUNT : BURSTS_PER_ROUND;
    for (let burst = 0; burst < burstCount; burst++, entry.burst++) {
      const from = entry.burst * BURST_LENGTH;
      const to = from + BURST_LENGTH;
      const freeMs = timed(() => driver.drop(workload.places, from, to));
      const allocateMs = timed(() => driver.fill(workload.places, workload.sizes, from, to));
      if (counts) freeing.add(0, freeMs, BURST_LENGTH);
      if (counts) allocating.add(0, allocateMs, BURST_LENGTH);
    }
  };
  await takeTurns(entries, turn, { ...plan, collects: group === "pools" });
  const rows = entries.flatMap(({ contestant, allocating, freeing }) => [
    { metric: "churn-allocate", contestant, samples: allocating },
    { metric: "churn-free", contestant, samples: freeing },
  ]);
  return { rows, absent };
}
