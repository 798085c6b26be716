// Seam: whether a victim is worth its write to a colder tier. A heap asks for disposable tensors alone,
// and drops what is refused; whatever has one copy only is written.
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
