// Adaptive replacement: one list of what was used once, one of what was used again, and the memory of
// what left either of them decides how much each may hold.
//
// Source: N. Megiddo, D. S. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003.
// Shares are bytes. The capacity is the most that was tracked. The victim is chosen before the entry
// that wants in is known.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst, IndexLists, NumberColumn } from "./index-list.js";

const ONCE = 0;
const AGAIN = 1;
/** What left `ONCE`, and what left `AGAIN`. */
const ONCE_GONE = 2;
const AGAIN_GONE = 3;

export function arcPolicy(): EvictionPolicy {
  const lists = new IndexLists(4);
  const sizes = new NumberColumn();
  const bytes = new Float64Array(4);
  let onceTarget = 0;
  let capacity = 0;

  const enter = (index: number, list: number) => {
    lists.append(index, list);
    (bytes[list] as number) += sizes.get(index);
  };
  const leave = (index: number) => {
    (bytes[lists.listOf(index)] as number) -= sizes.get(index);
    lists.remove(index);
  };
  const touch = (index: number) => {
    if (lists.listOf(index) === AGAIN) {
      lists.move(index, AGAIN);
      return;
    }
    leave(index);
    enter(index, AGAIN);
  };
  const bytesOf = (list: number) => bytes[list] as number;
  /** Forgets what left, so that both sides remember no more than fits. */
  const trim = () => {
    while (bytesOf(ONCE) + bytesOf(ONCE_GONE) > capacity && lists.count(ONCE_GONE) > 0) {
      leave(lists.first(ONCE_GONE));
    }
    const held = bytesOf(ONCE) + bytesOf(AGAIN) + bytesOf(ONCE_GONE);
    while (held + bytesOf(AGAIN_GONE) > 2 * capacity && lists.count(AGAIN_GONE) > 0) {
      leave(lists.first(AGAIN_GONE));
    }
  };
  return {
    name: "arc",
    track: ({ index, bytes: size }) => {
      const from = lists.listOf(index);
      if (from === ONCE_GONE) {
        const step = Math.max(size, (size * bytesOf(AGAIN_GONE)) / bytesOf(ONCE_GONE));
        onceTarget = Math.min(capacity, onceTarget + step);
      } else if (from === AGAIN_GONE) {
        const step = Math.max(size, (size * bytesOf(ONCE_GONE)) / bytesOf(AGAIN_GONE));
        onceTarget = Math.max(0, onceTarget - step);
      }
      if (from >= 0) leave(index);
      sizes.set(index, size);
      enter(index, from < 0 ? ONCE : AGAIN);
      capacity = Math.max(capacity, bytesOf(ONCE) + bytesOf(AGAIN));
    },
    touch,
    touchChain: (chain) => deepestFirst(chain, touch),
    untrack: (index) => {
      const list = lists.listOf(index);
      leave(index);
      enter(index, list + ONCE_GONE);
      trim();
    },
    forget: (index) => {
      if (lists.has(index)) leave(index);
    },
    candidates: () => {
      const isOnceFirst = bytesOf(ONCE) > onceTarget || lists.count(AGAIN) === 0;
      return isOnceFirst ? lists.walk(ONCE, AGAIN) : lists.walk(AGAIN, ONCE);
    },
  };
}
