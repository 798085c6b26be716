// The shares of the budget between which the background prepares, and their validation.
import { MisuseError } from "../errors.js";
import { checkObject } from "./checks.js";

const HIGH_WATERMARK = 0.8;
const WATERMARK_DISTANCE = 0.1;

/** @throws {MisuseError} `bad-option`. */
export function checkWatermarks(given: unknown): { readonly high: number; readonly low: number } {
  const { high = HIGH_WATERMARK, low } = checkObject(given ?? {}, "watermarks", ["high", "low"]);
  // A share of what is there, where `high` is low itself.
  const least = low ?? Math.max((high as number) - WATERMARK_DISTANCE, (high as number) / 2);
  const isShare = (value: unknown) => typeof value === "number" && value > 0 && value <= 1;
  if (!isShare(high) || !isShare(least) || (least as number) > (high as number)) {
    throw new MisuseError("bad-option", "0 < watermarks.low <= watermarks.high <= 1");
  }
  return { high: high as number, low: least as number };
}
