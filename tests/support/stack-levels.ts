// Levels of a stack of tiers, and ways in which they fail.
import { TierError } from "../../src/errors.js";
import { memoryTier } from "../../src/testing/index.js";
import type { ObjectHints, Tier } from "../../src/tier/tier.js";
import { SWAPPED } from "./stacks.js";

export const SAVED: ObjectHints = { ...SWAPPED, isSaved: true };
export const DURABLE: ObjectHints = { ...SAVED, isDurable: true };

/** A persistent tier in memory. */
export function store(name: string, capacityBytes: number): Tier {
  const tier = memoryTier({ name, capacityBytes });
  return {
    ...tier,
    capabilities: {
      isPersistent: true,
      hasDurableCommit: true,
      needsReadBack: false,
      readsInPlace: false,
    },
  };
}

export const warm = (capacityBytes: number) =>
  memoryTier({ name: "warm", capacityBytes, needsReadBack: false });

export const holds = async (tier: Tier) => {
  const keys: number[] = [];
  for await (const key of tier.list()) keys.push(Number.parseInt(key, 16));
  return keys.sort((one, other) => one - other);
};

/** Fails while it is told to. */
export function failing(tier: Tier) {
  const state = { isFailing: false, failedCount: 0, callCount: 0 };
  const check = () => {
    state.callCount += 1;
    if (!state.isFailing) return;
    state.failedCount += 1;
    throw new TierError("io", tier.name, "injected");
  };
  const wrapped: Tier = {
    ...tier,
    open: async () => {
      check();
      await tier.open();
    },
    begin: async (key, byteLength, hints) => {
      check();
      const writer = await tier.begin(key, byteLength, hints);
      if (writer === "no-space") return writer;
      return {
        ...writer,
        write: async (source) => {
          check();
          return writer.write(source);
        },
        commit: async (options) => {
          check();
          return writer.commit(options);
        },
      };
    },
    openRead: async (key) => {
      check();
      const reader = await tier.openRead(key);
      if (reader === null) return null;
      return {
        ...reader,
        read: async (offset, ...targets) => {
          check();
          return reader.read(offset, ...targets);
        },
      };
    },
    delete: async (key) => {
      check();
      return tier.delete(key);
    },
  };
  return { tier: wrapped, state };
}
