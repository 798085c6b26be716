// Tiers that misbehave on demand.
import { TierError } from "../../src/errors.js";
import type { Tier } from "../../src/tier/tier.js";
import { type PrivateBytes, privateParts } from "../../src/util/private-bytes.js";

type Stage = "write" | "read";

/** Flips a bit in what was read. @param offset Among the bytes of all targets. */
export function flipByte(targets: readonly PrivateBytes[], offset: number): void {
  const [part] = privateParts(targets, offset, 1);
  if (part !== undefined) part[0] = (part[0] as number) ^ 1;
}

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
        read: async (offset, ...targets) => {
          await pass("read");
          return reader.read(offset, ...targets);
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

/** A tier that now and then gives a flipped byte, or another object's bytes. */
export function misreadingTier(inner: Tier, lie: "flip" | "swap"): Tier {
  let readCount = 0;
  let otherKey: string | null = null;
  return {
    ...inner,
    openRead: async (key) => {
      readCount += 1;
      const isLying = readCount > 100 && readCount % 50 === 0;
      const wanted = isLying && lie === "swap" && otherKey !== null ? otherKey : key;
      otherKey = key;
      const reader = await inner.openRead(wanted);
      if (reader === null || !isLying || lie === "swap") return reader;
      return {
        ...reader,
        read: async (offset, ...targets) => {
          const count = await reader.read(offset, ...targets);
          flipByte(targets, count - 1);
          return count;
        },
      };
    },
  };
}
