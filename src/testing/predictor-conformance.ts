// Conformance suites of the seams `predictor/predictor.ts`, `predictor/tier-predictor.ts` and
// `lifetime/lifetime-predictor.ts`.
import type { LifetimePredictor, LifetimeSample } from "../lifetime/lifetime-predictor.js";
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
  const toldMs = Number.POSITIVE_INFINITY;
  const sample: LifetimeSample = { kind: "KV_CACHE", bytes: 4096, site: "prefill", toldMs };
  const other: LifetimeSample = { ...sample, site: "other" };
  let nowMs = 0;
  /** Of a tensor that is allocated when the one before has ended. */
  const ageOf = (ageMs: number, idleMs: number, useCount: number) => {
    nowMs += ageMs + 1;
    return { ageMs, idleMs, useCount, nowMs };
  };
  const old = ageOf(1e9, 1e9, 1);
  /** Tensors of a site that are used once, after `idleMs`, and freed `idleMs` after that. */
  const teach = (predictor: LifetimePredictor, site: LifetimeSample, idleMs: number) => {
    for (let round = 0; round < 500; round++) {
      predictor.observe(site, ageOf(idleMs, idleMs, 0), "used");
      predictor.observe(site, ageOf(2 * idleMs, idleMs, 1), "freed");
    }
  };
  return [
    {
      name: "calls nothing over of which nobody has told anything",
      run: async () => {
        const predictor = await make();
        assertEqual(predictor.expectedMs(sample), Number.POSITIVE_INFINITY, "expected lifetime");
        assert(!predictor.isOver(sample, old), "a tensor of an unknown site is over");
        teach(predictor, other, 10);
        assert(!predictor.isOver(sample, old), "another site's history counts");
      },
    },
    {
      name: "expects a lifetime above zero, or Infinity",
      run: async () => {
        const predictor = await make();
        for (const idleMs of [0, 1e-9, 5, 1e300, Number.POSITIVE_INFINITY]) {
          teach(predictor, sample, idleMs);
          const expectedMs = predictor.expectedMs(sample);
          assert(expectedMs > 0, `the expected lifetime is ${expectedMs}`);
          predictor.isOver(sample, ageOf(idleMs, idleMs, 1));
        }
      },
    },
    {
      name: "does not call over what has just been used and always is again",
      run: async () => {
        const predictor = await make();
        for (let round = 0; round < 2000; round++) {
          predictor.observe(sample, ageOf(10 * (round + 1), 10, round % 8), "used");
          if (round % 8 === 7) predictor.observe(sample, ageOf(80, 10, 8), "freed");
        }
        assert(!predictor.isOver(sample, ageOf(20, 1, 2)), "it is over, and would be used again");
      },
    },
    {
      name: "survives a census with tensors, and one without any",
      run: async () => {
        const predictor = await make();
        predictor.endCensus();
        for (let round = 0; round < 100; round++) predictor.observe(sample, old, "alive");
        predictor.endCensus();
        predictor.endCensus();
        const expectedMs = predictor.expectedMs(sample);
        assertEqual(expectedMs, Number.POSITIVE_INFINITY, "of those alone that still live");
      },
    },
    {
      name: "gives the same answers to the same history",
      run: async () => {
        const [one, two] = [await make(), await make()];
        for (const predictor of [one, two]) teach(predictor, sample, 40);
        for (const idleMs of [0, 10, 50, 500]) {
          const age = ageOf(100 + idleMs, idleMs, 1);
          assertEqual(one.isOver(sample, age), two.isOver(sample, age), "the answer");
        }
        assertEqual(one.expectedMs(sample), two.expectedMs(sample), "the expected lifetime");
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
