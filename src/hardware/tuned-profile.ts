// What a calibration changes about a detected profile: little, and only what was seen to matter. The
// thresholds are those of docs/decisions/0060.
import type { Calibration } from "./calibration.js";
import type { HardwareProfile, TierFigures } from "./hardware-profile.js";

/** Devices that write fewer bytes per second than this are slow. */
const SLOW_BYTES_PER_SECOND = 100e6;
/** Reads at once: never fewer, so that a transfer can go on beside another. */
const QUEUE_DEPTH_MIN = 2;
/** More guesses, because each takes long. */
const SLOW_PREFETCH_DEPTH = 16;
/** Earlier, because each copy takes long. */
const SLOW_WATERMARKS = { high: 0.7, low: 0.6 };

/** @param detected What the machine says of itself. */
export function tunedProfile(detected: HardwareProfile, calibration: Calibration): HardwareProfile {
  const { ssdQueueDepth, ssdDurableBytesPerSecond } = calibration;
  const isSlow =
    ssdDurableBytesPerSecond !== null && ssdDurableBytesPerSecond < SLOW_BYTES_PER_SECOND;
  return {
    ...detected,
    name: `${detected.name}, calibrated`,
    queueDepth: Math.max(QUEUE_DEPTH_MIN, ssdQueueDepth ?? detected.queueDepth),
    ...(isSlow && { watermarks: SLOW_WATERMARKS, prefetchDepthMax: SLOW_PREFETCH_DEPTH }),
    ...(cannotPay(detected, calibration) && { codec: "when-full" as const }),
    tiers: { ...detected.tiers, ...tiersOf(calibration) },
  };
}

/**
 * Whether coding costs more time than it could save if nothing were left to write, on the device itself:
 * the system's cache may be full when it matters.
 */
function cannotPay({ codecWorkerCount = 0 }: HardwareProfile, calibration: Calibration): boolean {
  const { encodeBytesPerSecond, decodeBytesPerSecond, ssdDurableBytesPerSecond } = calibration;
  if (encodeBytesPerSecond === null || decodeBytesPerSecond === null) return false;
  if (ssdDurableBytesPerSecond === null) return false;
  const threadCount = 1 + codecWorkerCount;
  const codingTime = (1 / encodeBytesPerSecond + 1 / decodeBytesPerSecond) / threadCount;
  // There and back.
  return codingTime > 2 / ssdDurableBytesPerSecond;
}

function tiersOf(calibration: Calibration): NonNullable<HardwareProfile["tiers"]> {
  const { copyBytesPerSecond: copy, ssdLatencyMs } = calibration;
  const of = (read: number | null, write: number | null): TierFigures | null =>
    read === null || write === null
      ? null
      : { readBytesPerSecond: read, writeBytesPerSecond: write };
  const ram = of(copy, copy);
  const ssd = of(calibration.ssdReadBytesPerSecond, calibration.ssdWriteBytesPerSecond);
  const gpu = of(calibration.gpuReadbackBytesPerSecond, calibration.gpuUploadBytesPerSecond);
  return {
    ...(ram && { ram }),
    ...(ssd && { ssd: { ...ssd, latencyMs: ssdLatencyMs ?? 0 } }),
    ...(gpu && { gpu }),
  };
}
