/** A figure as it is kept: what it is, and its last runs. */
export interface KeptFigure {
  readonly id: string;
  readonly unit?: string | undefined;
  readonly target?: number | undefined;
  readonly beside?: string | undefined;
  readonly node?: string | undefined;
  readonly runs: readonly { readonly value: number; readonly met?: boolean }[];
}

export interface FigureReport {
  readonly environment?: { readonly node?: string };
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
export function take(kept: readonly KeptFigure[], report: FigureReport): KeptFigure[];
export function readFigures(): KeptFigure[];
