// Conformance suites of the small seams: `clock.ts`, `random.ts`, `stats/stats-sink.ts` and
// `hardware/hardware-profile.ts`.
import type { Clock } from "../clock.js";
import type { HardwareProfile } from "../hardware/hardware-profile.js";
import type { Random } from "../random.js";
import type { StatsSink } from "../stats/stats-sink.js";
import { assert, assertEqual, type ConformanceCase } from "./conformance.js";

/** A clock to test; `pass` makes that much time pass, or leaves it to pass by itself. */
export interface ClockFixture {
  readonly clock: Clock;
  pass(delayMs: number): void;
}

/** @param make Gives the clock under test. */
export function clockConformance(make: () => Promise<ClockFixture>): ConformanceCase[] {
  return [
    {
      name: "never goes back",
      run: async () => {
        const { clock, pass } = await make();
        let lastMs = clock.monotonicMs();
        for (let step = 0; step < 100; step++) {
          pass(1);
          const nowMs = clock.monotonicMs();
          assert(nowMs >= lastMs, "monotonicMs went back");
          lastMs = nowMs;
        }
        assert(Number.isFinite(clock.wallMs()), "wallMs is not a number");
      },
    },
    {
      name: "sleeps at least as long as asked, and until a later turn",
      run: async () => {
        const { clock, pass } = await make();
        for (const delayMs of [0, 2]) {
          const startMs = clock.monotonicMs();
          let isAwake = false;
          const sleep = clock.sleep(delayMs).then(() => {
            isAwake = true;
          });
          await Promise.resolve();
          assert(!isAwake, "sleep ended in the same turn");
          pass(delayMs);
          await sleep;
          // Timers of some platforms are up to a millisecond early on the monotonic clock.
          assert(clock.monotonicMs() - startMs >= delayMs - 1, "sleep ended early");
        }
      },
    },
  ];
}

/** @param make Gives the generator under test. */
export function randomConformance(make: () => Promise<Random>): ConformanceCase[] {
  return [
    {
      name: "draws integers of 32 bits that use every bit",
      run: async () => {
        const random = await make();
        let ones = 0;
        let zeros = 0;
        for (let draw = 0; draw < 200; draw++) {
          const value = random.uint32();
          assert(
            Number.isInteger(value) && value >= 0 && value < 2 ** 32,
            `${value} is out of range`,
          );
          ones |= value;
          zeros |= ~value;
        }
        assertEqual(ones, -1, "bits that were ever 1");
        assertEqual(zeros, -1, "bits that were ever 0");
      },
    },
    {
      name: "does not repeat itself at once",
      run: async () => {
        const random = await make();
        const drawn = new Set(Array.from({ length: 1000 }, () => random.uint32()));
        assert(drawn.size > 995, `only ${drawn.size} of 1000 numbers differ`);
      },
    },
  ];
}

/** @param make Gives the sink under test. */
export function statsSinkConformance(make: () => Promise<StatsSink>): ConformanceCase[] {
  return [
    {
      name: "takes counts and times and never throws",
      run: async () => {
        const sink = await make();
        for (const value of [0, 1, 0.5, 2 ** 53]) {
          sink.count("test.count", value);
          sink.time("test.time", value);
        }
      },
    },
  ];
}

/** @param make Gives the profile under test. */
export function hardwareProfileConformance(
  make: () => Promise<HardwareProfile>,
): ConformanceCase[] {
  const isPowerOfTwo = (value: number) => Number.isInteger(Math.log2(value));
  return [
    {
      name: "has usable figures",
      run: async () => {
        const profile = await make();
        const { granuleBytes, arenaBytesMax, chunkBytes, queueDepth, ramBudgetBytes } = profile;
        assert(profile.name.length > 0, "the name is empty");
        assert(isPowerOfTwo(granuleBytes), "granuleBytes is not a power of two");
        assert(granuleBytes >= 16 && granuleBytes <= 2 ** 20, "granuleBytes is out of range");
        assert(isPowerOfTwo(arenaBytesMax), "arenaBytesMax is not a power of two");
        assert(
          arenaBytesMax >= 2 ** 20 && arenaBytesMax <= 2 ** 32,
          "arenaBytesMax is out of range",
        );
        assert(chunkBytes >= 65536, "chunkBytes is below 64 KiB");
        assert(Number.isInteger(queueDepth) && queueDepth >= 1, "queueDepth is below 1");
        assert(ramBudgetBytes >= 4 * 2 ** 20, "ramBudgetBytes is below 4 MiB");
      },
    },
  ];
}
