// Decoding with onnxruntime-web's WebGPU provider over KV in buffers of the GPU, with a heap behind them:
// `tierheap/adapters/ort-webgpu`. Needs `onnxruntime-web` beside it, which the caller imports.

export {
  type GpuAdapter,
  type GpuBuffer,
  type GpuDevice,
  type GpuEncoder,
  type GpuErrorFilter,
  requestGpuDevice,
} from "../gpu/gpu-device.js";
export { ModelError, type ModelErrorCode } from "./onnx/model-error.js";
export type { GpuCacheOptions, OrtGpuCache } from "./ort/gpu-cache.js";
export {
  type OrtGpuDecoder,
  type OrtGpuDecoderOptions,
  type OrtGpuDecoderStats,
  type OrtGpuNamespace,
  type OrtGpuStep,
  openOrtGpuDecoder,
} from "./ort/gpu-decoder.js";
export { greedyToken } from "./ort/logits.js";
