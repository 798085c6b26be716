// Prefetch from history alone: streams take turns, block by block, and the predictor sees each access.

import { PrefetchWindow } from "../../dist/src/cache/prefetch-window.js";
import { admitAll } from "../../dist/src/policy/admit-all.js";
import { lruPolicy } from "../../dist/src/policy/lru.js";
import { successorPredictor } from "../../dist/src/predictor/successor.js";
import { replayTiers } from "./tiers.mjs";

/**
 * @param streamCount Requests under way at a time, each a stream.
 * @param times Of one block, in milliseconds: `transferMs` to bring it in, `useMs` to use it.
 * @returns Shares of cold reads that had been prefetched, of guesses that were used, and of the time
 *   spent waiting for cold reads that prefetch hides.
 */
export function replayPrefetch(trace, hotCapacity, coldCapacity, streamCount, times) {
  const predictor = successorPredictor({ depth: 4, memoryCount: 2 ** 20 });
  const window = new PrefetchWindow({ budgetCount: 512, depthMax: 4 });
  /** When each guess that is on its way arrives, in order of issue. */
  const arrivals = new Map();
  const nowMs = new Float64Array(streamCount);
  let readCount = 0;
  let coveredCount = 0;
  let waitMs = 0;

  const read = (stream, id) => {
    readCount++;
    if (arrivals.get(id) <= nowMs[stream]) window.arrive(id, arrivals.get(id));
    const outcome = window.want(`${stream}`, id, nowMs[stream]);
    let waitedMs = 0;
    if (outcome === "none") waitedMs = times.transferMs;
    else coveredCount++;
    if (outcome === "late") waitedMs = Math.max(0, arrivals.get(id) - nowMs[stream]);
    arrivals.delete(id);
    waitMs += waitedMs;
    nowMs[stream] += waitedMs;
  };
  const access = (stream, id, isRead, isWanted) => {
    if (isRead) read(stream, id);
    const predicted = predictor.observe(`${stream}`, id);
    const issued = window.issue(predicted, nowMs[stream], isWanted, (old) => arrivals.delete(old));
    for (const guess of issued) arrivals.set(guess, nowMs[stream] + times.transferMs);
    nowMs[stream] += times.useMs;
  };
  const runBatch = (batch, isHot, isCold) => {
    // Requests under way together begin at the same time.
    nowMs.fill(Math.max(...nowMs));
    const coldIds = new Set(batch.flatMap(({ coldBlocks }) => [...coldBlocks].map(String)));
    // Blocks of these requests are where they were on arrival, the others where they are now.
    const known = new Set(batch.flatMap(({ chain }) => [...chain].map(String)));
    const isWanted = (id) =>
      known.has(id) ? coldIds.has(id) : isCold[id] === 1 && isHot[id] === 0;
    const longest = Math.max(...batch.map(({ chain }) => chain.length));
    for (let depth = 0; depth < longest; depth++) {
      batch.forEach(({ chain, coldBlocks }, stream) => {
        if (depth >= chain.length) return;
        const block = chain[depth];
        access(stream, `${block}`, coldBlocks.has(block), isWanted);
        coldIds.delete(`${block}`);
      });
    }
  };
  // A request begins when the one that it continues has ended.
  const waiting = new Map();
  const parts = { makeHot: () => lruPolicy(), admission: admitAll };
  replayTiers(trace, hotCapacity, coldCapacity, parts, (number, lead, isHot, isCold) => {
    const { chain, parent, sharedCount } = trace.requests[number];
    // A match of the first block alone is a shared prompt, not a continuation.
    const before = sharedCount > 1 ? parent : -1;
    const coldBlocks = new Set(chain.subarray(0, lead).filter((block) => isHot[block] === 0));
    waiting.set(number, { chain, before, coldBlocks });
    if (waiting.size < streamCount) return;
    const ready = [...waiting].filter(([, { before: each }]) => !waiting.has(each));
    if (ready.length < streamCount) return;
    const batch = ready.slice(0, streamCount);
    for (const [each] of batch) waiting.delete(each);
    runBatch(
      batch.map(([, request]) => request),
      isHot,
      isCold,
    );
  });
  const counters = window.counters();
  return {
    readCount,
    coverage: coveredCount / readCount,
    accuracy: (counters.usedCount + counters.lateCount) / counters.issuedCount,
    hiddenShare: 1 - waitMs / (readCount * times.transferMs),
    counters,
  };
}
