// Replays a trace through an eviction policy, by its seam alone, and computes the optimum beside it.
import type { Clock } from "../clock.js";
import type { EvictionPolicy, PolicyEntry } from "../policy/eviction-policy.js";
import type { Trace } from "./trace.js";

/** A clock that shows what it is told. Nobody sleeps by it, and nothing that is deferred is done. */
export interface ReplayClock extends Clock {
  nowMs: number;
}

/** What a replay needs of a policy. */
export type ReplayedPolicy = Pick<
  EvictionPolicy,
  "track" | "touch" | "touchChain" | "untrack" | "candidates"
>;

/** Gives a policy, by a clock. */
export type PolicyMaker<P extends ReplayedPolicy = ReplayedPolicy> = (clock: ReplayClock) => P;

export const replayClock = (): ReplayClock => ({
  nowMs: 0,
  monotonicMs() {
    return this.nowMs;
  },
  wallMs() {
    return this.nowMs;
  },
  sleep: async () => {},
  defer: () => () => {},
});

/**
 * Requests are instantaneous: what is needed is made room for, kept from leaving, and used as one
 * chain. Of a chain longer than the capacity, the head is kept.
 *
 * @param make Gives a policy, by a clock.
 * @returns Prefix hits: leading blocks of the chain that were held on arrival.
 */
export function replayChains<P extends ReplayedPolicy>(
  trace: Trace,
  capacity: number,
  make: PolicyMaker<P>,
  { hasHints = true }: { readonly hasHints?: boolean } = {},
) {
  const clock = replayClock();
  const policy = make(clock);
  const isHeld = new Uint8Array(trace.uniqueCount);
  const neededBy = new Int32Array(trace.uniqueCount).fill(-1);
  let heldCount = 0;
  let hitCount = 0;
  trace.requests.forEach(({ atMs, chain, hints }, number) => {
    clock.nowMs = atMs;
    let lead = 0;
    while (lead < chain.length && isHeld[chain[lead] as number] === 1) lead++;
    hitCount += lead;
    const kept = chain.length <= capacity ? chain : chain.subarray(0, capacity);
    let missing = 0;
    for (const block of kept) {
      neededBy[block] = number;
      missing += 1 - (isHeld[block] as number);
    }
    let surplus = heldCount + missing - capacity;
    if (surplus > 0) {
      for (const victim of policy.candidates()) {
        if (neededBy[victim] === number) continue;
        policy.untrack(victim);
        isHeld[victim] = 0;
        heldCount--;
        if (--surplus === 0) break;
      }
    }
    for (let depth = kept.length - 1; depth >= 0; depth--) {
      const block = kept[depth] as number;
      if (isHeld[block] === 1) continue;
      policy.track({ index: block, bytes: 1 });
      isHeld[block] = 1;
      heldCount++;
    }
    policy.touchChain(kept, hasHints ? hints : undefined);
  });
  return { hitCount, policy };
}

/**
 * Objects one by one, by the rules of libCacheSim: on a miss, evict until it fits, then insert; an
 * object has the size of the access that inserted it; one that is larger than the capacity stays out.
 */
export function replayObjects<P extends ReplayedPolicy>(
  trace: Trace,
  capacity: number,
  make: PolicyMaker<P>,
  { hasSizes = false }: { readonly hasSizes?: boolean } = {},
) {
  const clock = replayClock();
  const policy = make(clock);
  const sizes = new Float64Array(trace.uniqueCount).fill(-1);
  let heldBytes = 0;
  let hitCount = 0;
  let missedBytes = 0;
  for (const { atMs, chain, bytes } of trace.requests) {
    clock.nowMs = atMs;
    const index = chain[0] as number;
    if ((sizes[index] as number) >= 0) {
      hitCount++;
      policy.touch(index);
      continue;
    }
    const size = hasSizes ? (bytes ?? 1) : 1;
    missedBytes += size;
    if (size > capacity) continue;
    if (heldBytes + size > capacity) {
      for (;;) {
        const victim = firstOf(policy);
        policy.untrack(victim);
        heldBytes -= sizes[victim] as number;
        sizes[victim] = -1;
        if (heldBytes + size <= capacity) break;
      }
    }
    sizes[index] = size;
    heldBytes += size;
    const entry: PolicyEntry = { index, bytes: size };
    policy.track(entry);
  }
  return { hitCount, missCount: trace.accessCount - hitCount, missedBytes, policy };
}

export function replay<P extends ReplayedPolicy>(
  trace: Trace,
  capacity: number,
  make: PolicyMaker<P>,
  options: { readonly hasHints?: boolean; readonly hasSizes?: boolean } = {},
) {
  return trace.isChained
    ? replayChains(trace, capacity, make, options)
    : replayObjects(trace, capacity, make, options);
}

/** The entry that should leave first. */
export function firstOf(policy: ReplayedPolicy): number {
  for (const victim of policy.candidates()) return victim;
  throw new RangeError("the policy holds nothing");
}

/** Prefix hits of Belady's rule with bypass. */
export function optimum(trace: Trace, capacity: number): number {
  const { uniqueCount, accessCount, requests } = trace;
  const flat = new Int32Array(accessCount);
  let at = 0;
  for (const { chain } of requests) {
    flat.set(chain, at);
    at += chain.length;
  }
  const nextUse = new Float64Array(accessCount);
  const latest = new Float64Array(uniqueCount).fill(Number.POSITIVE_INFINITY);
  for (at = accessCount - 1; at >= 0; at--) {
    const block = flat[at] as number;
    nextUse[at] = latest[block] as number;
    latest[block] = at;
  }
  /** Next use of each held block, or −1. */
  const held = new Float64Array(uniqueCount).fill(-1);
  const heap = farthestFirst(accessCount);
  let heldCount = 0;
  let hitCount = 0;
  at = 0;
  for (const { chain } of requests) {
    let lead = 0;
    while (lead < chain.length && (held[chain[lead] as number] as number) >= 0) lead++;
    hitCount += lead;
    for (const block of chain) {
      const next = nextUse[at++] as number;
      const isHit = (held[block] as number) >= 0;
      if (next === Number.POSITIVE_INFINITY) {
        if (isHit) heldCount--;
        held[block] = -1;
        continue;
      }
      if (!isHit && heldCount >= capacity) {
        while (held[flat[heap.top()] as number] !== heap.top()) heap.pop();
        if (next >= heap.top()) continue;
        held[flat[heap.pop()] as number] = -1;
        heldCount--;
      }
      if (!isHit) heldCount++;
      held[block] = next;
      heap.push(next);
    }
  }
  return hitCount;
}

/** A heap of numbers, the largest on top. */
function farthestFirst(capacity: number) {
  const heap = new Float64Array(capacity + 2);
  let count = 0;
  return {
    top: () => heap[1] as number,
    push: (value: number) => {
      let place = ++count;
      for (; place > 1 && (heap[place >> 1] as number) < value; place >>= 1) {
        heap[place] = heap[place >> 1] as number;
      }
      heap[place] = value;
    },
    pop: () => {
      const top = heap[1] as number;
      const value = heap[count--] as number;
      let place = 1;
      for (;;) {
        let child = 2 * place;
        if (child > count) break;
        if (child < count && (heap[child + 1] as number) > (heap[child] as number)) child++;
        if ((heap[child] as number) <= value) break;
        heap[place] = heap[child] as number;
        place = child;
      }
      heap[place] = value;
      return top;
    },
  };
}
