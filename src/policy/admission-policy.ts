// Seam: whether a victim may enter a colder tier. What becomes of one that is refused is the caller's
// business: a heap keeps it resident, and when all are refused, the request that wanted their room
// fails; a cache drops it.
import type { PolicyEntry } from "./eviction-policy.js";

export interface AdmissionPolicy {
  readonly name: string;
  /**
   * Asked once for every victim. For a clean one the answer is not heeded: it is in the tier already.
   */
  admit(candidate: PolicyEntry): boolean;
  /** An entry was used while it was hot. */
  touch(index: number): void;
  /** An entry was wanted that was not hot, wherever it was. */
  want(index: number): void;
  /** The number will mean another tensor, or none. */
  forget(index: number): void;
}
