// What the policies promise beyond their seams: orders, and what the default one gains and never loses.
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { admitReused } from "../../src/policy/admit-reused.js";
import type { EvictionPolicy } from "../../src/policy/eviction-policy.js";
import { gdsfPolicy } from "../../src/policy/gdsf.js";
import { lfuPolicy } from "../../src/policy/lfu.js";
import { loopPolicy } from "../../src/policy/loop.js";
import { lruPolicy } from "../../src/policy/lru.js";
import { seededRandom } from "../../src/random.js";
import { manualClock } from "../../src/testing/manual-clock.js";
import {
  type ChainRequest,
  chainRequests,
  EVICTION_POLICIES,
  newLearnt,
  prefixHits,
} from "../support/policies.js";

const SEED = Number(process.env["SEED"] ?? 20_261);

const orderOf = (policy: EvictionPolicy) => [...policy.candidates()];

function percents(requests: readonly ChainRequest[], capacity: number) {
  const accesses = requests.reduce((sum, { chain }) => sum + chain.length, 0);
  const clock = manualClock();
  const learnt = newLearnt(clock);
  const share = (hits: number) => (100 * hits) / accesses;
  return {
    learnt: share(prefixHits(requests, capacity, learnt, clock)),
    lru: share(prefixHits(requests, capacity, lruPolicy(), manualClock())),
    stats: learnt.stats(),
  };
}

describe("orders of leaving", () => {
  it.each(["lru", "learnt"])("%s: the tail of a chain leaves before its head", (name) => {
    const policy = (EVICTION_POLICIES[name] as () => EvictionPolicy)();
    for (const index of [3, 1, 2, 9]) policy.track({ index, bytes: 1 });
    policy.touchChain([1, 2, 3]);
    expect(orderOf(policy)).toEqual([9, 3, 2, 1]);
  });

  it("lfu: the least used first, among equals the least recently used", () => {
    const policy = lfuPolicy();
    for (const index of [1, 2, 3, 4]) policy.track({ index, bytes: 1 });
    for (const index of [1, 1, 3, 2]) policy.touch(index);
    expect(orderOf(policy)).toEqual([4, 3, 2, 1]);
  });

  it("gdsf: large, cheap and seldom used ones first", () => {
    const policy = gdsfPolicy();
    policy.track({ index: 1, bytes: 1000 });
    policy.track({ index: 2, bytes: 10 });
    policy.track({ index: 3, bytes: 1000, restoreMs: 50 });
    policy.track({ index: 4, bytes: 1000 });
    policy.touch(4);
    expect(orderOf(policy)).toEqual([1, 4, 3, 2]);
    expect(orderOf(policy)).toEqual([1, 4, 3, 2]);
  });

  it.each(["loop", "learnt"])("%s: most of a cycle stays where a part of it fits", (name) => {
    const clock = manualClock();
    const policy = name === "loop" ? loopPolicy() : newLearnt(clock);
    const requests = Array.from({ length: 24 * 400 }, (_, at) => ({
      afterMs: 5,
      chain: [at % 24],
      hints: {},
    }));
    const hits = prefixHits(requests, 12, policy, clock);
    expect(hits / requests.length).toBeGreaterThan(11 / 23 - 0.02);
    expect(prefixHits(requests, 12, lruPolicy(), manualClock())).toBe(0);
  });
});

describe("the default policy", () => {
  const requests = chainRequests(seededRandom(SEED), 6000);

  it(`beats least recently used where memory is short, seed ${SEED}`, () => {
    const { learnt, lru, stats } = percents(requests, 300);
    expect(learnt).toBeGreaterThan(lru + 2);
    expect(stats.isRanking).toBe(true);
    expect(stats.knownCount).toBeLessThanOrEqual(16 * 300 + 1000);
  });

  it.each([8, 40, 100, 1000, 3000, 20_000])(
    `is never more than 0.3 points below it, with %i blocks, seed ${SEED}`,
    (capacity) => {
      const { learnt, lru } = percents(requests, capacity);
      expect(learnt).toBeGreaterThan(lru - 0.3);
    },
  );

  it("is not misled by wrong hints, or by none", () => {
    const random = seededRandom(SEED);
    const wrong = requests.map((request) => ({
      ...request,
      hints: {
        stopReason: random.uint32() % 2 === 0 ? "tool" : "end",
        outputTokens: random.uint32(),
      },
    })) as ChainRequest[];
    const none = requests.map((request) => ({ ...request, hints: {} }));
    for (const each of [wrong, none]) {
      const { learnt, lru } = percents(each, 300);
      expect(learnt).toBeGreaterThan(lru - 0.3);
    }
  });

  it("replays the same trace to the same hits and statistics", () => {
    expect(percents(requests, 300)).toEqual(percents(requests, 300));
  });

  it("takes the turn and the new blocks from who tells them", () => {
    // Each use has new numbers, so that the chain itself tells nothing.
    const told = (hasHints: boolean) => {
      let unique = 0;
      return Array.from({ length: 4000 }, (_, at): ChainRequest => {
        const isBack = at % 4 === 3;
        const chain = isBack ? [unique - 12, unique - 11, unique - 10, unique - 9] : [];
        while (chain.length < 4) chain.push(unique++);
        return { afterMs: 100, chain, hints: hasHints ? { turn: 1 + (at % 4) } : {} };
      });
    };
    const hinted = percents(told(true), 20);
    expect(hinted.stats.classCount).toBeGreaterThan(percents(told(false), 20).stats.classCount);
    expect(hinted.learnt).toBeGreaterThan(hinted.lru - 0.3);
  });

  it("keeps its order when time stands still", () => {
    const still = requests.map((request) => ({ ...request, afterMs: 0 }));
    const { learnt, lru } = percents(still, 300);
    expect(learnt).toBeGreaterThan(lru - 0.3);
  });

  it("offers entries that wait for their chain last, and each once", () => {
    const policy = newLearnt();
    for (let index = 0; index < 6; index++) policy.track({ index, bytes: 1 });
    policy.touchChain([0, 1, 2]);
    policy.touch(2);
    policy.touch(2);
    expect(orderOf(policy).sort((left, right) => left - right)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(orderOf(policy).at(-1)).toBe(2);
    policy.untrack(2);
    expect(orderOf(policy)).not.toContain(2);
  });

  const path = process.env["TIERHEAP_TRACE"];
  it.skipIf(path === undefined)("is never far below it on the trace of TIERHEAP_TRACE", () => {
    const bytes = readFileSync(path as string);
    const text = ((path as string).endsWith(".gz") ? gunzipSync(bytes) : bytes).toString();
    const traced: ChainRequest[] = [];
    let unique = 0;
    let latest = 0;
    for (const line of text.trimEnd().split("\n")) {
      const [at, parent, shared, fresh, outputTokens, tool] = JSON.parse(line) as number[];
      const chain = parent === -1 ? [] : (traced[parent as number]?.chain.slice(0, shared) ?? []);
      const added = Array.from({ length: fresh as number }, () => unique++);
      const stopReason = tool === 1 ? "tool" : "end";
      const afterMs = 1000 * ((at as number) - latest);
      latest = at as number;
      traced.push({ afterMs, chain: [...chain, ...added], hints: { stopReason, outputTokens } });
    }
    for (const share of [0.01, 0.05, 0.2]) {
      const { learnt, lru } = percents(traced, Math.round(unique * share));
      expect(learnt).toBeGreaterThan(lru - 0.3);
    }
  });
});

describe("admission by measured usefulness", () => {
  /** Candidates that come back at random, of which some are wanted again. */
  const admitted = (wantedEvery: number) => {
    const random = seededRandom(SEED);
    const policy = admitReused({ capacityBytes: 200 });
    let count = 0;
    for (let index = 0; index < 5000; index++) {
      policy.touch(index);
      if (policy.admit({ index, bytes: 1 })) count += 1;
      if (index % wantedEvery !== 0 || index < 200) continue;
      const wanted = index - (random.uint32() % 150);
      policy.want(wanted);
      policy.admit({ index: wanted, bytes: 1 });
    }
    return count;
  };

  it("takes everything while it is read again", () => {
    expect(admitted(2)).toBeGreaterThan(4900);
  });

  it("refuses most of what is never read", () => {
    expect(admitted(1000)).toBeLessThan(1000);
  });
});
