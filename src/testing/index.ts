// `tierheap/testing`: a conformance suite for each seam, and doubles for what a test must control.
// Nothing in the library imports this folder.

export type { Arena, ArenaFactory } from "../arena/arena.js";
export { systemClock } from "../clock.js";
export type { Codec, CodecWorkers, CodedPart, CodedParts, DecodeJob } from "../codec/codec.js";
export { seededRandom } from "../random.js";
export type { MemoryTierOptions } from "../tier/memory.js";
export { memoryTier } from "../tier/memory.js";
export { nullTier } from "../tier/null.js";
export { arenaConformance } from "./arena-conformance.js";
export { codecConformance } from "./codec-conformance.js";
export { type ConformanceCase, ConformanceError } from "./conformance.js";
export { crashStates, type Disk } from "./crash-states.js";
export { type CountingMemory, countingMemory } from "./failing-memory.js";
export {
  type FaultCode,
  type FaultPlan,
  type FaultyFileSystem,
  faultyFileSystem,
} from "./faulty-file-system.js";
export {
  type FileSystemFixture,
  type FileSystemLacks,
  fileSystemConformance,
} from "./file-system-conformance.js";
export {
  type HistoriesOptions,
  type HistoriesReport,
  type HistoryMemory,
  type JoinedGetsReport,
  runHistories,
  runJoinedGets,
} from "./histories.js";
export { PLANTED_HISTORY_BUGS, type PlantedBug } from "./history-bugs.js";
export {
  isLinearizable,
  OPERATION_COUNT_MAX,
  type RegisterOperation,
} from "./linearizability.js";
export { type ManualClock, type ManualClockOptions, manualClock } from "./manual-clock.js";
export {
  type FileOperation,
  type MemoryFileSystem,
  memoryFileSystem,
} from "./memory-file-system.js";
export { type PageFormFixture, pageFormConformance } from "./page-form-conformance.js";
export {
  type ClockFixture,
  clockConformance,
  hardwareProfileConformance,
  randomConformance,
  statsSinkConformance,
} from "./platform-conformance.js";
export {
  admissionPolicyConformance,
  type EvictionPolicyLacks,
  evictionPolicyConformance,
} from "./policy-conformance.js";
export {
  lifetimePredictorConformance,
  predictorConformance,
  tierPredictorConformance,
} from "./predictor-conformance.js";
export { statsProblems } from "./stats-problems.js";
export type { Attempt } from "./store-crashes.js";
export {
  type CrashReport,
  exploreCrashes,
  PLANTED_BUGS,
  runStoreWorkload,
  type StoreWorkload,
  type StoreWorkloadOptions,
} from "./store-crashes.js";
export { exploreFlips, type FlipReport, flippableStore } from "./store-flips.js";
export { type TierFixture, type TierLacks, tierConformance } from "./tier-conformance.js";
