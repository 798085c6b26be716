// Decoding with ONNX Runtime over KV in the heap: `tierheap/adapters/ort`. Needs `onnxruntime-node` or
// `onnxruntime-web` beside it, which the caller imports.
export type { CacheStyle } from "./onnx/decoder-graph.js";
export {
  appendFragment,
  type DeltaPatch,
  type DeltaPlan,
  type DeltaRefusal,
  planDeltaRows,
} from "./onnx/delta-rows.js";
export { ModelError, type ModelErrorCode } from "./onnx/model-error.js";
export type { CacheOptions } from "./ort/cache-plan.js";
export {
  type DecoderMode,
  type OrtDecoder,
  type OrtDecoderOptions,
  type OrtDecoderStats,
  type OrtStep,
  openOrtDecoder,
  type PlainReason,
} from "./ort/decoder.js";
export type { OrtKvCache } from "./ort/kv-cache.js";
export { greedyToken } from "./ort/logits.js";
export type { OrtNamespace } from "./ort/runtime.js";
export type { SaveOptions } from "./ort/saved-tokens.js";
export type { StepArrays } from "./ort/step-inputs.js";
