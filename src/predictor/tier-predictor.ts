// Seam: when an object of a tier will be used again.

/** One object, as far as a prediction may know it. */
export interface StoredObject {
  readonly kind: string;
  readonly byteLength: number;
  /** Milliseconds between its last two uses; null before its second. */
  readonly intervalMs: number | null;
}

export interface TierPredictor {
  readonly name: string;
  /** Notes that an object was used again, `intervalMs` after the use before. */
  observe(object: StoredObject): void;
  /** Expected milliseconds from one use of the object to the next, or null when nothing is known. */
  expectedReuseMs(object: StoredObject): number | null;
}
