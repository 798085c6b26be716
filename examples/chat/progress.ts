/**
 * Shows how far a run has come: on a terminal one line that rewrites itself, elsewhere a plain line
 * now and then, so that logs stay short. It owns no timer: it draws when it is told of progress.
 * Stream and clock come from the caller.
 */

/** The part of a writable stream that this file uses; `process.stderr` is one. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  /** Width of the terminal, in characters. */
  readonly columns?: number;
  write(text: string): unknown;
}

/** How to show progress. */
export interface ProgressOptions {
  readonly stream: ProgressStream;
  /** Monotonic time in milliseconds. */
  readonly now: () => number;
  /** Visits of the whole run, at least 1. */
  readonly visitsTotal: number;
  /** Default: `live` on a terminal, else `plain`. */
  readonly mode?: "live" | "plain";
  /**
   * Longest silence in plain mode, in milliseconds; a line also marks each tenth of the visits.
   * Default: 10,000. Lower prints more often.
   */
  readonly plainIntervalMs?: number;
}

/** State of the run after a visit, or within it. */
export interface ProgressState {
  /** Visits completed. */
  readonly visitsDone: number;
  /** 0-based; shown from 1. */
  readonly chat: number;
  /** Tokens processed so far. */
  readonly tokens: number;
  /** Counters to show behind, for example `hits 12  misses 3  swapped out 40`. */
  readonly counters?: string;
}

/** A running display. */
export interface Progress {
  /** Takes the new state in; draws when enough has changed or enough time has passed. */
  update(state: ProgressState): void;
  /** Writes a line of its own above the display. */
  print(line: string): void;
  /** Removes the live line, or prints the last plain one. Later calls do nothing. */
  stop(): void;
}

const LIVE_INTERVAL_MS = 80;
const PLAIN_INTERVAL_MS = 10_000;
const BAR_CELLS = 16;
const COLUMNS_DEFAULT = 80;

/** Back to the first column; erases from there to the end of the line (ECMA-48, EL). */
const REWRITE = "\r\u001b[K";

/**
 * Starts a display.
 *
 * @throws {RangeError} When `visitsTotal` is not a whole number of at least 1.
 */
export function startProgress(options: ProgressOptions): Progress {
  const { visitsTotal, stream } = options;
  if (!Number.isSafeInteger(visitsTotal) || visitsTotal < 1) {
    throw new RangeError("visitsTotal must be a whole number of at least 1");
  }
  const mode = options.mode ?? (stream.isTTY === true ? "live" : "plain");
  return mode === "live" ? new LiveProgress(options) : new PlainProgress(options);
}

/** One line of text: bar, visit, chat, tokens, counters. */
function render(state: ProgressState, visitsTotal: number): string {
  const done = Math.min(Math.max(state.visitsDone, 0), visitsTotal);
  const cells = Math.floor((done / visitsTotal) * BAR_CELLS);
  const bar = "#".repeat(cells) + "-".repeat(BAR_CELLS - cells);
  const visit = String(done).padStart(String(visitsTotal).length);
  const parts = [
    `[${bar}] visit ${visit}/${visitsTotal}`,
    `chat ${state.chat + 1}`,
    `${state.tokens} tokens`,
  ];
  if (state.counters !== undefined && state.counters !== "") parts.push(state.counters);
  return printable(parts.join("  "));
}

/** Replaces control characters, which could move the cursor, by blanks. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, " ");
}

/** Cuts a line to `columns` characters, the last of them an ellipsis where something is missing. */
function truncated(text: string, columns: number): string {
  const characters = Array.from(text);
  if (characters.length <= columns) return text;
  return columns < 1 ? "" : `${characters.slice(0, columns - 1).join("")}…`;
}

/** Rewrites one line of a terminal. */
class LiveProgress implements Progress {
  readonly #options: ProgressOptions;
  #state: ProgressState | undefined;
  #drawnAtMs = Number.NEGATIVE_INFINITY;
  #isStopped = false;

  constructor(options: ProgressOptions) {
    this.#options = options;
  }

  update(state: ProgressState): void {
    if (this.#isStopped) return;
    this.#state = state;
    const isLast = state.visitsDone >= this.#options.visitsTotal;
    const elapsedMs = this.#options.now() - this.#drawnAtMs;
    if (isLast || elapsedMs >= LIVE_INTERVAL_MS) this.#draw(state);
  }

  print(line: string): void {
    if (this.#isStopped) return;
    this.#options.stream.write(`${REWRITE}${line}\n`);
    if (this.#state !== undefined) this.#draw(this.#state);
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    if (this.#state !== undefined) this.#options.stream.write(REWRITE);
  }

  #draw(state: ProgressState): void {
    const { stream, now, visitsTotal } = this.#options;
    this.#drawnAtMs = now();
    // The last column stays free: some terminals wrap as soon as it is filled.
    const columns = (stream.columns || COLUMNS_DEFAULT) - 1;
    stream.write(REWRITE + truncated(render(state, visitsTotal), columns));
  }
}

/** Prints a line at each tenth of the visits, and after each long silence. */
class PlainProgress implements Progress {
  readonly #options: ProgressOptions;
  #state: ProgressState | undefined;
  #printed: ProgressState | undefined;
  #printedAtMs: number;
  #tenthsPrinted = 0;
  #isStopped = false;

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#printedAtMs = options.now();
  }

  update(state: ProgressState): void {
    if (this.#isStopped) return;
    this.#state = state;
    const { now, visitsTotal, plainIntervalMs = PLAIN_INTERVAL_MS } = this.#options;
    const tenths = Math.floor((state.visitsDone * 10) / visitsTotal);
    const elapsedMs = now() - this.#printedAtMs;
    if (tenths > this.#tenthsPrinted || elapsedMs >= plainIntervalMs) this.#printState(state);
  }

  print(line: string): void {
    if (!this.#isStopped) this.#options.stream.write(`${line}\n`);
  }

  stop(): void {
    if (this.#isStopped) return;
    if (this.#state !== undefined && this.#state !== this.#printed) this.#printState(this.#state);
    this.#isStopped = true;
  }

  #printState(state: ProgressState): void {
    const { stream, now, visitsTotal } = this.#options;
    this.#printed = state;
    this.#printedAtMs = now();
    this.#tenthsPrinted = Math.floor((state.visitsDone * 10) / visitsTotal);
    stream.write(`${render(state, visitsTotal)}\n`);
  }
}
