// Statistics as text for people.
import type { FeatureStats } from "./feature.js";
import { formatBytes, formatPercent, formatTable } from "./format.js";
import type { MemoryStats } from "./memory-stats.js";

function compactionRows(stats: MemoryStats): string[][] {
  const rows = stats.pools.map(({ kind, compaction, capacityBytesPeak, claimedBytesPeak }) => [
    kind,
    `${compaction.planCount}`,
    `${compaction.moveCount}`,
    formatBytes(compaction.movedBytes),
    `${compaction.vetoCount}`,
    `${compaction.evacuatedCount}`,
    formatBytes(capacityBytesPeak),
    formatBytes(claimedBytesPeak),
  ]);
  const head = ["compaction", "plans", "moves", "moved", "vetoes", "arenas emptied"];
  const peaks = ["capacity peak", "claimed peak"];
  const { lock } = stats;
  if (lock === null) return [[...head, ...peaks], ...rows];
  const { enteredCount, contendedCount, refusedCount } = lock;
  const counts = `${enteredCount}, contended ${contendedCount}, refused ${refusedCount}`;
  return [[...head, ...peaks], ...rows, ["lock taken", counts]];
}

function blockRows({ kind, freeBlocks, cachedBlocks }: MemoryStats["pools"][number]): string[][] {
  const text = (counts: typeof freeBlocks) =>
    counts.map(({ blockBytes, count }) => `${count} × ${formatBytes(blockBytes)}`).join(", ");
  const rows: string[][] = [];
  if (freeBlocks.length > 0) rows.push([kind, "free", text(freeBlocks)]);
  if (cachedBlocks.length > 0) rows.push([kind, "cached", text(cachedBlocks)]);
  return rows;
}

/** Whether a feature took or gave anything, or is off because somebody has decided so. */
export function didSomething({ isOn, governedBy, cost, gain }: FeatureStats): boolean {
  return cost.count > 0 || gain.count > 0 || (!isOn && governedBy !== "itself");
}

/** A row for each feature that did something, or was switched off; under a head. */
export function featureRows(features: readonly FeatureStats[]): string[][] {
  const text = ({ ns, bytes, count }: FeatureStats["cost"]) =>
    `${(ns / 1e6).toFixed(1)} ms, ${formatBytes(bytes)} in ${count}`;
  const rows = features
    .filter(didSomething)
    .map(({ name, isOn, governedBy, cost, gain, switchedOffCount }) => [
      name,
      `${isOn ? "on" : "off"}, by ${governedBy}`,
      text(cost),
      text(gain),
      `${switchedOffCount}`,
    ]);
  if (rows.length === 0) return rows;
  return [["feature", "now", "cost", "gain", "switched off"], ...rows];
}

export function formatReport(stats: MemoryStats): string {
  const { budget, arenas, lookups, transfers, prefetch, disposables, sharing } = stats;
  const sections: string[] = [];
  sections.push(
    formatTable([
      ["RAM budget", formatBytes(budget.limitBytes)],
      ["  used, peak", `${formatBytes(budget.usedBytes)}, ${formatBytes(budget.usedBytesPeak)}`],
      [
        "  arenas, of these spare",
        `${formatBytes(budget.byCategory.arenas)}, ${formatBytes(arenas.spareBytes)}`,
      ],
      ["  staging", formatBytes(budget.byCategory.staging)],
      ["  warm tier", formatBytes(budget.byCategory.warm)],
      ["  control plane", formatBytes(budget.byCategory.control)],
      ["  retired, not collected yet", formatBytes(budget.byCategory.retired)],
    ]),
  );
  sections.push(
    formatTable([
      [
        "pool",
        "arenas",
        "live now",
        "live peak",
        "allocated",
        "freed",
        "granted",
        "free",
        "ext. frag.",
        "level",
        "worst",
        "int. frag.",
      ],
      ...stats.pools.map((pool) => [
        pool.kind,
        `${pool.arenaCount} × ${formatBytes(pool.arenaBytes)}`,
        formatBytes(pool.requestedBytes),
        formatBytes(pool.requestedBytesPeak),
        `${pool.allocationCount}`,
        `${pool.freeCount}`,
        formatBytes(pool.grantedBytes),
        formatBytes(pool.freeBytes),
        formatPercent(pool.externalFragmentation),
        pool.fragmentationLevel,
        formatPercent(pool.externalFragmentationPeak),
        formatPercent(pool.internalFragmentation),
      ]),
    ]),
  );
  sections.push(formatTable(compactionRows(stats)));
  const blocks = stats.pools.flatMap(blockRows);
  if (blocks.length > 0) sections.push(formatTable([["pool", "blocks", "by length"], ...blocks]));
  sections.push(
    formatTable([
      ["tier", "holds", "bytes", "hits", "joins", "misses", "written", "read"],
      [
        "ram",
        `${transfers.hotCount} tensors`,
        formatBytes(transfers.hotBytes),
        `${lookups.hits}`,
        `${lookups.joins}`,
        `${lookups.misses}`,
      ],
      ...stats.tiers
        .slice(1)
        .map((level) => [
          level.name,
          `${level.objectCount} records`,
          formatBytes(level.storedBytes),
          `${level.loads}`,
          "",
          "",
          formatBytes(level.bytesWritten),
          formatBytes(level.bytesRead),
        ]),
    ]),
  );
  sections.push(
    formatTable([
      [
        "swapped out",
        `${transfers.swapOutCount} tensors, ${formatBytes(transfers.rawBytesOut)} written`,
      ],
      ["left clean", `${transfers.cleanEvictionCount} tensors, nothing written`],
      ["swapped in", `${transfers.swapInCount} tensors, ${formatBytes(transfers.rawBytesIn)}`],
      [
        "shared",
        `${sharing.sharedCount} tensors in ${sharing.contentCount} contents: ${formatBytes(sharing.savedBytes)} saved, ${sharing.copyCount} copied to be written`,
      ],
      [
        "collected",
        stats.lifetimes === null
          ? "off"
          : `${stats.lifetimes.collectedCount} of ${stats.lifetimes.registeredCount} registered tensors: ${stats.lifetimes.regretCount} wanted again`,
      ],
      ["dropped", `${disposables.droppedCount} disposable tensors, to be made again if need be`],
      [
        "prefetched",
        `${prefetch.issuedCount} tensors: ${prefetch.usedCount} used, ${prefetch.lateCount} late, ${prefetch.wastedCount} wasted`,
      ],
    ]),
  );
  if (stats.codecs.length > 0) {
    sections.push(
      formatTable([
        ["codec", "tensors", "bytes", "stored", "ratio", "encoding", "decoding", "rel. error"],
        ...stats.codecs.map((each) => [
          each.codec,
          `${each.tensorCount}`,
          formatBytes(each.rawBytes),
          formatBytes(each.storedBytes),
          each.storedBytes === 0 ? "" : (each.rawBytes / each.storedBytes).toFixed(2),
          `${each.encodeMs.toFixed(0)} ms`,
          `${each.decodeMs.toFixed(0)} ms`,
          each.relativeErrorMax === 0 ? "exact" : formatPercent(each.relativeErrorMax),
        ]),
      ]),
    );
  }
  if (stats.codecWorkers !== null) {
    const { workerCount, jobCount, failureCount } = stats.codecWorkers;
    sections.push(
      formatTable([["coding workers", `${workerCount}: ${jobCount} jobs, ${failureCount} ended`]]),
    );
  }
  const features = featureRows(stats.features);
  if (features.length > 0) sections.push(formatTable(features));
  return sections.join("\n\n");
}
