// What the records that a tensor has in a tier are good for.
import { CorruptionError } from "../errors.js";
import type { RecordHeader } from "../record/record.js";
import type { TensorRecord } from "./tensor-record.js";

/** How a copy is to be written. */
export interface CopyOptions {
  readonly durable: boolean;
  readonly isSaved: boolean;
  /** In milliseconds since 1970; 0: never. */
  readonly expiresMs: number;
}

/** Why a tensor whose only copy is lost cannot be had. */
export function lossOf({ lossCause }: TensorRecord, tier: string): Error {
  return lossCause ?? new CorruptionError(tier, "the only copy is damaged or gone");
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
  const { cold, isResident, transfer, shared, isOnlyOnDevice } = record;
  if (cold === null || isResident || transfer !== null || shared !== null) return false;
  if (isOnlyOnDevice) return false;
  return cold.expiresMs > 0 && cold.expiresMs <= nowMs;
}

/**
 * Whether a record has to stay in a tier that is full. One that is not needed is to be deleted before
 * anything else happens to its tensor: the tensor is told that it is gone.
 *
 * Not needed are the swapped-out copies that killed processes left, and that of a resident tensor, which is
 * dirty then; and saved records whose time is over, unless a resident tensor is clean by them.
 *
 * @param owner The tensor of this memory that the record belongs to, if there is one.
 * @param nowMs By the wall clock.
 */
export function isNeeded(
  header: RecordHeader,
  owner: TensorRecord | undefined,
  nowMs: number,
): boolean {
  const isIdle = owner === undefined || owner.transfer === null;
  if (header.isSaved) {
    const isOver = header.expiresMs > 0 && header.expiresMs <= nowMs;
    if (!isOver || !isIdle || owner?.isResident === true) return true;
    // A content may be clean by it.
    if (owner !== undefined && owner.shared !== null) return true;
    // A tensor of which nothing else is left expires when it is asked for.
    if (owner?.cold?.isSaved === false) owner.hasSavedRecord = false;
    return false;
  }
  if (owner?.hasSwapCopy !== true) return false;
  if (!owner.isResident || !isIdle) return true;
  if (owner.cold?.isSaved === false) owner.cold = null;
  owner.hasSwapCopy = false;
  return false;
}
