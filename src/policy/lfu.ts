// Least frequently used while tracked; among equals the least recently used.
//
// Source: K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache eviction
// scheme" — entries hang from nodes of equal frequency, which are a list of their own.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst } from "./index-list.js";

interface Rung {
  readonly hits: number;
  /** In order of use. */
  readonly entries: Set<number>;
  less: Rung | null;
  more: Rung | null;
}

export function lfuPolicy(): EvictionPolicy {
  const rungs: (Rung | undefined)[] = [];
  const bottom: Rung = { hits: 0, entries: new Set(), less: null, more: null };

  const enter = (index: number, below: Rung) => {
    let rung = below.more;
    if (rung?.hits !== below.hits + 1) {
      rung = { hits: below.hits + 1, entries: new Set(), less: below, more: below.more };
      if (below.more !== null) below.more.less = rung;
      below.more = rung;
    }
    rung.entries.add(index);
    rungs[index] = rung;
  };
  const leave = (index: number, rung: Rung) => {
    rungs[index] = undefined;
    rung.entries.delete(index);
    if (rung.entries.size > 0) return;
    (rung.less as Rung).more = rung.more;
    if (rung.more !== null) rung.more.less = rung.less;
  };
  const touch = (index: number) => {
    const rung = rungs[index] as Rung;
    enter(index, rung);
    rungs[index] = undefined;
    const above = rung.more as Rung;
    leave(index, rung);
    rungs[index] = above;
  };
  const untrack = (index: number) => {
    const rung = rungs[index];
    if (rung !== undefined) leave(index, rung);
  };
  return {
    name: "lfu",
    track: ({ index }) => enter(index, bottom),
    touch,
    touchChain: (chain) => deepestFirst(chain, touch),
    untrack,
    forget: untrack,
    candidates: function* () {
      for (let rung = bottom.more; rung !== null; ) {
        const { more } = rung;
        yield* rung.entries;
        rung = more;
      }
    },
  };
}
