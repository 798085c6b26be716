// Conformance suites of the seams in `policy/`.
import type { AdmissionPolicy } from "../policy/admission-policy.js";
import type { EvictionPolicy } from "../policy/eviction-policy.js";
import { seededRandom } from "../random.js";
import { assert, assertEqual, type ConformanceCase } from "./conformance.js";

const order = (policy: EvictionPolicy) => [...policy.candidates()].join(" ");

/** What a policy does not promise, and why. */
export interface EvictionPolicyLacks {
  /** Set where entries do not leave in the order in which they came. */
  readonly orderOfArrival?: string;
}

/** @param make Gives a fresh policy that tracks nothing. */
export function evictionPolicyConformance(
  make: () => Promise<EvictionPolicy>,
  lacks: EvictionPolicyLacks = {},
): ConformanceCase[] {
  return [
    {
      name: "has no candidates at first",
      run: async () => assertEqual(order(await make()), "", "candidates"),
    },
    {
      name: "offers every tracked entry once, whatever was touched",
      run: async () => {
        const policy = await make();
        const random = seededRandom(1);
        const tracked = new Set<number>();
        for (let step = 0; step < 2000; step++) {
          const index = random.uint32() % 200;
          if (!tracked.has(index)) {
            policy.track({ index, bytes: 64 });
            tracked.add(index);
          } else if (random.uint32() % 3 === 0) {
            policy.untrack(index);
            tracked.delete(index);
            if (random.uint32() % 2 === 0) policy.forget(index);
          } else if (step % 3 === 0) {
            const chain = [...tracked].filter(() => random.uint32() % 4 === 0);
            policy.touchChain(chain, { stopReason: "tool", outputTokens: step });
          } else {
            policy.touch(index);
          }
          if (step % 50 > 0) continue;
          const offered = [...policy.candidates()];
          assertEqual(offered.length, tracked.size, "number of candidates");
          assertEqual(new Set(offered).size, tracked.size, "number of different candidates");
          assert(
            offered.every((at) => tracked.has(at)),
            "a candidate is not tracked",
          );
        }
      },
    },
    {
      name: "gives the same order for the same calls, whatever was untracked and forgotten between",
      run: async () => {
        const [one, other] = [await make(), await make()];
        const random = seededRandom(2);
        const tracked = new Set<number>();
        const both = (call: (policy: EvictionPolicy) => void) => {
          call(one);
          call(other);
        };
        for (let step = 0; step < 1000; step++) {
          const index = random.uint32() % 60;
          const action = random.uint32() % 5;
          if (action === 0) {
            both((policy) => policy.forget(index));
            tracked.delete(index);
          } else if (!tracked.has(index)) {
            both((policy) => policy.track({ index, bytes: 1 + (index % 7) }));
            tracked.add(index);
          } else if (action === 1) {
            both((policy) => policy.untrack(index));
            tracked.delete(index);
          } else if (action === 2) {
            const chain = [...tracked].filter((at) => (at + step) % 3 === 0);
            both((policy) => policy.touchChain(chain, { turn: 1 + (step % 9), newBlocks: step }));
          } else {
            both((policy) => policy.touch(index));
          }
          if (step % 25 > 0) continue;
          assertEqual(order(one), order(other), "candidates");
          assertEqual([...one.candidates()].length, tracked.size, "number of candidates");
        }
        for (const index of tracked) both((policy) => policy.forget(index));
        assertEqual(order(one), "", "candidates when all is forgotten");
      },
    },
    {
      name: "lets the caller untrack the candidate that it was given last",
      run: async () => {
        const policy = await make();
        for (let index = 0; index < 10; index++) policy.track({ index, bytes: 1 });
        const seen: number[] = [];
        for (const index of policy.candidates()) {
          seen.push(index);
          if (index % 2 === 0) policy.untrack(index);
        }
        assertEqual(seen.length, 10, "number of candidates");
        assertEqual([...policy.candidates()].length, 5, "number of candidates left");
      },
    },
    {
      name: "takes an index again once it was untracked",
      run: async () => {
        const policy = await make();
        policy.track({ index: 3, bytes: 1 });
        policy.untrack(3);
        assertEqual(order(policy), "", "candidates");
        policy.track({ index: 3, bytes: 2 });
        assertEqual(order(policy), "3", "candidates");
      },
    },
    {
      name: "forgets what is tracked, and what it never saw",
      run: async () => {
        const policy = await make();
        policy.forget(7);
        for (const index of [5, 1]) policy.track({ index, bytes: 1 });
        policy.forget(5);
        assertEqual(order(policy), "1", "candidates");
        policy.track({ index: 5, bytes: 1 });
        assertEqual([...policy.candidates()].length, 2, "number of candidates");
      },
    },
    {
      name: "offers what was tracked first, before anything was touched",
      skip: lacks.orderOfArrival,
      run: async () => {
        const policy = await make();
        for (const index of [5, 1, 900, 3]) policy.track({ index, bytes: 1 });
        assertEqual(order(policy), "5 1 900 3", "candidates");
      },
    },
  ];
}

/** @param make Gives the policy under test. */
export function admissionPolicyConformance(
  make: () => Promise<AdmissionPolicy>,
): ConformanceCase[] {
  return [
    {
      name: "answers for every size with a boolean",
      run: async () => {
        const policy = await make();
        for (const bytes of [1, 65536, 2 ** 32 - 1]) {
          assertEqual(
            typeof policy.admit({ index: 0, bytes }),
            "boolean",
            `admit of ${bytes} bytes`,
          );
        }
        policy.touch(0);
        policy.want(1);
        policy.forget(0);
        policy.forget(2);
        assert(policy.name.length > 0, "the name is empty");
      },
    },
  ];
}
