// The only source of time, and of turns of the event loop, in the library. Layer 0.

/** Seam: real in production, manual in tests. */
export interface Clock {
  /** Milliseconds since some origin; never goes back. For ages and durations. */
  monotonicMs(): number;
  /** Milliseconds since 1970; may jump. Only for labels and record generations. */
  wallMs(): number;
  /** Resolves after at least `delayMs`, in a later turn of the event loop. */
  sleep(delayMs: number): Promise<void>;
  /**
   * Calls `work` once, after at least `delayMs` and in a later turn of the event loop. Does not keep a
   * process alive that has nothing else to do.
   *
   * @returns Calls it off, if it was not called yet.
   */
  defer(delayMs: number, work: () => void): () => void;
}

/** The platform's own clock. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs)),
  defer: (delayMs, work) => {
    const timer: unknown = setTimeout(work, delayMs);
    // Browsers give a number.
    if (typeof timer === "object") (timer as { unref?(): void }).unref?.();
    return () => clearTimeout(timer as number);
  },
};
