/** One run of a bench or harness; see figure-runs.mjs. */
export interface FigureRun {
  readonly group: "timing" | "counts" | "proofs";
  readonly name: string;
  /** From the repository's root. */
  readonly program: string;
  readonly args: readonly string[];
}

export const RUNS: readonly FigureRun[];
