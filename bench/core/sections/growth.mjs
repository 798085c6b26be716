// What an operation costs with more live blocks, and in a larger arena. The core never touches the
// arena's bytes, so none are allocated.
import { floor } from "../contestants/floor.mjs";
import { openPlane, plane } from "../contestants/tierheap.mjs";
import { compileDriver } from "../driver.mjs";
import { rounds, Samples, takeTurns, timed } from "../timing.mjs";
import { BURST_LENGTH, churn } from "../workloads.mjs";

const GIB = 2 ** 30;
const BURSTS_PER_ROUND = 64;
const LIVE_COUNTS = [1000, 20_000, 200_000];
const ARENAS = { "64-mib": GIB / 16, "1-gib": GIB, "4-gib": 4 * GIB };
/** Small enough for the smallest arena. */
const ARENA_LIVE_COUNT = 2000;

const CASES = [
  ...LIVE_COUNTS.map((liveCount) => ({
    id: `live-${liveCount / 1000}k`,
    capacityBytes: 4 * GIB,
    liveCount,
  })),
  ...Object.entries(ARENAS).map(([name, capacityBytes]) => ({
    id: `arena-${name}`,
    capacityBytes,
    liveCount: ARENA_LIVE_COUNT,
  })),
];

export async function run({ isQuick }) {
  const plan = rounds(isQuick, 8);
  const heaps = await openPlane(
    CASES.map(({ capacityBytes }) => capacityBytes),
    { slotCount: 2 ** 19 },
  );
  const floors = await floor.open(CASES);
  const entries = CASES.flatMap(({ id, liveCount }, index) => {
    const workload = churn({ liveCount, burstCount: BURSTS_PER_ROUND });
    const entry = (contestant, heap) => {
      const driver = compileDriver(contestant.source)(heap, liveCount);
      driver.fill(workload.fillPlaces, workload.fillSizes, 0, liveCount);
      return { id, contestant, workload, driver, samples: new Samples() };
    };
    return [entry(plane, heaps[index]), entry(floor, floors[index])];
  });
  const turn = ({ workload, driver, samples }, counts) => {
    const { places, sizes } = workload;
    for (let from = 0; from < places.length; from += BURST_LENGTH) {
      const milliseconds = timed(() => {
        driver.drop(places, from, from + BURST_LENGTH);
        driver.fill(places, sizes, from, from + BURST_LENGTH);
      });
      if (counts) samples.add(0, milliseconds, BURST_LENGTH * 2);
    }
  };
  await takeTurns(entries, turn, plan);

  const samplesOf = (id, contestant) =>
    entries.find((entry) => entry.id === id && entry.contestant === contestant).samples;
  const value = (id) => samplesOf(id, plane).median;
  const figures = CASES.map(({ id }) => ({
    id: `core/growth-${id}`,
    value: value(id),
    unit: "ns",
    beside: `least ${samplesOf(id, plane).least.toFixed(1)}; floor ${samplesOf(id, floor).median.toFixed(1)}`,
  }));
  const liveGrowth = value("live-200k") / value("live-1k");
  const arenaGrowth = value("arena-4-gib") / value("arena-64-mib");
  const verified = await verifyMany();
  figures.push(
    {
      id: "core/growth-live-200k-over-1k",
      value: liveGrowth,
      unit: "ratio",
      target: 3,
      met: liveGrowth <= 3,
      beside: "per operation, in 4 GiB",
    },
    { id: "core/growth-arena-4-gib-over-64-mib", value: arenaGrowth, unit: "ratio" },
    {
      id: "core/verify-200k-live",
      value: verified.milliseconds,
      unit: "ms",
      met: verified.isSound,
      beside: `${verified.liveCount} live blocks in one arena of 4 GiB; the middle of five`,
    },
  );
  return { figures };
}

/** Walks every invariant of an arena with 200,000 live blocks. */
async function verifyMany() {
  const liveCount = LIVE_COUNTS.at(-1);
  const [heap] = await openPlane([4 * GIB], { slotCount: 2 ** 18 });
  const { fillPlaces, fillSizes } = churn({ liveCount, burstCount: 0 });
  compileDriver(plane.source)(heap, liveCount).fill(fillPlaces, fillSizes, 0, liveCount);
  const codes = [];
  const times = Array.from({ length: 5 }, () => timed(() => codes.push(heap.check())));
  return {
    milliseconds: times.sort((left, right) => left - right)[2],
    isSound: codes.every((code) => code === 0),
    liveCount: heap.counters.liveCount,
  };
}
