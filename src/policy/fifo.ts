// The dull policy: first in, first out. A reference for replays and conformance.
import type { EvictionPolicy } from "./eviction-policy.js";
import { IndexList } from "./index-list.js";

export function fifoPolicy(): EvictionPolicy {
  const order = new IndexList();
  return {
    name: "fifo",
    track: ({ index }) => order.append(index),
    touch: () => {},
    untrack: (index) => order.remove(index),
    candidates: () => order,
  };
}
