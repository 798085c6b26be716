// The codecs by themselves: `tierheap/codecs`. Nothing here needs a tensor memory.
export {
  AdaptiveCompressor,
  type AdaptiveCompressorOptions,
  type Compressed,
  type ErrorBudget,
  type TensorContext,
} from "./codec/adaptive-compressor.js";
export { type Allocation, allocateBytes, type Bidder, type Offer } from "./codec/allocate.js";
export type { AttentionContext } from "./codec/attention-replay.js";
export { byteTargets } from "./codec/byte-targets.js";
export type { Candidate, ErrorMetric } from "./codec/candidates.js";
export type {
  ByteTargets,
  EncodedPart,
  PartLimit,
  TargetTensor,
  TensorPart,
  UnitCoder,
} from "./codec/codec.js";
export type { CodecEngine, EncodedUnit } from "./codec/engine.js";
export type { Sections } from "./codec/format.js";
export {
  type CodecName,
  type ParsedUnit,
  parseUnit,
  type UnitHeader,
  type Variant,
} from "./codec/format.js";
export { exportGguf, type GgufType, importGguf } from "./codec/gguf.js";
export { compressBy, type Strategy } from "./codec/strategies.js";
export { compressStream, decompressStream } from "./codec/stream.js";
export type { Choice, Matrix } from "./codec/unit-header.js";
export type { Basis, BasisBits, BasisParts } from "./kv/forms/basis.js";
export {
  type LowRankOptions,
  openPageForms,
  type PageForms,
  type PageFormsOptions,
} from "./kv/forms/page-forms.js";
export type { CodeBits } from "./kv/forms/sides.js";
export type { KvLayerShape, PageForm } from "./kv/page-form.js";
