// Seam: whether a tensor may enter a colder tier. A victim that is refused stays resident; when all
// are refused, the request that wanted their room fails.
import type { PolicyEntry } from "./eviction-policy.js";

export interface AdmissionPolicy {
  readonly name: string;
  admit(candidate: PolicyEntry): boolean;
}
