// Tiers that misbehave on demand.
import { TierError } from "../../src/errors.js";
import type { Tier } from "../../src/tier/tier.js";

type Stage = "write" | "read";

/** A tier whose writes or reads wait at a gate, or fail once. */
export function gatedTier(inner: Tier) {
  let closedStage: Stage | null = null;
  let failingStage: Stage | null = null;
  let openGate = () => {};
  let gate: Promise<void> = Promise.resolve();
  let announce = () => {};
  let waiting: Promise<void> = Promise.resolve();

  const pass = async (stage: Stage) => {
    if (failingStage === stage) {
      failingStage = null;
      throw new TierError("io", inner.name, "injected");
    }
    if (closedStage !== stage) return;
    announce();
    await gate;
  };
  const tier: Tier = {
    ...inner,
    begin: async (key, byteLength) => {
      const writer = await inner.begin(key, byteLength);
      if (writer === "no-space") return writer;
      return {
        ...writer,
        write: async (source) => {
          await pass("write");
          return writer.write(source);
        },
      };
    },
    openRead: async (key) => {
      const reader = await inner.openRead(key);
      if (reader === null) return null;
      return {
        ...reader,
        read: async (offset, target) => {
          await pass("read");
          return reader.read(offset, target);
        },
      };
    },
  };
  return {
    tier,
    close: (stage: Stage) => {
      closedStage = stage;
      gate = new Promise((resolve) => {
        openGate = resolve;
      });
      waiting = new Promise((resolve) => {
        announce = resolve;
      });
    },
    open: () => {
      closedStage = null;
      openGate();
    },
    failNext: (stage: Stage) => {
      failingStage = stage;
    },
    /** Resolves once somebody waits at the gate. */
    get waiting() {
      return waiting;
    },
  };
}
