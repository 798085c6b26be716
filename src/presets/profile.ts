// Chooses the hardware profile where there is something to choose from: one that was named or given, or what
// was measured beside a store. Loaded then.
import { systemClock } from "../clock.js";
import { unitCodec } from "../codec/unit-codec.js";
import { createUnsharedMemory } from "../core/linear-memory.js";
import { MisuseError } from "../errors.js";
import { autoProfile } from "../hardware/auto-profile.js";
import { HARDWARE_PROFILES, type HardwareProfile } from "../hardware/hardware-profile.js";
import { checkCalibrate } from "../memory/calibrate-option.js";
import type { CheckedOptions, TensorMemoryOptions } from "../memory/options.js";
import { checkProfile } from "../memory/profile-check.js";
import { withProfile } from "../memory/with-profile.js";
import { describe } from "../types.js";
import type { Platform } from "./platform.js";

/**
 * @returns The profile, and the options with what callers have left to it.
 * @throws {MisuseError} `bad-option`.
 */
export async function chooseProfile(
  options: TensorMemoryOptions,
  checked: CheckedOptions,
  platform: Platform,
): Promise<{ readonly profile: HardwareProfile; readonly checked: CheckedOptions }> {
  checkCalibrate(options);
  const profile = await profileOf(options, checked, platform);
  return { profile, checked: withProfile(checked, options, profile) };
}

async function profileOf(
  { profile: asked = "auto", calibrate, seams = {}, wasm }: TensorMemoryOptions,
  { directory, browserStore: browser, ssdBytes }: CheckedOptions,
  platform: Platform,
): Promise<HardwareProfile> {
  if (typeof asked === "object" && asked !== null) return checkProfile(asked);
  if (asked !== "auto") {
    const preset = HARDWARE_PROFILES.get(asked);
    if (preset !== undefined) return preset;
    throw new MisuseError("bad-option", `unknown profile ${describe(asked)}`);
  }
  const detected = platform.detectHardware();
  if (ssdBytes === 0 || seams.tier !== undefined) return detected;
  const { clock = systemClock } = seams;
  return autoProfile({
    ...{ detected, clock, isWanted: calibrate !== undefined && calibrate !== false },
    place: await platform.calibrationPlace({ directory, browser, clock, seams }),
    createCodec: () => unitCodec({ createMemory: createUnsharedMemory, wasm: wasm?.kernels }),
    gpu: typeof calibrate === "object" ? calibrate.gpu : undefined,
  });
}
