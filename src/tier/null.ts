// The dull tier: holds nothing and has room for nothing. Stands where no tier is configured.
import { TierMeter } from "./meter.js";
import type { Tier } from "./tier.js";

export function nullTier(name = "null"): Tier {
  const meter = new TierMeter(0);
  return {
    name,
    // It acknowledges nothing, so it breaks no promise.
    capabilities: {
      isPersistent: false,
      hasDurableCommit: true,
      needsReadBack: false,
      readsInPlace: true,
    },
    open: async () => {},
    begin: async (_key, byteLength) => {
      meter.tryBegin(byteLength);
      return "no-space";
    },
    openRead: async () => null,
    delete: async () => false,
    quarantine: async () => {},
    list: async function* () {},
    stats: () => meter.stats(),
    close: async () => {},
  };
}
