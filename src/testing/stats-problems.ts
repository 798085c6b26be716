// What must add up in the statistics of every memory, at any moment between two turns of the event loop.
// Knows figures only, so it can be asked of a snapshot that another process took.
import type { FeatureStats } from "../stats/feature.js";
import type { MemoryStats } from "../stats/memory-stats.js";
import type { LatencyStats } from "../stats/recording.js";

type Pool = MemoryStats["pools"][number];

/**
 * Compares the figures of a snapshot with each other.
 *
 * @returns One line for each that does not fit; empty when all add up.
 * @remarks Of a memory that is shared with workers, only while none of them is inside a call.
 */
export function statsProblems(stats: MemoryStats): string[] {
  const problems: string[] = [];
  const check: Check = (holds, text) => {
    if (!holds) problems.push(text);
  };
  checkLookups(stats, check);
  for (const pool of stats.pools) checkPool(pool, check);
  checkBudget(stats, check);
  checkTiers(stats, check);
  checkCounts(stats, check);
  for (const latency of stats.latencies) checkLatency(latency, check);
  checkSeries(stats, check);
  for (const feature of stats.features) checkFeature(feature, check);
  const names = stats.features.map(({ name }) => name);
  check(new Set(names).size === names.length, "a feature is listed twice");
  return problems;
}

type Check = (holds: boolean, text: string) => void;

const sumOf = <T>(rows: readonly T[], pick: (row: T) => number) =>
  rows.reduce((total, row) => total + pick(row), 0);

function checkLookups({ lookups, prefetch }: MemoryStats, check: Check): void {
  const { hits, joins, misses } = lookups;
  check(hits + joins + misses === lookups.lookups, "lookups: hits + joins + misses");
  check(lookups.cold + lookups.absent <= misses, "lookups: more found cold or nowhere than missed");
  const { usedCount, wastedCount, lateCount, outstandingCount, issuedCount } = prefetch;
  const settledCount = usedCount + wastedCount + lateCount;
  check(settledCount + outstandingCount === issuedCount, "prefetch: used + wasted + late");
  check(prefetch.declaredCount <= issuedCount, "prefetch: more declared than issued");
}

function checkPool(pool: Pool, check: Check): void {
  const { kind, arenas, grantedBytes, freeBytes, capacityBytes } = pool;
  const isSum = (name: keyof Pool & keyof Pool["arenas"][number]) =>
    check(pool[name] === sumOf(arenas, (arena) => arena[name]), `${kind}: ${name} of its arenas`);
  isSum("capacityBytes");
  isSum("grantedBytes");
  isSum("freeBytes");
  isSum("liveCount");
  isSum("pinnedCount");
  check(pool.arenaCount === arenas.length, `${kind}: arenas`);
  check(grantedBytes + freeBytes === capacityBytes, `${kind}: granted + free = capacity`);
  check(pool.requestedBytes <= grantedBytes, `${kind}: requested above granted`);
  check(grantedBytes <= pool.claimedBytes, `${kind}: granted above claimed`);
  check(pool.claimedBytes <= pool.claimedBytesPeak, `${kind}: claimed above its peak`);
  check(pool.requestedBytes <= pool.requestedBytesPeak, `${kind}: requested above its peak`);
  check(capacityBytes <= pool.capacityBytesPeak, `${kind}: capacity above its peak`);
  check(pool.allocationCount - pool.freeCount === pool.liveCount, `${kind}: live blocks`);
  check(pool.pinnedCount <= pool.liveCount, `${kind}: pinned above live`);
}

function checkBudget({ budget, pools, arenas }: MemoryStats, check: Check): void {
  const { byCategory, usedBytes, usedBytesPeak, limitBytes } = budget;
  check(sumOf(Object.values(byCategory), (bytes) => bytes) === usedBytes, "budget: categories");
  check(usedBytes <= usedBytesPeak && usedBytesPeak <= limitBytes, "budget: the limit");
  const openBytes = sumOf(pools, ({ capacityBytes }) => capacityBytes);
  check(byCategory.arenas === openBytes + arenas.spareBytes, "budget: arenas");
}

function checkTiers(stats: MemoryStats, check: Check): void {
  const { tiers, lookups, transfers } = stats;
  const ramAt = tiers.findIndex(({ name }) => name === "ram");
  const ram = tiers[ramAt];
  const below = tiers.slice(ramAt + 1);
  check(ram?.hits === lookups.hits + lookups.joins, "ram: hits");
  check(ram?.misses === lookups.misses, "ram: misses");
  check(
    tiers.every(({ priority }, index) => priority === index),
    "tiers: their order",
  );
  for (const { name, skips, misses, storedBytes, physicalBytes, objectCount } of below) {
    check(skips <= misses, `${name}: skips above misses`);
    check(storedBytes >= 0 && physicalBytes >= 0, `${name}: bytes below 0`);
    check(objectCount > 0 || storedBytes === 0, `${name}: bytes without an object`);
  }
  check(transfers.hotCount > 0 || transfers.hotBytes === 0, "hot: bytes without a tensor");
  check(stats.tensors.hotBytes === transfers.hotBytes, "hot: bytes");
  check(stats.tensors.hotCount === transfers.hotCount, "hot: tensors");
}

function checkCounts({ disposables, codecs, sharing, tensors }: MemoryStats, check: Check): void {
  const { refusedCount, droppedCount, refusedBytes, droppedBytes } = disposables;
  check(refusedCount <= droppedCount, "admission: refused above dropped");
  check(refusedBytes <= droppedBytes, "admission: bytes refused above dropped");
  for (const { codec, tensorCount, rawBytes } of codecs) {
    check(tensorCount > 0 || rawBytes === 0, `${codec}: bytes without a tensor`);
  }
  check(sharing.contentCount <= sharing.sharedCount, "sharing: contents above tensors");
  check(tensors.count >= sharing.sharedCount, "sharing: more tensors than there are");
}

function checkLatency(latency: LatencyStats, check: Check): void {
  const { name, count, classes, leastMs, mostMs, totalMs, p50Ms, p90Ms, p99Ms } = latency;
  check(sumOf(classes, (each) => each.count) === count && count > 0, `${name}: its classes`);
  const ends = classes.map(({ upToMs }) => upToMs);
  check(isAscending(ends) && new Set(ends).size === ends.length, `${name}: order of its classes`);
  check(isAscending([0, leastMs, p50Ms, p90Ms, p99Ms, mostMs]), `${name}: its shares`);
  // Sums of fractions.
  const slack = 1e-9 * (1 + totalMs);
  const isBetween = count * leastMs <= totalMs + slack && totalMs <= count * mostMs + slack;
  check(isBetween, `${name}: its total`);
}

function checkSeries({ series }: MemoryStats, check: Check): void {
  if (series === null) return;
  const { samples, capacity } = series;
  check(samples.length <= capacity, "series: more samples than there is room for");
  for (const name of ["timeMs", "hits", "joins", "misses", "rawBytesIn", "rawBytesOut"] as const) {
    check(isAscending(samples.map((sample) => sample[name])), `series: ${name} goes back`);
  }
}

function checkFeature(feature: FeatureStats, check: Check): void {
  const { name, isOn, governedBy, cost, gain, switchedOffCount } = feature;
  for (const { ns, bytes, count } of [cost, gain]) {
    check(ns >= 0 && bytes >= 0 && count >= 0, `${name}: below 0`);
    check(count > 0 || bytes === 0, `${name}: bytes without an occasion`);
  }
  check(governedBy !== "governor" || isOn || switchedOffCount > 0, `${name}: off by nobody`);
}

function isAscending(values: readonly number[]): boolean {
  return values.every((value, index) => index === 0 || (values[index - 1] as number) <= value);
}
