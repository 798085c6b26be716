// Safetensors files into the heap and out of it: `tierheap/adapters/safetensors`.
export type { SafetensorsEntry } from "./safetensors/header.js";
export {
  type LoadedSafetensors,
  type LoadedTensor,
  type LoadSafetensorsOptions,
  loadSafetensors,
  loadShardedSafetensors,
  type ShardedSource,
} from "./safetensors/load.js";
export { SafetensorsError, type SafetensorsErrorCode } from "./safetensors/safetensors-error.js";
export {
  type SavedTensor,
  type SaveSafetensorsOptions,
  saveSafetensors,
} from "./safetensors/save.js";
export type { ByteRangeReader, SafetensorsSource } from "./safetensors/source.js";
