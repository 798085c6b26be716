// A clock that stands still until it is told to go on.
import { type Clock, systemClock } from "../clock.js";

export interface ManualClock extends Clock {
  /** Lets time pass and wakes who has slept long enough. */
  advance(delayMs: number): void;
  /** Moves only the wall clock, also backwards. */
  setWallMs(wallMs: number): void;
  /** Sleepers that are still asleep. */
  readonly sleeperCount: number;
  /** Work that was deferred, and neither done nor called off. It waits for time to pass, whatever sleeping is. */
  readonly deferredCount: number;
}

export interface ManualClockOptions {
  /** Default: 1,000,000. Both clocks start here. */
  readonly startMs?: number;
  /** `"asleep"` until {@link ManualClock.advance}; `"skip"`: time jumps to the end of each sleep. Default: `"asleep"`. */
  readonly sleeping?: "asleep" | "skip";
}

export function manualClock(options: ManualClockOptions = {}): ManualClock {
  const deferred = new Set<{ readonly atMs: number; readonly work: () => void }>();
  const sleepers = new Set<{ readonly untilMs: number; readonly wake: () => void }>();
  let nowMs = options.startMs ?? 1_000_000;
  let wallAheadMs = 0;
  const advance = (delayMs: number) => {
    nowMs += delayMs;
    for (const sleeper of [...sleepers]) {
      if (sleeper.untilMs > nowMs) continue;
      sleepers.delete(sleeper);
      sleeper.wake();
    }
    for (const each of deferred) if (each.atMs <= nowMs) run(each);
  };
  const run = (each: { readonly atMs: number; readonly work: () => void }) => {
    // In a later turn, and only if it was not called off by then.
    systemClock.defer(0, () => {
      if (deferred.delete(each)) each.work();
    });
  };
  return {
    monotonicMs: () => nowMs,
    wallMs: () => nowMs + wallAheadMs,
    sleep: async (delayMs) => {
      if (options.sleeping === "skip") {
        advance(delayMs);
      } else {
        await new Promise<void>((wake) => {
          sleepers.add({ untilMs: nowMs + delayMs, wake });
        });
      }
      // A sleep ends in a later turn of the event loop, whatever the time.
      await systemClock.sleep(0);
    },
    defer: (delayMs, work) => {
      const each = { atMs: nowMs + delayMs, work };
      deferred.add(each);
      return () => deferred.delete(each);
    },
    advance,
    setWallMs: (wallMs) => {
      wallAheadMs = wallMs - nowMs;
    },
    get sleeperCount() {
      return sleepers.size;
    },
    get deferredCount() {
      return deferred.size;
    },
  };
}
