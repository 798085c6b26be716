// Anything at all as an argument of the public calls: a typed error or a result, and a sound memory.
import fc from "fast-check";
import { describe, it } from "vitest";
import { BuddyAllocator, TierheapError } from "../../src/index.js";
import { createTensorMemory } from "../../src/node.js";
import { memoryTier } from "../../src/testing/index.js";
import { checkQuiet, openMemory, SEED } from "../support/oracle.js";

// biome-ignore lint/suspicious/noExplicitAny: wrong types are the point of this file.
type Any = any;

describe("fuzz", () => {
  const parameters = { seed: SEED, numRuns: 300 };
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSparseArray: true,
  });
  const typed = async (work: () => unknown): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof TierheapError)) throw error;
    }
  };

  it("answers anything with a typed error or a result", async () => {
    const memory = (await openMemory({ seams: { tier: memoryTier() } })) as Any;
    await fc.assert(
      fc.asyncProperty(anything, anything, async (first, second) => {
        for (const call of ["allocate", "tryAllocate", "reserve", "compact", "scope", "events"]) {
          await typed(() => memory[call](first));
        }
        for (const call of [
          "acquire",
          "tryAcquire",
          "acquireChain",
          "prefetch",
          "save",
          "swapOut",
          "delete",
          "free",
          "tensor",
          "touchChain",
        ]) {
          await typed(() => memory[call](first, second));
        }
        await typed(() => memory.list(first).next());
        checkQuiet(memory);
      }),
      parameters,
    );
  });

  it("answers almost right options with a typed error or a tensor", async () => {
    const memory = (await openMemory()) as Any;
    const options = fc.record(
      {
        kind: fc.oneof(fc.constantFrom("KV_CACHE", "ACTIVATIONS"), anything),
        shape: fc.oneof(fc.array(fc.oneof(fc.nat(64), fc.double(), fc.maxSafeInteger())), anything),
        dtype: fc.oneof(fc.constantFrom("f32", "f16", "i64", "bool"), anything),
        byteLength: fc.oneof(fc.nat(1 << 20), fc.double(), anything),
        alignment: fc.oneof(
          fc.nat(20).map((shift) => 2 ** shift),
          anything,
        ),
        id: fc.oneof(fc.string({ unit: "binary" }), anything),
        zero: anything,
      },
      { requiredKeys: ["kind"] },
    );
    await fc.assert(
      fc.asyncProperty(options, async (given) => {
        await typed(() => memory.allocate(given).free());
        checkQuiet(memory);
      }),
      parameters,
    );
  });

  it("opens with anything, or refuses it with a typed error", async () => {
    const options = fc.record(
      {
        profile: fc.oneof(fc.constantFrom("generic", "phone"), anything),
        budgets: fc.oneof(fc.record({ ram: fc.oneof(fc.constant("4MiB"), anything) }), anything),
        pools: anything,
        namespace: anything,
        debug: anything,
        seams: anything,
        wasm: anything,
        signal: anything,
      },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(options, async (given) => {
        await typed(async () => (await createTensorMemory(given as Any)).close());
      }),
      parameters,
    );
    await fc.assert(
      fc.asyncProperty(anything, async (given) => {
        await typed(async () => (await BuddyAllocator.create(given as Any)).verify());
      }),
      parameters,
    );
  });
});
