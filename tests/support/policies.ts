// Every eviction policy by name, and a replay of chains through one, as far as tests need it.
import { arcPolicy } from "../../src/policy/arc.js";
import type { ChainHints, EvictionPolicy } from "../../src/policy/eviction-policy.js";
import { fifoPolicy } from "../../src/policy/fifo.js";
import { gdsfPolicy } from "../../src/policy/gdsf.js";
import { type LearntPolicy, learntPolicy } from "../../src/policy/learnt.js";
import { lfuPolicy } from "../../src/policy/lfu.js";
import { lirsPolicy } from "../../src/policy/lirs.js";
import { loopPolicy } from "../../src/policy/loop.js";
import { lruPolicy } from "../../src/policy/lru.js";
import { s3FifoPolicy } from "../../src/policy/s3-fifo.js";
import type { Random } from "../../src/random.js";
import { type ManualClock, manualClock } from "../../src/testing/manual-clock.js";

export const newLearnt = (clock: ManualClock = manualClock()): LearntPolicy =>
  learntPolicy({ clock });

export const EVICTION_POLICIES: Readonly<Record<string, () => EvictionPolicy>> = {
  lru: lruPolicy,
  fifo: fifoPolicy,
  lfu: lfuPolicy,
  arc: arcPolicy,
  "s3-fifo": s3FifoPolicy,
  lirs: lirsPolicy,
  gdsf: gdsfPolicy,
  loop: loopPolicy,
  learnt: () => newLearnt(),
};

export interface ChainRequest {
  readonly afterMs: number;
  readonly chain: readonly number[];
  readonly hints: ChainHints;
}

/** Chats that pause for minutes and agents that return within seconds, interleaved. */
export function chainRequests(random: Random, count: number): ChainRequest[] {
  const draw = (limit: number) => random.uint32() % limit;
  const sessions: { chain: number[]; isAgent: boolean; dueMs: number }[] = [];
  const requests: ChainRequest[] = [];
  let unique = 0;
  let nowMs = 0;
  while (requests.length < count) {
    let session = sessions.find(({ dueMs }) => dueMs <= nowMs);
    if (session === undefined || draw(8) === 0) {
      session = { chain: [], isAgent: draw(3) === 0, dueMs: 0 };
      sessions.push(session);
    }
    const isEnd = draw(session.isAgent ? 30 : 4) === 0;
    for (let left = 1 + draw(6); left > 0; left--) session.chain.push(unique++);
    const isTool = session.isAgent && !isEnd;
    const afterMs = 200 + draw(1000);
    nowMs += afterMs;
    session.dueMs = nowMs + (isTool ? 2000 + draw(6000) : 60_000 + draw(200_000));
    const hints = { stopReason: isTool ? "tool" : "end", outputTokens: draw(600) } as const;
    requests.push({ afterMs, chain: [...session.chain], hints });
    if (isEnd) sessions.splice(sessions.indexOf(session), 1);
  }
  return requests;
}

/** @returns Leading blocks of chains that were held when the chain was wanted. */
export function prefixHits(
  requests: readonly ChainRequest[],
  capacity: number,
  policy: EvictionPolicy,
  clock: ManualClock,
): number {
  const held = new Set<number>();
  let hits = 0;
  for (const { afterMs, chain, hints } of requests) {
    clock.advance(afterMs);
    const lead = chain.findIndex((index) => !held.has(index));
    hits += lead < 0 ? chain.length : lead;
    const kept = chain.slice(0, capacity);
    const missing = kept.filter((index) => !held.has(index));
    const needed = new Set(kept);
    let surplus = held.size + missing.length - capacity;
    for (const victim of policy.candidates()) {
      if (surplus <= 0) break;
      if (needed.has(victim)) continue;
      policy.untrack(victim);
      held.delete(victim);
      surplus -= 1;
    }
    for (const index of missing.reverse()) {
      policy.track({ index, bytes: 1 });
      held.add(index);
    }
    policy.touchChain(kept, hints);
  }
  return hits;
}
