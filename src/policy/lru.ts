// Least recently used, and of a chain the deepest first, so that its tail leaves before the head it
// depends on.
import type { EvictionPolicy } from "./eviction-policy.js";
import { deepestFirst, IndexLists } from "./index-list.js";

export function lruPolicy(): EvictionPolicy {
  const order = new IndexLists();
  const touch = (index: number) => order.move(index);
  return {
    name: "lru",
    track: ({ index }) => order.append(index),
    touch,
    touchChain: (chain) => deepestFirst(chain, touch),
    untrack: (index) => order.remove(index),
    forget: (index) => {
      if (order.has(index)) order.remove(index);
    },
    candidates: () => order.walk(),
  };
}
