// `tierheap/adapters/safetensors` in Node: as safetensors.ts, and files by path.
export type { SafetensorsEntry } from "./safetensors/header.js";
export {
  type LoadedSafetensors,
  type LoadedTensor,
  type LoadSafetensorsOptions,
  loadShardedSafetensors,
  type ShardedSource,
} from "./safetensors/load.js";
export { loadSafetensors } from "./safetensors/load-node.js";
export { SafetensorsError, type SafetensorsErrorCode } from "./safetensors/safetensors-error.js";
export {
  type SavedTensor,
  type SaveSafetensorsOptions,
  saveSafetensors,
} from "./safetensors/save.js";
export type { ByteRangeReader, SafetensorsSource } from "./safetensors/source.js";
