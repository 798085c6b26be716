// What the records that a tensor has in a tier are good for.
import type { TensorRecord } from "./tensor-record.js";

/** How a copy is to be written. */
export interface CopyOptions {
  readonly durable: boolean;
  readonly isSaved: boolean;
  /** In milliseconds since 1970; 0: never. */
  readonly expiresMs: number;
}

/** Whether the saved record holds the tensor's bytes, and is what is wanted. */
export function hasSaved(
  { cold, isClean }: TensorRecord,
  { durable, expiresMs }: Omit<CopyOptions, "isSaved">,
): boolean {
  if (cold === null || !isClean || cold.expiresMs !== expiresMs) return false;
  return cold.isSaved && (cold.isDurable || !durable);
}

/** Whether all that is left of a tensor is a record whose time is over. */
export function hasExpired(record: TensorRecord, nowMs: number): boolean {
  const { cold, isResident, transfer, shared } = record;
  if (cold === null || isResident || transfer !== null || shared !== null) return false;
  return cold.expiresMs > 0 && cold.expiresMs <= nowMs;
}
