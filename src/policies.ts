// The subpath `tierheap/policies`: the parts that decide, for whoever wants another one than the
// default. Give them to `createTensorMemory` as `seams`; each serves one memory.
//
//   seams: { predictor: schedulePredictor(layerIds), evictionPolicy: loopPolicy() }

export { type LearntLifetimeOptions, learntLifetime } from "./lifetime/learnt-lifetime.js";
export type {
  IdleEnd,
  LifetimeAge,
  LifetimePredictor,
  LifetimeSample,
} from "./lifetime/lifetime-predictor.js";
export { toldLifetime } from "./lifetime/told-lifetime.js";
export { unknownLifetime } from "./lifetime/unknown-lifetime.js";
export type { AdmissionPolicy } from "./policy/admission-policy.js";
export { admitAll } from "./policy/admit-all.js";
export { type AdmitReusedOptions, admitReused } from "./policy/admit-reused.js";
export { arcPolicy } from "./policy/arc.js";
export type { ChainHints, EvictionPolicy, PolicyEntry } from "./policy/eviction-policy.js";
export { gdsfPolicy } from "./policy/gdsf.js";
export { type LearntOptions, type LearntPolicy, learntPolicy } from "./policy/learnt.js";
export type { LearntStats } from "./policy/learnt-stats.js";
export { lfuPolicy } from "./policy/lfu.js";
export { lirsPolicy } from "./policy/lirs.js";
export { loopPolicy } from "./policy/loop.js";
export { lruPolicy } from "./policy/lru.js";
export { s3FifoPolicy } from "./policy/s3-fifo.js";
export { noPredictor } from "./predictor/none.js";
export type { Predictor } from "./predictor/predictor.js";
export { schedulePredictor } from "./predictor/schedule.js";
export { type SuccessorOptions, successorPredictor } from "./predictor/successor.js";
