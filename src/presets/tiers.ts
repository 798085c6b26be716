// Which tiers a memory has below its arenas, and what they are made of: one of its own, or a stack.
import { ObjectMover } from "../cache/object-mover.js";
import { recordInspector } from "../cache/record-inspector.js";
import { Staging } from "../cache/staging.js";
import { TierManager } from "../cache/tier-manager.js";
import { TierStack } from "../cache/tier-stack.js";
import type { Clock } from "../clock.js";
import type { Hasher } from "../core/hash-stream.js";
import { MisuseError } from "../errors.js";
import type { EventHub } from "../memory/events.js";
import type { CheckedOptions, Seams, TensorMemoryOptions } from "../memory/options.js";
import { reuseIntervals } from "../predictor/reuse-intervals.js";
import { systemRandom } from "../random.js";
import { memoryTier } from "../tier/memory.js";
import { nullTier } from "../tier/null.js";
import type { Tier } from "../tier/tier.js";

/** What a platform gives a tier in a directory. */
export interface StorePlace {
  readonly name: string;
  readonly directory: string;
  readonly capacityBytes: number;
  /** Memory that the tier may hold objects in while it writes them. */
  readonly bufferBytes: number;
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
export function createTiers(parts: {
  readonly platform: TierPlatform;
  readonly checked: CheckedOptions;
  readonly options: TensorMemoryOptions;
  readonly plan: TierPlan;
  readonly chunkBytes: number;
  readonly clock: Clock;
  readonly hasher: Hasher;
  readonly events: EventHub;
}): { readonly tier: Tier; readonly stack: TierStack | null } {
  const { platform, checked, options, plan, chunkBytes, clock, hasher, events } = parts;
  const seams = options.seams ?? {};
  const bufferBytes = STORE_CHUNK_COUNT * chunkBytes;
  const storeOf = (name: string, directory: string, capacityBytes: number) =>
    platform.createSsdTier({ name, directory, capacityBytes, bufferBytes }, seams);
  const hasSsd = seams.tier !== undefined || checked.ssdBytes > 0;
  const ssd = seams.tier ?? (hasSsd ? storeOf("ssd", checked.directory, checked.ssdBytes) : null);
  if (!plan.isStacked) return { tier: ssd ?? nullTier("ssd"), stack: null };
  if (checked.hddBytes > 0 && !platform.hasHdd) {
    throw new MisuseError("unsupported", "a browser has no second directory");
  }
  const tiers: Tier[] = [];
  if (checked.warmBytes > 0) {
    const { warmBytes: capacityBytes } = checked;
    // What it was given and what it gives are the same memory.
    tiers.push(memoryTier({ name: "warm", capacityBytes, needsReadBack: false }));
  }
  if (ssd !== null) tiers.push(ssd);
  if (checked.hddBytes > 0) tiers.push(storeOf("hdd", checked.hddDirectory, checked.hddBytes));
  const mayBeAbsent: string[] = [];
  if (options.remote !== undefined) {
    const random = seams.random ?? systemRandom;
    const remote = options.remote({ capacityBytes: checked.remoteBytes, clock, random });
    tiers.push(remote);
    mayBeAbsent.push(remote.name);
  }
  const stack = new TierStack({
    tiers,
    mayBeAbsent,
    manager: new TierManager(seams.tierPredictor ?? reuseIntervals()),
    mover: new ObjectMover(new Staging(plan.moveCount, chunkBytes), recordInspector(hasher)),
    clock,
    checksRecords: true,
    onFailure: (tier, error) => events.emit({ type: "tier-error", tier, error }),
  });
  return { tier: stack, stack };
}
