// Shapes that come again and again. Layer 0.

/** Shapes of the models that tierheap was made for, in elements. */
export const FIXED_SHAPES = {
  /** Scores of [heads, queries, keys]. */
  attention: [8, 1024, 1024],
  /** Keys or values of [batch, heads, tokens, headDim]. */
  kv: [1, 32, 2048, 128],
  /** Embeddings of [batch, patches, features]. */
  vision: [1, 576, 1152],
  /** Activations of [batch, tokens, features]. */
  activations: [1, 1024, 4096],
} as const;
