// The level above RAM, loaded by those who ask for it.
import { GpuLevel, type GpuLevelOptions } from "../cache/gpu-level.js";
import type { Clock } from "../clock.js";
import type { Random } from "../random.js";
import type { DeviceTierFactory } from "../tier/device-tier.js";

/** @returns null when no device can be had, which is an event. @throws {TierError} `closed`. */
export async function openGpuLevel(
  create: DeviceTierFactory,
  parts: Omit<GpuLevelOptions, "tier"> & {
    readonly capacityBytes: number;
    readonly clock: Clock;
    readonly random: Random;
  },
): Promise<GpuLevel | null> {
  const tier = create(parts);
  try {
    await tier.open();
  } catch (error) {
    parts.events.emitLasting({
      type: "tier-unavailable",
      tier: tier.name,
      error: error as Error,
    });
    await tier.close();
    return null;
  }
  return new GpuLevel({ ...parts, tier });
}
