// Low inter-reference recency: what was used twice within short stays; everything else passes through
// a small queue. Each entry is in the stack of recent uses, in the queue, or in both.
//
// Source: S. Jiang, X. Zhang, "LIRS: An Efficient Low Inter-reference Recency Set Replacement Policy",
// SIGMETRICS 2002. Shares are bytes of what is tracked.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst, IndexLists, NumberColumn } from "./index-list.js";

/** Part of the capacity that the queue may hold, at least two entries. */
const QUEUE_SHARE = 0.01;
/** Bytes that left and are still in the stack, as a multiple of the capacity. */
const GONE_SHARE = 2;

// States of an entry.
const ABSENT = 0;
const LOW = 1;
const HIGH = 2;
const GONE = 3;

export function lirsPolicy(): EvictionPolicy {
  const stack = new IndexLists();
  const queue = new IndexLists();
  /** What left, oldest first, so that it can be forgotten in that order. */
  const gone = new IndexLists();
  const sizes = new NumberColumn();
  const states = new NumberColumn();
  let capacity = 0;
  let lowBytes = 0;
  let heldBytes = 0;
  let goneBytes = 0;

  const drop = (index: number) => {
    if (states.get(index) === GONE) {
      gone.remove(index);
      goneBytes -= sizes.get(index);
      states.set(index, ABSENT);
    }
    stack.remove(index);
  };
  /** The stack ends with an entry of low recency. */
  const prune = () => {
    for (
      let index = stack.first();
      index >= 0 && states.get(index) !== LOW;
      index = stack.first()
    ) {
      drop(index);
    }
  };
  const lowTarget = () =>
    capacity - Math.max(QUEUE_SHARE * capacity, Math.min(capacity / 2, 2 * meanBytes()));
  const meanBytes = () => heldBytes / Math.max(1, lowCount + queue.count());
  let lowCount = 0;
  const makeLow = (index: number) => {
    states.set(index, LOW);
    lowBytes += sizes.get(index);
    lowCount += 1;
  };
  const shrink = () => {
    while (lowBytes > lowTarget() && lowCount > 1) {
      const index = stack.first();
      states.set(index, HIGH);
      lowBytes -= sizes.get(index);
      lowCount -= 1;
      stack.remove(index);
      queue.append(index);
      prune();
    }
  };
  const touch = (index: number) => {
    const isInStack = stack.has(index);
    if (states.get(index) === LOW) {
      const isFirst = stack.first() === index;
      stack.move(index);
      if (isFirst) prune();
      return;
    }
    if (!isInStack) {
      stack.append(index);
      queue.move(index);
      return;
    }
    stack.move(index);
    queue.remove(index);
    makeLow(index);
    shrink();
    prune();
  };
  const untrack = (index: number) => {
    const size = sizes.get(index);
    heldBytes -= size;
    if (states.get(index) === LOW) {
      lowBytes -= size;
      lowCount -= 1;
      states.set(index, ABSENT);
      stack.remove(index);
      prune();
      return;
    }
    queue.remove(index);
    states.set(index, ABSENT);
    if (!stack.has(index)) return;
    states.set(index, GONE);
    gone.append(index);
    goneBytes += size;
    while (goneBytes > GONE_SHARE * capacity) drop(gone.first());
    prune();
  };
  return {
    name: "lirs",
    track: ({ index, bytes: size }) => {
      const isBack = states.get(index) === GONE;
      if (isBack) {
        gone.remove(index);
        goneBytes -= sizes.get(index);
      }
      sizes.set(index, size);
      heldBytes += size;
      const isFilling = heldBytes > capacity;
      capacity = Math.max(capacity, heldBytes);
      if (isBack) {
        stack.move(index);
        makeLow(index);
        shrink();
        prune();
      } else if (isFilling && lowBytes + size <= lowTarget()) {
        stack.append(index);
        makeLow(index);
      } else {
        states.set(index, HIGH);
        stack.append(index);
        queue.append(index);
      }
    },
    touch,
    touchChain: (chain) => deepestFirst(chain, touch),
    untrack,
    forget: (index) => {
      const state = states.get(index);
      if (state === LOW || state === HIGH) untrack(index);
      if (states.get(index) === GONE) drop(index);
    },
    candidates: () => (queue.count() > 0 ? both() : lowOnes()),
  };

  function* both(): Generator<number> {
    yield* queue.walk();
    yield* lowOnes();
  }

  function* lowOnes(): Generator<number> {
    for (const index of stack.walk()) if (states.get(index) === LOW) yield index;
  }
}
