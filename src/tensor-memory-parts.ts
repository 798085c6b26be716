// What presets/ composes, and a memory is made of.
import type { Directory } from "./cache/directory.js";
import type { Disposables } from "./cache/disposables.js";
import type { GpuLevel } from "./cache/gpu-level.js";
import type { Guards } from "./cache/guards.js";
import type { HeldBlocks } from "./cache/held-blocks.js";
import type { HierarchicalCache } from "./cache/hierarchical-cache.js";
import type { LifetimeCollector } from "./cache/lifetime-collector.js";
import type { MemorySwapper } from "./cache/memory-swapper.js";
import type { Prefetcher } from "./cache/prefetcher.js";
import type { PressureWatch } from "./cache/pressure-watch.js";
import type { Reclaimer } from "./cache/reclaimer.js";
import type { RepeatedTensors } from "./cache/repeated-tensors.js";
import type { SharedTensors } from "./cache/shared-tensors.js";
import type { TensorAllocator } from "./cache/tensor-allocator.js";
import type { TierStack } from "./cache/tier-stack.js";
import type { TransferEngine } from "./cache/transfer-engine.js";
import type { Workers } from "./cache/workers.js";
import type { Clock } from "./clock.js";
import type { ControlPlane } from "./core/control-plane.js";
import type { HardwareProfile } from "./hardware/hardware-profile.js";
import type { ArenaShelf } from "./memory/arena-shelf.js";
import type { AutoCompaction } from "./memory/auto-compaction.js";
import type { Budget } from "./memory/budget.js";
import type { Compactor } from "./memory/compactor.js";
import type { EventHub } from "./memory/events.js";
import type { MemoryPool } from "./memory/memory-pool.js";
import type { EvictionPolicy } from "./policy/eviction-policy.js";
import type { ObservedStats } from "./stats/memory-stats.js";
import type { TensorKind } from "./types.js";

/** Everything that a memory is made of. */
export interface TensorMemoryParts {
  readonly profile: HardwareProfile;
  readonly core: ControlPlane;
  readonly compactor: Compactor;
  /** null: compaction is on demand. */
  readonly autoCompaction: AutoCompaction | null;
  readonly budget: Budget;
  readonly shelf: ArenaShelf;
  readonly pools: ReadonlyMap<TensorKind, MemoryPool>;
  readonly directory: Directory;
  readonly engine: TransferEngine;
  /** The engine's tier, when it is several. */
  readonly stack: TierStack | null;
  readonly gpu: GpuLevel | null;
  readonly swapper: MemorySwapper;
  readonly cache: HierarchicalCache;
  readonly reclaimer: Reclaimer;
  readonly disposables: Disposables;
  readonly watch: PressureWatch;
  /** null: it was switched off. */
  readonly collector: LifetimeCollector | null;
  readonly policy: EvictionPolicy;
  readonly prefetcher: Prefetcher;
  readonly allocator: TensorAllocator;
  readonly sharing: SharedTensors;
  readonly repeated: RepeatedTensors;
  readonly held: HeldBlocks;
  /** Only in debug mode. */
  readonly guards: Guards | null;
  /** Balances of the optimisations, latencies, samples. */
  readonly observer: { stats(): ObservedStats };
  readonly clock: Clock;
  readonly events: EventHub;
  readonly workers: Workers;
  readonly isDurable: boolean;
}
