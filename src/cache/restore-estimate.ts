// What it would take to bring a tensor back, from what its tier has shown so far.
import type { MemorySwapper } from "./memory-swapper.js";
import type { TensorRecord } from "./tensor-record.js";
import type { TierStack } from "./tier-stack.js";
import type { TransferEngine } from "./transfer-engine.js";

export interface RestoreEstimate {
  /** Where the tensor is now: `"ram"`, or the name of a tier. */
  readonly tier: string;
  readonly byteLength: number;
  /** Expected milliseconds until it would be resident; null before anything was measured there. */
  readonly restoreMs: number | null;
}

export async function estimateRestore(
  record: TensorRecord,
  parts: {
    readonly engine: TransferEngine;
    readonly swapper: MemorySwapper;
    readonly stack: TierStack | null;
  },
): Promise<RestoreEstimate> {
  const { engine, swapper, stack } = parts;
  const { id, byteLength, cold } = record;
  if (record.isResident || id === null || cold === null) {
    return { tier: "ram", byteLength, restoreMs: 0 };
  }
  const { storedBytes, isSaved } = cold;
  if (stack === null) {
    const restoreMs = swapper.speed.estimateMs(storedBytes);
    return { tier: engine.tier.name, byteLength, restoreMs };
  }
  return { byteLength, ...stack.estimate(engine.keyOf({ id, isSaved }), storedBytes) };
}
