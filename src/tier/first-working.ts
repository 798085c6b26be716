// The first of several tiers that opens on this machine stands for all of them.
import { TierError } from "../errors.js";
import { nullTier } from "./null.js";
import type { Tier } from "./tier.js";

/**
 * @param candidates The preferred one first; made one by one, until one opens.
 * @param onRefused Told of each that does not work here.
 * @throws {TierError} From `open`: `busy` — a tier works here, but somebody else has it open: the next
 *   one would hold other tensors. `io` — none works.
 */
export function firstWorkingTier(
  name: string,
  candidates: () => Promise<readonly (() => Tier | Promise<Tier>)[]>,
  onRefused: (error: TierError) => void,
): Tier {
  /** Stays when it is closed: it still says what it did. */
  let chosen: Tier | null = null;
  let isOpen = false;
  const opened = (): Tier => {
    if (chosen === null || !isOpen) throw new TierError("closed", name, "the tier is closed");
    return chosen;
  };
  return {
    name,
    // Before it is known which it will be: what is safe for each.
    get capabilities() {
      return chosen?.capabilities ?? SAFE;
    },
    open: async () => {
      if (isOpen) return;
      let last: TierError | null = null;
      for (const create of await candidates()) {
        const tier = await create();
        try {
          await tier.open();
          chosen = tier;
          isOpen = true;
          return;
        } catch (error) {
          if (!(error instanceof TierError) || error.code === "busy") throw error;
          last = error;
          onRefused(error);
        }
      }
      throw last ?? new TierError("io", name, "there is no tier to choose from");
    },
    begin: async (key, byteLength, hints) => opened().begin(key, byteLength, hints),
    openRead: async (key) => opened().openRead(key),
    delete: async (key) => opened().delete(key),
    quarantine: async (key) => opened().quarantine(key),
    list: () => opened().list(),
    stats: () => (chosen ?? nullTier(name)).stats(),
    close: async () => {
      isOpen = false;
      await chosen?.close();
    },
  };
}

const SAFE = {
  isPersistent: true,
  hasDurableCommit: true,
  needsReadBack: true,
  readsInPlace: false,
};
