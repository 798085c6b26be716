// Greedy dual size frequency, for objects of different sizes: what costs much per byte to bring back
// and is used often stays. An entry's priority is the priority of the last victim when it was used,
// plus hits × cost ÷ bytes; the lowest leaves first, among equals the least recently used.
//
// Source: L. Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
// Policy", HPL-98-69.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst, NumberColumn } from "./index-list.js";

const ABSENT = -1;

export function gdsfPolicy(): EvictionPolicy {
  /** A binary heap: no entry has a lower priority than the one at half its place. */
  const heap: number[] = [];
  const places = new NumberColumn();
  const priorities = new NumberColumn();
  const worths = new NumberColumn();
  const lengths = new NumberColumn();
  const hits = new NumberColumn();
  /** When each was used last, counted in uses. */
  const latest = new NumberColumn();
  let age = 0;
  let useCount = 0;

  const isBefore = (left: number, right: number) => {
    const difference = priorities.get(left) - priorities.get(right);
    return difference === 0 ? latest.get(left) < latest.get(right) : difference < 0;
  };
  const put = (index: number, place: number) => {
    heap[place] = index;
    places.set(index, place + 1);
  };
  const sift = (index: number, from: number) => {
    let place = from;
    while (place > 0) {
      const up = (place - 1) >> 1;
      const parent = heap[up] as number;
      if (!isBefore(index, parent)) break;
      put(parent, place);
      place = up;
    }
    for (;;) {
      let down = 2 * place + 1;
      if (down >= heap.length) break;
      if (down + 1 < heap.length && isBefore(heap[down + 1] as number, heap[down] as number))
        down++;
      const child = heap[down] as number;
      if (!isBefore(child, index)) break;
      put(child, place);
      place = down;
    }
    put(index, place);
  };
  const placeOf = (index: number) => places.get(index) - 1;
  const push = (index: number) => {
    heap.push(index);
    sift(index, heap.length - 1);
  };
  const take = (index: number) => {
    const place = placeOf(index);
    const last = heap.pop() as number;
    places.set(index, 0);
    if (last !== index) sift(last, place);
  };
  const price = (index: number, restoreMs: number) => {
    worths.set(index, restoreMs / lengths.get(index));
  };
  const touch = (index: number, restoreMs?: number) => {
    if (restoreMs !== undefined) price(index, restoreMs);
    latest.set(index, useCount++);
    hits.set(index, hits.get(index) + 1);
    priorities.set(index, age + hits.get(index) * worths.get(index));
    sift(index, placeOf(index));
  };
  return {
    name: "gdsf",
    track: ({ index, bytes, restoreMs = 1 }) => {
      lengths.set(index, Math.max(1, bytes));
      price(index, restoreMs);
      latest.set(index, useCount++);
      hits.set(index, 1);
      priorities.set(index, age + worths.get(index));
      push(index);
    },
    touch,
    touchChain: (chain) => deepestFirst(chain, (index) => touch(index)),
    untrack: (index) => {
      age = Math.max(age, priorities.get(index));
      take(index);
    },
    forget: (index) => {
      if (placeOf(index) !== ABSENT) take(index);
    },
    candidates: function* () {
      const passed: number[] = [];
      try {
        while (heap.length > 0) {
          const index = heap[0] as number;
          yield index;
          if (heap[0] !== index) continue;
          take(index);
          passed.push(index);
        }
      } finally {
        for (const index of passed) push(index);
      }
    },
  };
}
