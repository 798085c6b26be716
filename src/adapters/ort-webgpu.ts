// Decoding with onnxruntime-web's WebGPU provider over KV in buffers of the GPU, with a heap behind them:
// `tierheap/adapters/ort-webgpu`. Needs `onnxruntime-web` beside it, which the caller imports.
export { ModelError, type ModelErrorCode } from "./onnx/model-error.js";
export {
  GpuBufferPool,
  type GpuBufferPoolOptions,
  type GpuBufferPoolStats,
  gpuClassBytes,
} from "./ort/gpu-buffer-pool.js";
export type { GpuCacheOptions, OrtGpuCache } from "./ort/gpu-cache.js";
export {
  type OrtGpuDecoder,
  type OrtGpuDecoderOptions,
  type OrtGpuDecoderStats,
  type OrtGpuNamespace,
  type OrtGpuStep,
  openOrtGpuDecoder,
} from "./ort/gpu-decoder.js";
export type { GpuEncoder, GpuErrorFilter } from "./ort/gpu-device.js";
export {
  type GpuAdapter,
  type GpuBuffer,
  type GpuDevice,
  requestGpuDevice,
} from "./ort/gpu-device.js";
export { greedyToken } from "./ort/logits.js";
