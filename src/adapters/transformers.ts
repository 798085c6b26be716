// transformers.js over the heap: `tierheap/adapters/transformers`. Needs `@huggingface/transformers`
// beside it, which the caller imports.
export type { Fetch } from "./transformers/download.js";
export type {
  LibraryModel,
  LibraryTensor,
  LibraryTensorClass,
  TokenIds,
} from "./transformers/library.js";
export {
  createModelCache,
  type ModelCache,
  type ModelCacheOptions,
  type ModelCacheStats,
  type PutProgress,
} from "./transformers/model-cache.js";
export {
  createPastKeyValues,
  type PastKeyValues,
  type PastKeyValuesOptions,
  type PastKeyValuesStats,
} from "./transformers/past-key-values.js";
export type { SaveOptions } from "./transformers/saved-index.js";
