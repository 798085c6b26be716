// Policies that serve as references only: nobody should use them for chains. By the rules of
// libCacheSim, so that their counts can be compared with published ones.

/** One reference bit; a new entry starts without it. */
export function clockPolicy() {
  const order = new Set();
  const isUsed = new Set();
  return {
    name: "clock",
    track: ({ index }) => order.add(index),
    touch: (index) => isUsed.add(index),
    touchChain: (chain) => {
      for (const index of chain) isUsed.add(index);
    },
    untrack: (index) => order.delete(index),
    forget: (index) => order.delete(index),
    candidates: function* () {
      for (const index of order) {
        if (!isUsed.delete(index)) {
          yield index;
          continue;
        }
        order.delete(index);
        order.add(index);
      }
    },
  };
}

/** The hand starts at the old end and moves towards the new one; what it passes loses its bit. */
export function sievePolicy() {
  const older = [];
  const newer = [];
  const isUsed = [];
  let oldest = -1;
  let newest = -1;
  let hand = -1;
  const unlink = (index) => {
    if (hand === index) hand = newer[index];
    if (older[index] < 0) oldest = newer[index];
    else newer[older[index]] = newer[index];
    if (newer[index] < 0) newest = older[index];
    else older[newer[index]] = older[index];
    older[index] = undefined;
  };
  return {
    name: "sieve",
    track: ({ index }) => {
      older[index] = newest;
      newer[index] = -1;
      isUsed[index] = false;
      if (newest < 0) oldest = index;
      else newer[newest] = index;
      newest = index;
    },
    touch: (index) => {
      isUsed[index] = true;
    },
    touchChain: (chain) => {
      for (const index of chain) isUsed[index] = true;
    },
    untrack: unlink,
    forget: (index) => {
      if (older[index] !== undefined) unlink(index);
    },
    candidates: function* () {
      while (newest >= 0) {
        let index = hand < 0 ? oldest : hand;
        while (isUsed[index]) {
          isUsed[index] = false;
          index = newer[index] < 0 ? oldest : newer[index];
        }
        hand = index;
        yield index;
        if (hand === index) hand = newer[index];
      }
    },
  };
}
