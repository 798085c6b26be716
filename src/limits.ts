// Limits of what callers may pass. Layer 0: knows nothing else, so that whoever checks loads nothing
// else.

/** A block's length is 32 bits wide in the core. */
export const TENSOR_BYTES_MAX = 2 ** 32 - 1;

/** Longest id in UTF-8 bytes; tenant and fingerprint together take at most a quarter of that. */
export const ID_BYTES_MAX = 49152;
export const NAMESPACE_BYTES_MAX = 4096;

/** Ids of contents begin with it, and no id of a caller's does. */
export const CONTENT_PREFIX = "tierheap/content/";
