// The only source of time, and of turns of the event loop, in the library. Layer 0.

/** Seam: real in production, manual in tests. */
export interface Clock {
  /** Milliseconds since some origin; never goes back. For ages and durations. */
  monotonicMs(): number;
  /** Milliseconds since 1970; may jump. Only for labels and record generations. */
  wallMs(): number;
  /** Resolves after at least `delayMs`, in a later turn of the event loop. */
  sleep(delayMs: number): Promise<void>;
}

/** The platform's own clock. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs)),
};
