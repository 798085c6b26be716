// The profile of this machine: what it says of itself, tuned by what was measured beside the store, if
// anything valid is kept there; measured now only if that is asked for.
import type { Clock } from "../clock.js";
import type { Codec } from "../codec/codec.js";
import type { GpuDevice } from "../gpu/gpu-device.js";
import {
  type Calibration,
  type CalibrationPlace,
  type CalibrationVerdict,
  encodeCalibration,
  judgeCalibration,
} from "./calibration.js";
import type { HardwareProfile } from "./hardware-profile.js";
import { tunedProfile } from "./tuned-profile.js";

export interface AutoProfileOptions {
  readonly detected: HardwareProfile;
  readonly place: CalibrationPlace;
  readonly clock: Clock;
  readonly createCodec: () => Codec;
  /** Whether to measure where nothing valid is kept. */
  readonly isWanted: boolean;
  readonly gpu?: GpuDevice | undefined;
}

/** What is kept, and whether it counts. What cannot be read is not there. */
export async function keptCalibration(
  place: CalibrationPlace,
  clock: Clock,
): Promise<CalibrationVerdict> {
  const text = await place.read().catch(() => null);
  return judgeCalibration(text, place.machine, clock.wallMs());
}

/** Measures, and keeps what was found. @returns Whether it could be kept, too. */
export async function measureAndKeep(
  options: Omit<AutoProfileOptions, "detected" | "isWanted">,
): Promise<{ readonly calibration: Calibration; readonly isKept: boolean }> {
  // Most who open a memory measure nothing.
  const { calibrate } = await import("./calibrate.js");
  const calibration = await calibrate(options);
  const isKept = await options.place.write(encodeCalibration(calibration)).then(
    () => true,
    // A disk that is full, or may not be written: it is measured again the next time.
    () => false,
  );
  return { calibration, isKept };
}

export async function autoProfile(options: AutoProfileOptions): Promise<HardwareProfile> {
  const { detected, place, clock, isWanted } = options;
  const kept = await keptCalibration(place, clock);
  if (kept.verdict === "valid") return tunedProfile(detected, kept.calibration);
  if (!isWanted) return detected;
  const { calibration } = await measureAndKeep(options);
  return tunedProfile(detected, calibration);
}
