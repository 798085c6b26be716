// What a short benchmark has found out about a machine, and how it is kept: a small text with a version,
// a checksum and the machine that it is of, beside the store whose device was measured.
import type { Tier } from "../tier/tier.js";
import { sha256Hex } from "../util/sha256.js";

/** Rates are bytes per second; null: could not be measured, or not in time. */
export interface CalibrationFigures {
  /** From one place in RAM to another. */
  readonly copyBytesPerSecond: number | null;
  /** Into the SSD tier, as the system takes them, which may be into its cache. */
  readonly ssdWriteBytesPerSecond: number | null;
  /** Back from it. What was written just before comes from the system's cache. */
  readonly ssdReadBytesPerSecond: number | null;
  /** Onto the device itself. */
  readonly ssdDurableBytesPerSecond: number | null;
  /** Until a short object is on the device. */
  readonly ssdDurableMs: number | null;
  /** Until a short object is there. */
  readonly ssdLatencyMs: number | null;
  /** Reads at once beyond which there was nothing to be gained: 1, 2 or 4. */
  readonly ssdQueueDepth: number | null;
  /** Lossless, of values as KV caches have them, by one thread. */
  readonly encodeBytesPerSecond: number | null;
  readonly decodeBytesPerSecond: number | null;
  readonly gpuUploadBytesPerSecond: number | null;
  readonly gpuReadbackBytesPerSecond: number | null;
}

export interface Calibration extends CalibrationFigures {
  /** What the machine says of itself. */
  readonly machine: string;
  /** When it was measured, in milliseconds since 1970. */
  readonly measuredMs: number;
  /** How long that took. */
  readonly durationMs: number;
}

/** Seam: where a calibration is kept and what is measured there. One for each store. */
export interface CalibrationPlace {
  /** What the machine says of itself; another one's figures do not count. */
  readonly machine: string;
  /** null when nothing is kept. */
  read(): Promise<string | null>;
  /** Replaces what is kept, as a whole. */
  write(text: string): Promise<void>;
  /** A new tier on the store's device, in a place of its own. Not open. */
  makeTier(): Tier;
  /** Leaves nothing of that tier, which is closed. */
  removeTier(): Promise<void>;
}

/** Figures of another version are measured again. */
const VERSION = 1;
/** A longer text is none of ours. */
const TEXT_LENGTH_MAX = 16_384;
/** Disks age, and systems are updated. */
const AGE_MS_MAX = 30 * 24 * 3_600_000;

const FIGURE_NAMES: readonly (keyof CalibrationFigures)[] = [
  "copyBytesPerSecond",
  "ssdWriteBytesPerSecond",
  "ssdReadBytesPerSecond",
  "ssdDurableBytesPerSecond",
  "ssdDurableMs",
  "ssdLatencyMs",
  "ssdQueueDepth",
  "encodeBytesPerSecond",
  "decodeBytesPerSecond",
  "gpuUploadBytesPerSecond",
  "gpuReadbackBytesPerSecond",
];

/** All figures unknown. */
export const NO_FIGURES = Object.fromEntries(
  FIGURE_NAMES.map((name) => [name, null]),
) as unknown as CalibrationFigures;

function checksumOf(calibration: string): string {
  return sha256Hex(new TextEncoder().encode(`tierheap calibration ${VERSION} ${calibration}`));
}

export function encodeCalibration(calibration: Calibration): string {
  const sha256 = checksumOf(JSON.stringify(calibration));
  return `${JSON.stringify({ tierheapCalibration: VERSION, sha256, calibration }, null, 2)}\n`;
}

export type CalibrationVerdict =
  | { readonly verdict: "valid"; readonly calibration: Calibration }
  | { readonly verdict: "missing" | "damaged" | "other-version" | "other-machine" | "too-old" };

/** Whether what is kept can be relied on: by this machine, now. */
export function judgeCalibration(
  text: string | null,
  machine: string,
  nowMs: number,
): CalibrationVerdict {
  if (text === null) return { verdict: "missing" };
  const kept = parse(text);
  if (kept === null) return { verdict: "damaged" };
  if (kept["tierheapCalibration"] !== VERSION) return { verdict: "other-version" };
  const calibration = kept["calibration"] as Calibration | null | undefined;
  if (typeof calibration !== "object" || calibration === null) return { verdict: "damaged" };
  // Another order of its fields would be another text: nobody writes one.
  const isWhole = kept["sha256"] === checksumOf(JSON.stringify(calibration));
  if (!isWhole || !areFigures(calibration)) return { verdict: "damaged" };
  if (calibration.machine !== machine) return { verdict: "other-machine" };
  // Also one from the future: a clock was wrong, and nobody knows which.
  const ageMs = nowMs - calibration.measuredMs;
  if (!(Math.abs(ageMs) <= AGE_MS_MAX)) return { verdict: "too-old" };
  return { verdict: "valid", calibration };
}

function parse(text: string): Record<string, unknown> | null {
  if (text.length > TEXT_LENGTH_MAX) return null;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" ? (value as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

function areFigures(calibration: Calibration): boolean {
  const isFigure = (value: unknown) =>
    value === null || (typeof value === "number" && Number.isFinite(value) && value >= 0);
  return FIGURE_NAMES.every((name) => isFigure(calibration[name]));
}
