// Three queues, first in first out: what is new stays in a small one and leaves soon unless it was
// used; what was used goes on to the main one, where uses give it further rounds; what left the small
// one is remembered, and enters the main one when it comes back.
//
// Source: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache
// eviction", SOSP 2023. Shares are bytes of what is tracked.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst, IndexLists, NumberColumn } from "./index-list.js";

const SMALL = 0;
const MAIN = 1;
const GONE = 2;

const SMALL_SHARE = 0.1;
const GONE_SHARE = 0.9;
const USES_MAX = 3;
/** Uses after which an entry goes on to the main queue. */
const USES_TO_STAY = 2;

export function s3FifoPolicy(): EvictionPolicy {
  const lists = new IndexLists(3);
  const sizes = new NumberColumn();
  const uses = new NumberColumn();
  const bytes = new Float64Array(3);
  let capacity = 0;

  const enter = (index: number, list: number) => {
    lists.append(index, list);
    (bytes[list] as number) += sizes.get(index);
  };
  const leave = (index: number) => {
    (bytes[lists.listOf(index)] as number) -= sizes.get(index);
    lists.remove(index);
  };
  const touch = (index: number) => uses.set(index, Math.min(USES_MAX, uses.get(index) + 1));
  const bytesOf = (list: number) => bytes[list] as number;
  /** Lets used entries go round until the first one of a queue may leave. @returns That queue. */
  const settle = (): number => {
    for (;;) {
      const isSmall = bytesOf(SMALL) >= SMALL_SHARE * capacity || lists.count(MAIN) === 0;
      const list = isSmall && lists.count(SMALL) > 0 ? SMALL : MAIN;
      const index = lists.first(list);
      if (index < 0) return list;
      const used = uses.get(index);
      if (used < (list === SMALL ? USES_TO_STAY : 1)) return list;
      leave(index);
      uses.set(index, list === SMALL ? 0 : used - 1);
      enter(index, MAIN);
    }
  };
  return {
    name: "s3-fifo",
    track: ({ index, bytes: size }) => {
      const isBack = lists.has(index);
      if (isBack) leave(index);
      sizes.set(index, size);
      uses.set(index, 0);
      enter(index, isBack ? MAIN : SMALL);
      capacity = Math.max(capacity, bytesOf(SMALL) + bytesOf(MAIN));
    },
    touch,
    touchChain: (chain) => deepestFirst(chain, touch),
    untrack: (index) => {
      const list = lists.listOf(index);
      leave(index);
      if (list !== SMALL) return;
      enter(index, GONE);
      while (bytesOf(GONE) > GONE_SHARE * capacity) leave(lists.first(GONE));
    },
    forget: (index) => {
      if (lists.has(index)) leave(index);
    },
    candidates: () => {
      const list = settle();
      return lists.walk(list, list === SMALL ? MAIN : SMALL);
    },
  };
}
