// Which tiers a memory has below its arenas, and what they are made of: one of its own, or a stack.
import type { TierStack } from "../cache/tier-stack.js";
import type { Clock } from "../clock.js";
import type { Codec } from "../codec/codec.js";
import type { Hasher } from "../core/hash-stream.js";
import { MisuseError } from "../errors.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { BrowserStoreOptions } from "../memory/browser-store-options.js";
import type { EventHub } from "../memory/events.js";
import type { CheckedOptions, TensorMemoryOptions } from "../memory/options.js";
import type { Seams } from "../memory/seams.js";
import { nullTier } from "../tier/null.js";
import type { Tier } from "../tier/tier.js";
import type { Observer } from "./observe.js";

/** What a platform gives a tier in a directory. */
export interface StorePlace {
  readonly name: string;
  readonly directory: string;
  readonly capacityBytes: number;
  /** Memory that the tier may hold objects in while it writes them. */
  readonly bufferBytes: number;
  readonly browser: BrowserStoreOptions;
  readonly clock: Clock;
  /** A store does not work here, and the next one is tried; or it has gone while it was open. */
  readonly onUnavailable: (error: Error) => void;
}

export interface TierPlatform {
  /** There can be a second directory, on another device. */
  readonly hasHdd: boolean;
  createSsdTier(place: StorePlace, seams: Partial<Seams>): Tier;
}

/** Chunks that a store may hold while it writes them. */
const STORE_CHUNK_COUNT = 4;
/** Buffers for what moves between tiers, so that a slow one does not hold up the others. */
const STACK_BUFFER_COUNT = 2;

/** What the tiers of a memory will be, before anything is made. */
export interface TierPlan {
  readonly isStacked: boolean;
  /** Hash streams and staging buffers that moves between tiers need. */
  readonly moveCount: number;
  /** RAM for writing, besides staging. */
  readonly bufferBytes: number;
}

/** Whether there is more below the arenas than one SSD. */
export function hasStack(checked: CheckedOptions, options: TensorMemoryOptions): boolean {
  return checked.warmBytes > 0 || checked.hddBytes > 0 || options.remote !== undefined;
}

export function planTiers(
  checked: CheckedOptions,
  options: TensorMemoryOptions,
  chunkBytes: number,
): TierPlan {
  const ownStoreCount =
    Number(options.seams?.tier === undefined && checked.ssdBytes > 0) +
    Number(checked.hddBytes > 0);
  const isStacked = hasStack(checked, options);
  return {
    isStacked,
    moveCount: isStacked ? STACK_BUFFER_COUNT : 0,
    bufferBytes: ownStoreCount * STORE_CHUNK_COUNT * chunkBytes,
  };
}

/** @throws {MisuseError} `unsupported`. */
export async function createTiers(parts: {
  readonly platform: TierPlatform;
  readonly checked: CheckedOptions;
  readonly options: TensorMemoryOptions;
  readonly plan: TierPlan;
  readonly chunkBytes: number;
  readonly clock: Clock;
  readonly profile: HardwareProfile;
  readonly hasher: Hasher;
  readonly events: EventHub;
  /** null: records stay as they are written. */
  readonly codec: Codec | null;
  readonly observer: Observer;
}): Promise<{ readonly tier: Tier; readonly stack: TierStack | null }> {
  const { platform, checked, options, plan, chunkBytes, clock, events } = parts;
  const seams = options.seams ?? {};
  const bufferBytes = STORE_CHUNK_COUNT * chunkBytes;
  const storeOf = (name: string, directory: string, capacityBytes: number) =>
    platform.createSsdTier(
      {
        ...{ name, directory, capacityBytes, bufferBytes, clock },
        browser: checked.browserStore,
        onUnavailable: (error) =>
          events.emitLasting({ type: "tier-unavailable", tier: name, error }),
      },
      seams,
    );
  const hasSsd = seams.tier !== undefined || checked.ssdBytes > 0;
  const ssd = seams.tier ?? (hasSsd ? storeOf("ssd", checked.directory, checked.ssdBytes) : null);
  if (!plan.isStacked) return { tier: ssd ?? nullTier("ssd"), stack: null };
  if (checked.hddBytes > 0 && !platform.hasHdd) {
    throw new MisuseError("unsupported", "a browser has no second directory");
  }
  const { createStack } = await import("./stack.js");
  const hdd = checked.hddBytes > 0 ? storeOf("hdd", checked.hddDirectory, checked.hddBytes) : null;
  const stack = createStack({ ...parts, moveCount: plan.moveCount, ssd, hdd });
  return { tier: stack, stack };
}
