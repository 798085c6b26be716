// What the bench measures, each as a function that gives figures and rows of a table.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { admitAll } from "../../dist/src/policy/admit-all.js";
import { admitReused } from "../../dist/src/policy/admit-reused.js";
import { reuseIntervals } from "../../dist/src/predictor/reuse-intervals.js";
import { unknownReuse } from "../../dist/src/predictor/unknown-reuse.js";
import { median } from "../support.mjs";
import { DEFAULT, POLICIES } from "./contestants.mjs";
import { replayLevels } from "./levels.mjs";
import { CAPACITIES_MIB, MISSES } from "./libcachesim.mjs";
import { replayPrefetch } from "./prefetch.mjs";
import { optimum, replay, replayObjects } from "./replay.mjs";
import { measureAccesses, measureBlocks } from "./speed.mjs";
import { replayTiers } from "./tiers.mjs";
import { shiftSessions, singleSessions } from "./traces.mjs";

const DEFAULT_POLICY = POLICIES[DEFAULT];

/** Shares of unique blocks, and the least share of the gap to close there, in percent. */
const GAPS = {
  conversation: [
    [0.01, 15],
    [0.025, 18],
    [0.05, 10],
    [0.1, 8],
  ],
  agents: [
    [0.005, 30],
    [0.01, 35],
    [0.025, 28],
    [0.05, 9],
  ],
};
const SHARES = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4];
/** Hours of starts, and of the whole, when sessions are shifted. */
const HOUR_MS = 3_600_000;

const percentOf = (count, trace) => (100 * count) / trace.accessCount;
const figure = (id, value, unit, least, beside) => ({
  id: `cache/${id}`,
  value,
  unit,
  ...(least === undefined ? {} : { target: least, met: value >= least }),
  beside,
});
const atMost = (id, value, unit, most, beside) => ({
  ...figure(id, value, unit, undefined, beside),
  ...(most === undefined ? {} : { target: most, met: value <= most }),
});

/** Misses on the reference trace beside the published ones. */
function integers(trace) {
  let equalCount = 0;
  const rows = {};
  for (const [name, expected] of Object.entries(MISSES)) {
    rows[name] = {};
    CAPACITIES_MIB.forEach((mebibytes, at) => {
      const capacity = mebibytes * 2 ** 20;
      const { missCount } = replayObjects(trace, capacity, POLICIES[name], { hasSizes: true });
      rows[name][mebibytes] =
        missCount === expected[at] ? missCount : `${missCount} ≠ ${expected[at]}`;
      if (missCount === expected[at]) equalCount++;
    });
  }
  rows.gdsf = {};
  for (const mebibytes of CAPACITIES_MIB) {
    const capacity = mebibytes * 2 ** 20;
    const { missCount } = replayObjects(trace, capacity, POLICIES.gdsf, { hasSizes: true });
    rows.gdsf[mebibytes] = missCount;
  }
  return { rows, figures: [figure("published-integers-equal", equalCount, "of 40", 40)] };
}

/** Hit percentages of all policies over capacities, beside the optimum. */
function policies(trace, { isQuick }) {
  const rows = {};
  const lines = new Map();
  let worst = Number.POSITIVE_INFINITY;
  let worstAt = 0;
  const names = isQuick ? [DEFAULT, "lru"] : Object.keys(POLICIES);
  for (const share of SHARES) {
    const capacity = Math.max(1, Math.round(trace.uniqueCount * share));
    const percents = new Map();
    for (const name of names) {
      percents.set(name, percentOf(replay(trace, capacity, POLICIES[name]).hitCount, trace));
    }
    percents.set("optimum", percentOf(optimum(trace, capacity), trace));
    const margin = percents.get(DEFAULT) - percents.get("lru");
    if (margin < worst) [worst, worstAt] = [margin, capacity];
    for (const [name, percent] of percents) {
      rows[name] = { ...rows[name], [capacity]: Number(percent.toFixed(2)) };
      lines.set(name, [...(lines.get(name) ?? []), [capacity, percent]]);
    }
  }
  const id = `${trace.name}/default-above-lru-least`;
  return {
    rows,
    figures: [figure(id, worst, "points", -0.3, `at ${worstAt} blocks`)],
    plot: [...lines].map(([label, points]) => ({ label, points })),
  };
}

function gapClosed(trace, capacity) {
  const hits = replay(trace, capacity, DEFAULT_POLICY).hitCount;
  const lru = replay(trace, capacity, POLICIES.lru).hitCount;
  return (100 * (hits - lru)) / (optimum(trace, capacity) - lru);
}

/** How much of the gap between least recently used and the optimum the default closes. */
function gaps(trace, { seeds, makeRandom }) {
  const figures = [];
  const spans = trace.name === "agents" ? [8 * HOUR_MS, 12 * HOUR_MS] : [HOUR_MS, HOUR_MS];
  const shifted = seeds.map((seed) => [
    `-seed-${seed}`,
    shiftSessions(trace, makeRandom(seed), ...spans),
  ]);
  const targets = GAPS[trace.name] ?? [0.01, 0.025, 0.05, 0.1].map((share) => [share, undefined]);
  for (const [suffix, each] of [["", trace], ...shifted]) {
    for (const [share, least] of targets) {
      const capacity = Math.round(each.uniqueCount * share);
      const id = `${trace.name}/gap-closed-${100 * share}${suffix}`;
      figures.push(figure(id, gapClosed(each, capacity), "%", least, `${capacity} blocks`));
    }
  }
  return { figures };
}

/** Every session by itself, as in a browser. */
function singles(trace) {
  const sessions = singleSessions(trace);
  const figures = [28, 56, 112, 224, 448].map((capacity) => {
    let hitCount = 0;
    let bestCount = 0;
    for (const session of sessions) {
      hitCount += replay(session, capacity, DEFAULT_POLICY).hitCount;
      bestCount += optimum(session, capacity);
    }
    const id = `${trace.name}/alone-of-optimum-${capacity}`;
    return figure(id, (100 * hitCount) / bestCount, "%", 99.5, `${hitCount} of ${bestCount} hits`);
  });
  return { figures };
}

/** Layers 0 … N − 1 for every token, k of them resident. */
function loop() {
  const figures = [];
  for (const [layerCount, residentCount] of [
    [36, 9],
    [36, 18],
    [36, 27],
    [36, 35],
  ]) {
    const tokenCount = 3000;
    const requests = Array.from({ length: tokenCount * layerCount }, (_, at) => ({
      atMs: at * 5,
      chain: Int32Array.of(at % layerCount),
      bytes: 1,
    }));
    const trace = { requests, uniqueCount: layerCount, accessCount: requests.length };
    const least = (100 * (residentCount - 1)) / (layerCount - 1) - 0.5;
    for (const name of [DEFAULT, "loop"]) {
      const percent = percentOf(
        replayObjects(trace, residentCount, POLICIES[name]).hitCount,
        trace,
      );
      const id = `weight-loop-${residentCount}-of-${layerCount}/${name}`;
      figures.push(figure(id, percent, "%", least, `bound ${(least + 0.5).toFixed(1)} %`));
    }
  }
  return { figures };
}

/** Shares of unique blocks in the hot and the cold tier; targets of hits and of blocks written. */
const TIERS = {
  conversation: [
    [0.01, 0.05, 20.7, 60_000],
    [0.025, 0.1],
    [0.025, 0.2],
  ],
  agents: [
    [0.005, 0.02],
    [0.01, 0.05, 91.9, 400_000],
  ],
};

function tiers(trace) {
  const rows = {};
  const figures = [];
  for (const [hotShare, coldShare, leastHits, mostWritten] of TIERS[trace.name] ?? [[0.01, 0.05]]) {
    const hot = Math.round(trace.uniqueCount * hotShare);
    const cold = Math.round(trace.uniqueCount * coldShare);
    const makeHot = POLICIES.lru;
    const automatic = () => admitReused({ capacityBytes: cold });
    const schemes = {
      "rewrite on every eviction": { makeHot, admission: admitAll, rewritesClean: true },
      "clean copies not rewritten": { makeHot, admission: admitAll },
      "admission decides": { makeHot, admission: automatic() },
      "admission decides, default policy": { makeHot: DEFAULT_POLICY, admission: automatic() },
    };
    const cell = `${100 * hotShare}:${100 * coldShare} %`;
    for (const [scheme, options] of Object.entries(schemes)) {
      const { hitPercent, writtenCount } = replayTiers(trace, hot, cold, options);
      rows[scheme] = { ...rows[scheme], [cell]: `${hitPercent.toFixed(2)} % · ${writtenCount}` };
      if (scheme !== "admission decides") continue;
      const id = `${trace.name}/tiers-${100 * hotShare}-${100 * coldShare}`;
      figures.push(figure(`${id}-hits`, hitPercent, "%", leastHits, `${hot} and ${cold} blocks`));
      figures.push(atMost(`${id}-written`, writtenCount, "blocks", mostWritten));
    }
  }
  return { rows, figures };
}

/** Times of one block of 1 MiB on the disk at hand: to read it, and to copy it. */
function measureBlockTimes() {
  const folder = mkdtempSync(join(tmpdir(), "tierheap-bench-"));
  try {
    const block = new Uint8Array(2 ** 20).fill(7);
    const paths = Array.from({ length: 64 }, (_, at) => join(folder, `${at}`));
    for (const path of paths) writeFileSync(path, block);
    const timesOf = (work) =>
      median(
        paths.map((path) => {
          const start = performance.now();
          work(path);
          return performance.now() - start;
        }),
      );
    const target = new Uint8Array(2 ** 20);
    const transferMs = timesOf((path) => readFileSync(path));
    return { transferMs, useMs: timesOf(() => target.set(block)) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const PREFETCH = { conversation: [4570, 36_558, 95, 92], agents: [1704, 8522, 99.5, 99.5, 60] };

function prefetch(trace) {
  const times = measureBlockTimes();
  const known = PREFETCH[trace.name];
  const [hot, cold, coverage, accuracy, hidden] = known ?? [
    Math.round(trace.uniqueCount * 0.02),
    Math.round(trace.uniqueCount * 0.15),
  ];
  const figures = [];
  for (const streamCount of [1, 16]) {
    const found = replayPrefetch(trace, hot, cold, streamCount, times);
    const id = `${trace.name}/prefetch-${streamCount}`;
    const hasTarget = streamCount === 16;
    const { issuedCount, usedCount, wastedCount, lateCount } = found.counters;
    const counts = `${issuedCount} issued: ${usedCount} used, ${wastedCount} wasted, ${lateCount} late`;
    const timing = `${times.transferMs.toFixed(2)} ms to read, ${times.useMs.toFixed(2)} ms to copy 1 MiB`;
    figures.push(
      figure(
        `${id}-coverage`,
        100 * found.coverage,
        "%",
        hasTarget ? coverage : undefined,
        `${found.readCount} reads`,
      ),
      figure(`${id}-accuracy`, 100 * found.accuracy, "%", hasTarget ? accuracy : undefined, counts),
      figure(
        `${id}-wait-hidden`,
        100 * found.hiddenShare,
        "%",
        hasTarget ? hidden : undefined,
        timing,
      ),
    );
  }
  return { figures };
}

/** Accesses per second of the bookkeeping, beside lru-cache. */
function speed(trace, { isQuick, random }) {
  const names = ["lru", "arc", "s3-fifo", "lirs", "learnt"];
  const makers = Object.fromEntries(names.map((name) => [name, POLICIES[name]]));
  const rates = measureAccesses(makers, random, isQuick ? 3 : 9);
  const peer = rates["lru-cache"];
  const figures = [];
  for (const name of names) {
    const least = name === DEFAULT ? undefined : Math.max(10e6, peer);
    figures.push(
      figure(
        `speed/${name}`,
        rates[name],
        "accesses/s",
        least,
        `lru-cache ${(peer / 1e6).toFixed(1)} M`,
      ),
    );
  }
  const capacity = Math.round(trace.uniqueCount * 0.05);
  const blocks = measureBlocks(trace, capacity, DEFAULT_POLICY, isQuick ? 1 : 3);
  figures.push(figure(`speed/${DEFAULT}-${trace.name}`, blocks, "blocks/s", 1e6));
  const { policy } = replay(trace, capacity, DEFAULT_POLICY);
  const { byteLength, knownCount } = policy.stats();
  figures.push(
    atMost(
      `speed/${DEFAULT}-bytes-per-entry`,
      byteLength / knownCount,
      "bytes",
      64,
      "with its law",
    ),
  );
  return { figures };
}

/** Shares of unique blocks in RAM, SSD and HDD. */
const LEVEL_SHARES = [0.01, 0.05, 0.2];
/** What a hit costs, for a block of 1 MiB: of RAM, of an SSD, of an HDD; and to compute it again. */
const LEVEL_MS = { ram: 0.1, ssd: 1, hdd: 15, nowhere: 400 };

/** Three tiers: who has what is asked for, what is written where, and what an access costs. */
async function levels(trace) {
  const capacities = LEVEL_SHARES.map((share) => Math.round(trace.uniqueCount * share));
  const rows = {};
  const figures = [];
  for (const predictor of [reuseIntervals(), unknownReuse]) {
    const found = await replayLevels(trace, capacities, { makeHot: DEFAULT_POLICY, predictor });
    const counts = { ram: found.hotHitCount, nowhere: found.missCount };
    for (const { name, hitCount } of found.levels) counts[name] = hitCount;
    const costs = Object.entries(counts).map(([name, count]) => count * LEVEL_MS[name]);
    const meanMs = costs.reduce((sum, ms) => sum + ms, 0) / trace.accessCount;
    const row = { "ram hits %": percentOf(counts.ram, trace).toFixed(2) };
    for (const { name, hitCount, writtenCount, promotions, demotions } of found.levels) {
      row[`${name} hits %`] = percentOf(hitCount, trace).toFixed(2);
      row[`${name} written`] = writtenCount;
      row[`${name} up, down`] = `${promotions}, ${demotions}`;
    }
    rows[predictor.name] = { ...row, "mean ms": meanMs.toFixed(2) };
    const id = `${trace.name}/levels-${predictor.name}`;
    const sum = Object.values(counts).reduce((total, count) => total + count, 0);
    figures.push(figure(`${id}-mean`, meanMs, "ms", undefined, JSON.stringify(LEVEL_MS)));
    figures.push(figure(`${id}-accounted`, percentOf(sum, trace), "%", 100, "of all accesses"));
    for (const { name, writtenCount } of found.levels) {
      figures.push(figure(`${id}-${name}-written`, writtenCount, "blocks"));
    }
  }
  return { rows, figures };
}

/** Each is called with a trace, if it needs one, and the options of the run. */
export const SECTIONS = { integers, policies, gaps, singles, loop, tiers, levels, prefetch, speed };
