// Three tiers on one trace: RAM by the default policy, and below it the real stack of an SSD and an HDD,
// each a tier in memory that holds small objects in place of blocks. Time is the trace's.
import { ObjectMover } from "../../dist/src/cache/object-mover.js";
import { Staging } from "../../dist/src/cache/staging.js";
import { TierManager } from "../../dist/src/cache/tier-manager.js";
import { TierStack } from "../../dist/src/cache/tier-stack.js";
import { memoryTier } from "../../dist/src/tier/memory.js";
import { replayClock } from "./replay.mjs";

/** Bytes that stand for a block. */
const OBJECT_BYTES = 64;

/** A tier in memory that says it were a disk. */
function disk(name, blockCount) {
  return {
    ...memoryTier({ name, capacityBytes: blockCount * OBJECT_BYTES }),
    capabilities: { isPersistent: true, hasDurableCommit: true, needsReadBack: false },
  };
}

const keyOf = (block) => block.toString(16).padStart(64, "0");

/**
 * A request finds the leading blocks of its chain in any tier; then the whole chain is in RAM. What
 * leaves RAM goes into the stack, unless it is there.
 *
 * @param capacities Blocks in RAM, SSD and HDD.
 * @param options.predictor Tells the manager how soon a block is used again.
 * @returns Hits and blocks written of each tier, and accesses that none had.
 */
export async function replayLevels(trace, capacities, { makeHot, predictor }) {
  const [hotCapacity, ...below] = capacities;
  const clock = replayClock();
  const hot = makeHot(clock);
  const stack = new TierStack({
    tiers: [disk("ssd", below[0]), disk("hdd", below[1])],
    manager: new TierManager(predictor),
    mover: new ObjectMover(new Staging(2, 2 * OBJECT_BYTES), null),
    clock: { monotonicMs: () => clock.nowMs, wallMs: () => clock.nowMs, sleep: async () => {} },
  });
  await stack.open();
  const hints = { kind: "KV_CACHE", isDurable: false, isSaved: false, expiresMs: 0 };
  const bytes = new Uint8Array(OBJECT_BYTES);
  const isHot = new Uint8Array(trace.uniqueCount);
  const isStored = new Uint8Array(trace.uniqueCount);
  const neededBy = new Int32Array(trace.uniqueCount).fill(-1);
  let hotCount = 0;
  let hotHitCount = 0;
  let leadCount = 0;

  const load = async (block) => {
    const reader = await stack.openRead(keyOf(block));
    if (reader === null) return false;
    await reader.read(0, bytes);
    await reader.close();
    return true;
  };
  const store = async (block) => {
    const writer = await stack.begin(keyOf(block), OBJECT_BYTES, hints);
    if (writer === "no-space") return false;
    await writer.write(bytes);
    await writer.commit({ durable: false });
    await writer.abort();
    return true;
  };
  // The last level refuses when it is full: the oldest that was stored goes for good.
  const order = [];
  let oldest = 0;
  const forgetOldest = async () => {
    const block = order[oldest++];
    if (block === undefined) return false;
    if (isStored[block] === 1 && isHot[block] === 0) {
      await stack.delete(keyOf(block));
      isStored[block] = 0;
    } else if (isStored[block] === 1) order.push(block);
    return true;
  };
  for (const [number, { atMs, chain, hints: useHints }] of trace.requests.entries()) {
    clock.nowMs = atMs;
    for (let depth = 0; depth < chain.length; depth++) {
      const block = chain[depth];
      if (isHot[block] === 1) hotHitCount++;
      else if (isStored[block] === 0 || !(await load(block))) break;
      leadCount++;
    }
    const kept = chain.length <= hotCapacity ? chain : chain.subarray(0, hotCapacity);
    let missing = 0;
    for (const block of kept) {
      neededBy[block] = number;
      missing += 1 - isHot[block];
    }
    let surplus = hotCount + missing - hotCapacity;
    if (surplus > 0) {
      for (const victim of hot.candidates()) {
        if (neededBy[victim] === number) continue;
        hot.untrack(victim);
        isHot[victim] = 0;
        hotCount--;
        if (isStored[victim] === 0) {
          let isIn = await store(victim);
          while (!isIn && (await forgetOldest())) isIn = await store(victim);
          if (isIn) {
            isStored[victim] = 1;
            order.push(victim);
          }
        }
        if (--surplus === 0) break;
      }
    }
    for (let depth = kept.length - 1; depth >= 0; depth--) {
      const block = kept[depth];
      if (isHot[block] === 1) continue;
      isHot[block] = 1;
      hotCount++;
      hot.track({ index: block, bytes: 1 });
    }
    hot.touchChain(kept, useHints);
    // No move may span two times of the trace: it would be measured as slow.
    await stack.settle();
  }
  await stack.settle();
  const levels = stack.levels().map(({ name, loads, bytesWritten, promotions, demotions }) => ({
    name,
    hitCount: loads,
    writtenCount: bytesWritten / OBJECT_BYTES,
    promotions,
    demotions,
  }));
  await stack.close();
  return { hotHitCount, missCount: trace.accessCount - leadCount, levels };
}
