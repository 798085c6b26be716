// What the errors of a file system mean to the callers of a tier.
import { TierError, type TierErrorCode } from "../errors.js";

const NO_SPACE_CODES = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
const BUSY_CODES = new Set(["EMFILE", "ENFILE", "EBUSY", "EAGAIN"]);

export function systemCode(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

/** Whether the device, a quota or a limit has no room. */
export function isNoSpace(error: unknown): boolean {
  return NO_SPACE_CODES.has(systemCode(error));
}

/** The error that a caller sees: `busy` for what passes, `io` for the rest. */
export function tierErrorOf(error: unknown, tier: string, message: string): TierError {
  if (error instanceof TierError) return error;
  const code = systemCode(error);
  const kind: TierErrorCode = BUSY_CODES.has(code) ? "busy" : "io";
  return new TierError(kind, tier, `${message}${code && ` (${code})`}`, { cause: error });
}
