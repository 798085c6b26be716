// The public surface that is the same on every platform. Where to start reading: tensor-memory.ts.
import type { AttachedMemory } from "./memory/attached-memory.js";
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
export type { BreakerState } from "./cache/circuit-breaker.js";
export type { CodecStats } from "./cache/codec-meter.js";
export type { DisposableStats } from "./cache/disposables.js";
export type {
  FixedShapePool,
  FixedShapeStats,
  FixedShapeTensor,
} from "./cache/fixed-shape-pool.js";
export { FIXED_SHAPES } from "./cache/fixed-shapes.js";
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
export type { CodecWorkersStats, PlatformWorker, StartCodecWorker } from "./codec/codec.js";
export type { BlockCount } from "./core/block-counts.js";
export type { ArenaCounters, PoolCounters } from "./core/counters.js";
export type { EndingWorker } from "./core/lane-watch.js";
export type { LockCounters, SharedArena } from "./core/lanes.js";
export type { MemoryFactory } from "./core/linear-memory.js";
export type { WasmSource } from "./core/module-instance.js";
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
export {
  HARDWARE_PROFILES,
  type HardwareProfile,
  type MachineFacts,
  type TierFigures,
} from "./hardware/hardware-profile.js";
export type {
  IdleEnd,
  LifetimeAge,
  LifetimePredictor,
  LifetimeSample,
} from "./lifetime/lifetime-predictor.js";
export type { ArenaShelfStats, PoolArena } from "./memory/arena-shelf.js";
export type {
  AttachedMemory,
  AttachedPin,
  AttachedStats,
  AttachedTensor,
  WorkerTensorOptions,
} from "./memory/attached-memory.js";
export type { CompactionOptions } from "./memory/auto-compaction.js";
export type { BrowserStoreOptions } from "./memory/browser-store-options.js";
export type { BudgetCategory, BudgetStats } from "./memory/budget.js";
export type { CodecOptions, CodecRule } from "./memory/codec-options.js";
export type { CompactionResult } from "./memory/compactor.js";
export type { MemoryEvent } from "./memory/events.js";
export type { FeatureOptions } from "./memory/feature-options.js";
export type { FragmentationLevel } from "./memory/fragmentation.js";
export type { LeakStats } from "./memory/leak-watch.js";
export type {
  CompactionTotals,
  MemoryPool,
  PoolFreeSpace,
  PoolStats,
} from "./memory/memory-pool.js";
export type {
  LifetimeOptions,
  TensorExtent,
  TensorMemoryOptions,
  TensorOptions,
} from "./memory/options.js";
export type { Pin, PinAccess } from "./memory/pin.js";
export type { Scope } from "./memory/scope.js";
export type { Seams } from "./memory/seams.js";
export type { Tensor } from "./memory/tensor.js";
export type { MemoryToken, TensorMessage } from "./memory/tokens.js";
export type { Predictor } from "./predictor/predictor.js";
export type { StoredObject, TierPredictor } from "./predictor/tier-predictor.js";
export type { Random } from "./random.js";
export type {
  CodecFeature,
  FeatureAmount,
  FeatureChange,
  FeatureMode,
  FeatureName,
  FeatureStats,
} from "./stats/feature.js";
export { formatBytes, formatPercent, formatTable } from "./stats/format.js";
export type { MappedArena, MappedBlock, MemoryMap } from "./stats/memory-map.js";
export type { MemoryStats, ObservedStats } from "./stats/memory-stats.js";
export type { LatencyStats, SeriesSample, SeriesStats } from "./stats/recording.js";
export type { StatsSink } from "./stats/stats-sink.js";
export type { TensorMemory } from "./tensor-memory.js";
export type { FileLock, FileReader, FileSystem, FileWriter } from "./tier/file-system.js";
export type {
  ObjectHints,
  Tier,
  TierCapabilities,
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
export type { PrivateBytes } from "./util/private-bytes.js";
export { ViewAllocator, type ViewAllocatorOptions, type ViewBlock } from "./view-allocator.js";

/**
 * A shared memory for this worker; see `memory.share()`.
 *
 * @throws {MisuseError} `bad-option` — not a token, or used before.
 */
export async function attachTensorMemory(token: MemoryToken): Promise<AttachedMemory> {
  const attached = await import("./memory/attached-memory.js");
  return attached.AttachedMemory.attach(token);
}
