// Seam: whether a tensor may enter a colder tier. It is asked for demotions that are a choice; an
// only copy that must leave is never refused.
import type { PolicyEntry } from "./eviction-policy.js";

export interface AdmissionPolicy {
  readonly name: string;
  admit(candidate: PolicyEntry): boolean;
}
