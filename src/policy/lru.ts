// Least recently used. Callers that use a chain touch it deepest block first, so that its tail
// leaves before the head it depends on.
import type { EvictionPolicy } from "./eviction-policy.js";
import { IndexList } from "./index-list.js";

export function lruPolicy(): EvictionPolicy {
  const order = new IndexList();
  return {
    name: "lru",
    track: ({ index }) => order.append(index),
    touch: (index) => {
      order.remove(index);
      order.append(index);
    },
    untrack: (index) => order.remove(index),
    candidates: () => order,
  };
}
