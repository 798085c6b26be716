/** A figure as it is kept: what it is, what printed it, and its last runs. */
export interface KeptFigure {
  readonly id: string;
  readonly unit?: string | undefined;
  readonly target?: number | undefined;
  readonly beside?: string | undefined;
  readonly command?: string | undefined;
  readonly seed?: number | undefined;
  readonly node?: string | undefined;
  /** `load` is what else the machine did. */
  readonly runs: readonly {
    readonly value: number;
    readonly met?: boolean;
    readonly load?: number;
  }[];
}

/** What benches and harnesses write with `--json`. */
export interface FigureReport {
  readonly environment?: { readonly node?: string; readonly load?: number };
  readonly command?: string;
  readonly seed?: number;
  readonly figures: readonly {
    readonly id: string;
    readonly value: number;
    readonly unit?: string;
    readonly target?: number;
    readonly met?: boolean;
    readonly beside?: unknown;
  }[];
}

export function fill(document: string, figures: readonly KeptFigure[]): string;
export function shownIds(documents: readonly string[]): (id: string) => boolean;
export function take(
  kept: readonly KeptFigure[],
  report: FigureReport,
  options?: { readonly isFresh?: boolean },
): KeptFigure[];
