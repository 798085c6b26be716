// What the learnt order of leaving has to tell. Plain data.

/** What the policy did, for reports and benches. */
export interface LearntStats {
  /** Whether entries leave by rank now, and not by least recent use. */
  readonly isRanking: boolean;
  readonly switchCount: number;
  readonly useCount: number;
  readonly knownCount: number;
  readonly classCount: number;
  readonly byteLength: number;
  /** Milliseconds spent on uses, measured on some of them. */
  readonly spentMs: number;
  /** Hits above those of the order of least recent use, while entries left by rank; negative: below. */
  readonly hitsGained: number;
}
