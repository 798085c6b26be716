// What makes room without waiting, and in which order.

/** What may make room for a request. */
export type Remedy =
  | "add-arena"
  | "release-idle"
  | "drop-guesses"
  | "evict-clean"
  | "compact"
  | "drop-disposable";

/** What needs no waiting, in the order in which it is tried. */
export const SYNCHRONOUS_REMEDIES: readonly Remedy[] = [
  "add-arena",
  "release-idle",
  "drop-guesses",
  "evict-clean",
  "compact",
  "drop-disposable",
];

/** The same for a caller that may wait: what was used leaves in the policy's order, clean or not. */
export const REMEDIES_BEFORE_VICTIMS: readonly Remedy[] = [
  "add-arena",
  "release-idle",
  "drop-guesses",
  "compact",
];
