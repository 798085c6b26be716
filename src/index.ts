// The public surface that is the same on every platform. Where to start reading: tensor-memory.ts.
import { AttachedMemory } from "./memory/attached-memory.js";
import type { MemoryToken } from "./memory/tokens.js";

export {
  type BlockMove,
  BuddyAllocator,
  type BuddyAllocatorOptions,
  type BuddyStats,
  type BuddyToken,
  type Handle,
  NULL_HANDLE,
} from "./buddy-allocator.js";
export type { CodecStats } from "./cache/codec-meter.js";
export type { DisposableStats } from "./cache/disposables.js";
export {
  FIXED_SHAPES,
  type FixedShapePool,
  type FixedShapeStats,
  type FixedShapeTensor,
} from "./cache/fixed-shape-pool.js";
export type { GuardStats } from "./cache/guards.js";
export type { LookupStats } from "./cache/hierarchical-cache.js";
export type { ListedTensor, VerifyResult } from "./cache/inventory.js";
export type { LifetimeStats, SiteLifetimes } from "./cache/lifetime-collector.js";
export type { PrefetchStats } from "./cache/prefetcher.js";
export type { PressureWatchStats } from "./cache/pressure-watch.js";
export type { FixedShapeOptions } from "./cache/repeated-tensors.js";
export type { RestoreEstimate } from "./cache/restore-estimate.js";
export type { InternOptions, SharingStats } from "./cache/shared-tensors.js";
export type { PlanRecorder, StepPlan } from "./cache/step-plan.js";
export type { SwapperStats } from "./cache/swapper-stats.js";
export type { LevelStats } from "./cache/tier-level.js";
export type { Clock } from "./clock.js";
export type { BlockCount } from "./core/block-counts.js";
export type { PoolCounters } from "./core/counters.js";
export type { EndingWorker } from "./core/lane-watch.js";
export type { LockCounters, SharedArena } from "./core/lanes.js";
export {
  CorruptionError,
  type GuardDetails,
  GuardError,
  type GuardErrorCode,
  type MisuseCode,
  MisuseError,
  type OutOfMemoryDetails,
  OutOfMemoryError,
  PoisonedError,
  TierError,
  type TierErrorCode,
  TierheapError,
} from "./errors.js";
export { HARDWARE_PROFILES, type HardwareProfile } from "./hardware/hardware-profile.js";
export type {
  IdleEnd,
  LifetimeAge,
  LifetimePredictor,
  LifetimeSample,
} from "./lifetime/lifetime-predictor.js";
export type { ArenaShelfStats } from "./memory/arena-shelf.js";
export type {
  AttachedMemory,
  AttachedPin,
  AttachedStats,
  AttachedTensor,
  WorkerTensorOptions,
} from "./memory/attached-memory.js";
export type { CompactionOptions } from "./memory/auto-compaction.js";
export type { BudgetCategory, BudgetStats } from "./memory/budget.js";
export type { CodecOptions, CodecRule } from "./memory/codec-options.js";
export type { CompactionResult } from "./memory/compactor.js";
export type { MemoryEvent } from "./memory/events.js";
export type { FragmentationLevel } from "./memory/fragmentation.js";
export type { LeakStats } from "./memory/leak-watch.js";
export type { CompactionTotals, MemoryPool, PoolStats } from "./memory/memory-pool.js";
export type { LifetimeOptions, TensorMemoryOptions, TensorOptions } from "./memory/options.js";
export type { Pin, PinAccess } from "./memory/pin.js";
export type { Scope } from "./memory/scope.js";
export type { Seams } from "./memory/seams.js";
export type { Tensor } from "./memory/tensor.js";
export type { MemoryToken, TensorMessage } from "./memory/tokens.js";
export type { Predictor } from "./predictor/predictor.js";
export type { StoredObject, TierPredictor } from "./predictor/tier-predictor.js";
export type { Random } from "./random.js";
export type { MemoryStats } from "./stats/memory-stats.js";
export { formatBytes, formatPercent, formatTable } from "./stats/report.js";
export type { TensorMemory } from "./tensor-memory.js";
export type {
  ObjectHints,
  Tier,
  TierFactory,
  TierKey,
  TierReader,
  TierStats,
  TierWriter,
} from "./tier/tier.js";
export type {
  ByteSize,
  Dtype,
  ErrorLimit,
  Layout,
  Shape,
  TensorErrorBudget,
  TensorKind,
  TensorView,
} from "./types.js";
export { ViewAllocator, type ViewAllocatorOptions, type ViewBlock } from "./view-allocator.js";

/**
 * A shared memory for this worker; see `memory.share()`.
 *
 * @throws {MisuseError} `bad-option` — not a token, or used before.
 */
export function attachTensorMemory(token: MemoryToken): Promise<AttachedMemory> {
  return AttachedMemory.attach(token);
}
