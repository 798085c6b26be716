// transformers.js over the heap: `tierheap/adapters/transformers`. Needs `@huggingface/transformers`
// beside it, which the caller imports.
export type {
  LibraryModel,
  LibraryTensor,
  LibraryTensorClass,
  TokenIds,
} from "./transformers/library.js";
export {
  createPastKeyValues,
  type PastKeyValues,
  type PastKeyValuesOptions,
  type PastKeyValuesStats,
} from "./transformers/past-key-values.js";
