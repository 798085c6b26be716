// Web Locks: one page or worker at a time. A lock goes when its owner's page or worker ends, however it ends.
import type { Clock } from "../clock.js";

/** Longer ones end at once. */
const TIMER_MS_MAX = 2 ** 31;

/**
 * Takes the lock of that name, waiting in turn for whoever has it.
 *
 * @param waitMs Milliseconds, at most; Infinity: for as long as it takes.
 * @returns A function that gives the lock back, or null when it was not to be had in time.
 */
export function takeWebLock(
  locks: LockManager,
  name: string,
  waitMs: number,
  clock: Clock,
): Promise<(() => void) | null> {
  return new Promise((resolve, reject) => {
    const waiting = new AbortController();
    const forget = waitMs < TIMER_MS_MAX ? clock.defer(waitMs, () => waiting.abort()) : () => {};
    const hold = () => {
      forget();
      return new Promise<void>((release) => resolve(release));
    };
    locks.request(name, { signal: waiting.signal }, hold).catch((error: unknown) => {
      forget();
      if (waiting.signal.aborted) resolve(null);
      else reject(error);
    });
  });
}
