// Plans by shapes alone: `tierheap/plan`. Needs no memory.
export type { KvForm } from "./plan/kv-bytes.js";
export type { MemoryPlan, PlannedKind, PlannedSpeed, PlannedTier } from "./plan/memory-plan.js";
export { type KvDtype, MODEL_SHAPES, type ModelShape, type VisionShape } from "./plan/models.js";
export { planMemory } from "./plan/plan-memory.js";
export type { ColdTier, PlanRequest, TierSpeed } from "./plan/plan-request.js";
export { formatPlan } from "./plan/plan-text.js";
