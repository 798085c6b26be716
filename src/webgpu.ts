// The GPU above RAM: `tierheap/tiers/webgpu`. Needs a WebGPU device, which the caller opens.
export type { GpuArena, GpuArenaStats, GpuBlock } from "./cache/gpu-arena.js";
export type { GpuBuffers } from "./cache/gpu-buffers.js";
export type { GpuAccess, GpuLease, GpuLevelStats } from "./cache/gpu-lease.js";
export type { GpuLevel } from "./cache/gpu-level.js";
export {
  type GpuAdapter,
  type GpuBuffer,
  type GpuDevice,
  requestGpuDevice,
} from "./gpu/gpu-device.js";
export type { DeviceTier, DeviceTierFactory, DeviceTierStats } from "./tier/device-tier.js";
export { type WebgpuTierOptions, webgpuTier } from "./tier/webgpu.js";
