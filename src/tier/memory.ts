// A tier in JavaScript memory: for tests, and as the fallback where no storage works. Its objects
// live outside the RAM budget, so its capacity is the caller's to choose.
import { TierError } from "../errors.js";
import type { PrivateBytes } from "../util/private-bytes.js";
import { TierMeter } from "./meter.js";
import type { Tier, TierKey } from "./tier.js";
import { wholeObjectWriter } from "./whole-object.js";

export interface MemoryTierOptions {
  /** Default: `"memory"`. */
  readonly name?: string;
  /** Default: Infinity. */
  readonly capacityBytes?: number;
  /** Default: true, as of a tier that may be wrong. */
  readonly needsReadBack?: boolean;
}

export function memoryTier(options: MemoryTierOptions = {}): Tier {
  const name = options.name ?? "memory";
  const objects = new Map<TierKey, PrivateBytes>();
  const meter = new TierMeter(options.capacityBytes ?? Number.POSITIVE_INFINITY);
  let isOpen = false;

  const checkOpen = () => {
    if (!isOpen) throw new TierError("closed", name, "the tier is closed");
  };

  return {
    name,
    capabilities: {
      isPersistent: false,
      hasDurableCommit: false,
      needsReadBack: options.needsReadBack ?? true,
      readsInPlace: true,
    },
    open: async () => {
      isOpen = true;
    },
    begin: async (key, byteLength) =>
      wholeObjectWriter({
        name,
        key,
        byteLength,
        meter,
        check: checkOpen,
        publish: (object) => {
          objects.set(key, object);
          return "stored";
        },
      }),
    openRead: async (key) => {
      checkOpen();
      meter.openReadCount += 1;
      const object = objects.get(key);
      if (object === undefined) return null;
      return {
        byteLength: object.byteLength,
        read: async (offset, ...targets) => {
          checkOpen();
          let count = 0;
          for (const target of targets) {
            const part = object.subarray(offset + count, offset + count + target.byteLength);
            target.set(part);
            count += part.byteLength;
          }
          meter.bytesRead += count;
          return count;
        },
        close: async () => {},
      };
    },
    delete: async (key) => {
      checkOpen();
      meter.forget(key);
      meter.deleteCount += 1;
      return objects.delete(key);
    },
    quarantine: async (key) => {
      checkOpen();
      if (!objects.delete(key)) return;
      meter.forget(key);
      meter.quarantinedCount += 1;
    },
    list: async function* () {
      checkOpen();
      yield* meter.keys();
    },
    stats: () => meter.stats(),
    close: async () => {
      isOpen = false;
    },
  };
}
