// Seam: an optimisation that can be switched off alone, and whose cost and gain are metered. Whoever does
// the work asks before it begins, and says what it took and what came of it; what follows from that is the
// governor's business.

/** Optimisations that can be switched on and off, each alone. */
export type FeatureName =
  /** Blocks are moved together in the background. */
  | "compaction"
  /** Guesses of the predictor are brought in ahead of need. What a caller declares always is. */
  | "prefetch"
  /** In a stack of tiers: what is read from a low level gets a copy in a higher one, by its expected reuse. */
  | "placement"
  /** Registered tensors that seem over leave before the others. */
  | "collector"
  /** Disposable tensors that will hardly return are dropped in place of a write. */
  | "admission"
  /** Victims leave by what became of earlier uses like theirs, not by recency alone. */
  | "learntPolicy"
  /** Records are written in fewer bytes where that pays. */
  | "coding"
  /** With `codecs.colder: "smaller"`: records are coded anew on their way down, where that pays. */
  | "transcoding"
  | CodecFeature;

/** One codec. Without it another one is chosen; records that have it can still be read. */
export type CodecFeature =
  | "codec/const"
  | "codec/narrow"
  | "codec/plane"
  | "codec/half"
  | "codec/q8"
  | "codec/q4"
  | "codec/chan"
  | "codec/lm"
  | "codec/sparse"
  | "codec/lowrank";

/** What a caller may say of a feature: as the balance has it; on, whatever it costs; off. */
export type FeatureMode = "auto" | boolean;

/** A switch, and the balance that led to it. */
export interface FeatureChange {
  readonly feature: FeatureName;
  readonly isOn: boolean;
  /** Of its last outcomes, in milliseconds; 0 when it is tried again. */
  readonly costMs: number;
  readonly gainMs: number;
}

/** What a feature took, or gave, since the memory was created. */
export interface FeatureAmount {
  /** Nanoseconds. Spent; or saved, as far as the speed of the tiers has been measured. */
  readonly ns: number;
  /** Moved, coded or brought in; or saved. */
  readonly bytes: number;
  /** Times that it took something; or hits: times that it gave something. */
  readonly count: number;
}

/** The balance of one feature, in the same units for all. */
export interface FeatureStats {
  readonly name: FeatureName;
  /** Whether it works now. */
  readonly isOn: boolean;
  /**
   * Who decides. `"option"`: the caller, by `features`. `"governor"`: the balance of cost and gain of its
   * last outcomes. `"itself"`: what it measures for every decision, so that it is never off as a whole.
   */
  readonly governedBy: "option" | "governor" | "itself";
  readonly cost: FeatureAmount;
  readonly gain: FeatureAmount;
  /** Times that it was switched off because it cost more than it gave. */
  readonly switchedOffCount: number;
}

/** A feature, as whoever carries it out sees it. Times in milliseconds. */
export interface Feature {
  /** Whether it is on. Asking changes nothing. */
  readonly isOn: boolean;
  /** Whether to do it now. A question is an occasion: after enough of them, what is off is tried again. */
  allows(): boolean;
  /** Notes what doing it took. */
  spend(ms: number, bytes: number): void;
  /**
   * Notes what came of it.
   *
   * @param ms null: the bytes count, but nobody can tell yet what they are worth.
   */
  earn(ms: number | null, bytes: number): void;
  /**
   * One outcome is known for good: what it took in all, and what it gave. The balance is made of these.
   *
   * @param gainMs null: it cannot be told, and nothing is concluded.
   */
  settle(costMs: number, gainMs: number | null): void;
}
