// The dull policy: first in, first out. A reference for replays and conformance.
import type { EvictionPolicy } from "./eviction-policy.js";
import { IndexLists } from "./index-list.js";

export function fifoPolicy(): EvictionPolicy {
  const order = new IndexLists();
  return {
    name: "fifo",
    track: ({ index }) => order.append(index),
    touch: () => {},
    touchChain: () => {},
    untrack: (index) => order.remove(index),
    forget: (index) => {
      if (order.has(index)) order.remove(index);
    },
    candidates: () => order.walk(),
  };
}
