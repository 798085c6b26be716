// Conformance suites of the seams `predictor/predictor.ts`, `predictor/tier-predictor.ts` and
// `lifetime/lifetime-predictor.ts`.
import type { LifetimePredictor } from "../lifetime/lifetime-predictor.js";
import type { Predictor } from "../predictor/predictor.js";
import type { TierPredictor } from "../predictor/tier-predictor.js";
import { assert, assertEqual, type ConformanceCase } from "./conformance.js";

/** @param make Gives a predictor that has observed nothing. */
export function predictorConformance(make: () => Promise<Predictor>): ConformanceCase[] {
  return [
    {
      name: "predicts only ids that it has observed, and each once",
      run: async () => {
        const predictor = await make();
        const known = new Set<string>();
        for (let step = 0; step < 200; step++) {
          const id = `chat/${(step * 7) % 13}`;
          known.add(id);
          const predicted = predictor.observe("stream", id);
          assert(
            predicted.every((next) => known.has(next)),
            "an unknown id is predicted",
          );
          assertEqual(new Set(predicted).size, predicted.length, "number of different ids");
          assert(!predicted.includes(id), "the id that was just used is predicted");
        }
      },
    },
    {
      name: "does not mix streams",
      run: async () => {
        const predictor = await make();
        for (let step = 0; step < 20; step++) {
          for (const id of ["a", "b", "c"]) predictor.observe("one", id);
          const predicted = predictor.observe("two", `x${step}`);
          const isMixed = predicted.some((id) => ["a", "b", "c"].includes(id));
          assert(!isMixed, "an id of another stream is predicted");
        }
      },
    },
  ];
}

/** @param make Gives a predictor that has observed nothing. */
export function lifetimePredictorConformance(
  make: () => Promise<LifetimePredictor>,
): ConformanceCase[] {
  const sample = { kind: "KV_CACHE", bytes: 4096, tag: "prefill" } as const;
  return [
    {
      name: "expects a lifetime above zero, or Infinity",
      run: async () => {
        const predictor = await make();
        assert(predictor.expectedMs(sample) > 0, "the expected lifetime is not above zero");
        for (let step = 1; step < 100; step++) predictor.observe(sample, step);
        assert(predictor.expectedMs(sample) > 0, "the expected lifetime is not above zero");
        assert(predictor.expectedMs({ ...sample, tag: "other" }) > 0, "another tag has none");
      },
    },
    {
      name: "survives lifetimes of zero and of Infinity",
      run: async () => {
        const predictor = await make();
        predictor.observe(sample, 0);
        predictor.observe(sample, Number.POSITIVE_INFINITY);
        assert(!Number.isNaN(predictor.expectedMs(sample)), "the expected lifetime is NaN");
      },
    },
  ];
}

/** @param make Gives a predictor that has observed nothing. */
export function tierPredictorConformance(make: () => Promise<TierPredictor>): ConformanceCase[] {
  const sample = { kind: "KV_CACHE", byteLength: 65536, intervalMs: null } as const;
  const isSound = (ms: number | null) => ms === null || (ms >= 0 && !Number.isNaN(ms));
  return [
    {
      name: "knows nothing before it has observed anything",
      run: async () => {
        const predictor = await make();
        assertEqual(predictor.expectedReuseMs(sample), null, "the expected interval");
      },
    },
    {
      name: "expects no negative interval, whatever it observes",
      run: async () => {
        const predictor = await make();
        for (const intervalMs of [0, 1, 1e12, 5, Number.POSITIVE_INFINITY, 7]) {
          for (let step = 0; step < 10; step++) predictor.observe({ ...sample, intervalMs });
          const expected = predictor.expectedReuseMs(sample);
          assert(isSound(expected), `the expected interval is ${expected}`);
        }
        assert(isSound(predictor.expectedReuseMs({ ...sample, kind: "other" })), "another kind");
        assert(isSound(predictor.expectedReuseMs({ ...sample, byteLength: 0 })), "another length");
      },
    },
  ];
}
