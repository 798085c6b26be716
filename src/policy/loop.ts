// For tensors that are used in a fixed cycle, such as the weights of the layers of a model: the most
// recently used leaves first, since it is the one whose turn comes last. Of N tensors of which k fit,
// k − 1 thus stay, where least recently used keeps none. Not for anything that is not a cycle.
import type { EvictionPolicy } from "./eviction-policy.js";
import { IndexLists } from "./index-list.js";

export function loopPolicy(): EvictionPolicy {
  const order = new IndexLists();
  const touch = (index: number) => order.move(index);
  return {
    name: "loop",
    track: ({ index }) => order.append(index),
    touch,
    touchChain: (chain) => {
      for (let at = 0; at < chain.length; at++) touch(chain[at] as number);
    },
    untrack: (index) => order.remove(index),
    forget: (index) => {
      if (order.has(index)) order.remove(index);
    },
    candidates: () => order.walkBack(),
  };
}
