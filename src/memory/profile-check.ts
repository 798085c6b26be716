// Whether a profile that a caller has made can be used. Loaded when one is given.
import { MisuseError } from "../errors.js";
import type { HardwareProfile, TierFigures } from "../hardware/hardware-profile.js";
import { isCodecName } from "./codec-options.js";
import { checkWatermarks } from "./watermarks.js";

/** @throws {MisuseError} `bad-option` — a figure is missing or out of range. */
export function checkProfile(profile: HardwareProfile): HardwareProfile {
  const { name, granuleBytes, arenaBytesMax, chunkBytes, queueDepth, ramBudgetBytes } = profile;
  const { codecWorkerCount = 0, alignmentBytes = 1, prefetchDepthMax = 8, codec, tiers } = profile;
  const isWithin = (value: unknown, least: number, most: number) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
  const isUsable =
    typeof name === "string" &&
    isWithin(granuleBytes, 16, 2 ** 20) &&
    Number.isInteger(Math.log2(granuleBytes)) &&
    isWithin(arenaBytesMax, 2 ** 20, 2 ** 32) &&
    Number.isInteger(Math.log2(arenaBytesMax)) &&
    isWithin(chunkBytes, 1, 2 ** 32) &&
    isWithin(queueDepth, 1, 64) &&
    isWithin(ramBudgetBytes, 1, Number.MAX_SAFE_INTEGER) &&
    isWithin(codecWorkerCount, 0, 16) &&
    isWithin(alignmentBytes, 1, 65_536) &&
    Number.isInteger(Math.log2(alignmentBytes)) &&
    isWithin(prefetchDepthMax, 1, 64) &&
    (codec === undefined || isCodecName(codec)) &&
    Object.values(tiers ?? {}).every(isUsableTier);
  checkWatermarks(profile.watermarks);
  if (!isUsable) throw new MisuseError("bad-option", "a figure of the profile is out of range");
  return profile;
}

function isUsableTier(figures: TierFigures | null | undefined): boolean {
  if (figures === undefined) return true;
  const isRate = (rate: unknown) => typeof rate === "number" && rate > 0;
  const isRead = isRate(figures?.readBytesPerSecond) && isRate(figures?.writeBytesPerSecond);
  return isRead && (figures?.latencyMs ?? 0) >= 0;
}
