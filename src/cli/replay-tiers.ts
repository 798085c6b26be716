// Two tiers on one trace: a hot one, and a colder one that takes what leaves it.
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import { lruPolicy } from "../policy/lru.js";
import { firstOf, type PolicyMaker, replayClock } from "./replay-policy.js";
import type { Trace } from "./trace.js";

export interface TierReplayOptions {
  /** Gives the policy of the hot tier. */
  readonly makeHot: PolicyMaker;
  /** Decides what is written. */
  readonly admission: Pick<AdmissionPolicy, "admit" | "touch" | "want">;
  /** Writes a victim although a valid copy is cold already. */
  readonly rewritesClean?: boolean;
}

/**
 * A request finds the leading blocks of its chain in either tier; then the whole chain is hot. What
 * leaves the hot tier may be written to the cold one, where each use refreshes it.
 *
 * @param onArrival Called with each request before it changes anything: its number, its leading
 *   blocks found, and what is hot and cold.
 */
export function replayTiers(
  trace: Trace,
  hotCapacity: number,
  coldCapacity: number,
  options: TierReplayOptions,
  onArrival: (
    number: number,
    lead: number,
    isHot: Uint8Array,
    isCold: Uint8Array,
  ) => void = () => {},
) {
  const { makeHot, admission, rewritesClean = false } = options;
  const clock = replayClock();
  const hot = makeHot(clock);
  const cold = lruPolicy();
  const isHot = new Uint8Array(trace.uniqueCount);
  const isCold = new Uint8Array(trace.uniqueCount);
  const neededBy = new Int32Array(trace.uniqueCount).fill(-1);
  let hotCount = 0;
  let coldCount = 0;
  let hitCount = 0;
  let hotHitCount = 0;
  let writtenCount = 0;

  const write = (block: number) => {
    writtenCount++;
    if (isCold[block] === 1) return;
    if (coldCount === coldCapacity) {
      const victim = firstOf(cold);
      cold.untrack(victim);
      isCold[victim] = 0;
      coldCount--;
    }
    isCold[block] = 1;
    coldCount++;
    cold.track({ index: block, bytes: 1 });
  };
  trace.requests.forEach(({ atMs, chain, hints }, number) => {
    clock.nowMs = atMs;
    let lead = 0;
    for (; lead < chain.length; lead++) {
      const block = chain[lead] as number;
      if (isHot[block] === 1) hotHitCount++;
      else if (isCold[block] === 0) break;
    }
    hitCount += lead;
    onArrival(number, lead, isHot, isCold);
    for (let depth = chain.length - 1; depth >= 0; depth--) {
      const block = chain[depth] as number;
      if (isCold[block] === 1) cold.touch(block);
      if (isHot[block] === 1) admission.touch(block);
      else admission.want(block);
    }
    const kept = chain.length <= hotCapacity ? chain : chain.subarray(0, hotCapacity);
    let missing = 0;
    for (const block of kept) {
      neededBy[block] = number;
      missing += 1 - (isHot[block] as number);
    }
    let surplus = hotCount + missing - hotCapacity;
    if (surplus > 0) {
      for (const victim of hot.candidates()) {
        if (neededBy[victim] === number) continue;
        hot.untrack(victim);
        isHot[victim] = 0;
        hotCount--;
        const isAdmitted = admission.admit({ index: victim, bytes: 1 });
        if (rewritesClean || (isAdmitted && isCold[victim] === 0)) write(victim);
        if (--surplus === 0) break;
      }
    }
    for (let depth = kept.length - 1; depth >= 0; depth--) {
      const block = kept[depth] as number;
      if (isHot[block] === 1) continue;
      isHot[block] = 1;
      hotCount++;
      hot.track({ index: block, bytes: 1 });
    }
    hot.touchChain(kept, hints);
  });
  const percent = (count: number) => (100 * count) / trace.accessCount;
  return { hitPercent: percent(hitCount), hotHitPercent: percent(hotHitCount), writtenCount };
}
