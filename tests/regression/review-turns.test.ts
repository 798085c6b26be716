// Faults that a review found by doing something in every turn of something else.
// Digests are computed at once here, so that all work is microtasks and every
// turn of it is reached.
import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Pin } from "../../src/memory/pin.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { allocateFilled, expectFilled } from "../support/filled.js";
import { abandon, openMemory } from "../support/oracle.js";

const TURN_COUNT_MAX = 500;

beforeEach(() => {
  vi.spyOn(crypto.subtle, "digest").mockImplementation(async (_algorithm, input) => {
    const digest = createHash("sha256")
      .update(input as Uint8Array)
      .digest();
    return new Uint8Array(digest).buffer;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
};

/** What a call returned, or the code of what it threw: only typed errors have one. */
async function outcomeOf(work: Promise<unknown>): Promise<unknown> {
  return work.catch((error: { code?: unknown }) => {
    expect(error.code, String(error)).toBeTypeOf("string");
    return error.code;
  });
}

/**
 * Starts `work` anew and lets ever more turns of it pass before `act`, until it has ended by then.
 *
 * @param prepare Awaited before each start.
 * @param check What must hold afterwards, of the outcome of `work` and what `act` returned.
 */
async function atEveryTurn<T>(
  prepare: () => unknown,
  work: () => Promise<unknown>,
  act: () => T | Promise<T>,
  check: (outcome: unknown, acted: Awaited<T>) => unknown,
): Promise<void> {
  for (let turn = 0; turn < TURN_COUNT_MAX; turn++) {
    await prepare();
    let hasEnded = false;
    const outcome = outcomeOf(work()).finally(() => {
      hasEnded = true;
    });
    await turns(turn);
    const endedBefore = hasEnded;
    try {
      const acted = await act();
      await check(await outcome, acted);
    } catch (error) {
      throw new Error(`after ${turn} turns`, { cause: error });
    }
    if (endedBefore) {
      expect(turn).toBeGreaterThan(10);
      return;
    }
  }
  throw new Error("the work never ended");
}

function expectNoLeak(memory: TensorMemory): void {
  expect(memory.verify().problems).toEqual([]);
  const { pools, tensors } = memory.stats();
  expect(pools.reduce((sum, { liveCount }) => sum + liveCount, 0)).toBe(tensors.hotCount);
}

const openOnTier = (capacityBytes?: number) =>
  openMemory({
    seams: { tier: memoryTier(capacityBytes === undefined ? {} : { capacityBytes }) },
  });

type Call = "save" | "swapOut" | "acquire" | "prefetch" | "save of a cold one";
const CALLS: readonly Call[] = ["save", "swapOut", "acquire", "prefetch", "save of a cold one"];

/** Makes the tensor `a` of the given content ready for a call. */
async function prepare(memory: TensorMemory, call: Call, seed = 1) {
  const tensor = allocateFilled(memory, "a", 5000, seed);
  if (call !== "save" && call !== "swapOut") await memory.swapOut("a");
  return tensor;
}

/** The leases of an acquire are given back in the turn in which they arrive. */
async function run(memory: TensorMemory, call: Call): Promise<unknown> {
  if (call === "prefetch") return memory.prefetch(["a"]);
  if (call === "swapOut") return memory.swapOut("a");
  if (call !== "acquire") return memory.save("a");
  const lease = await memory.acquire("a", { access: "read" });
  lease?.[Symbol.dispose]();
  return lease === null ? "unknown" : "leased";
}

/** `"ok"`, or the code of the error: a lease of the call itself may be open. */
function tryFree(memory: TensorMemory): unknown {
  try {
    memory.tensor("a")?.free();
    return "ok";
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

describe.each(CALLS)("in every turn of: %s", (call) => {
  it("free leaves no block and no stale copy behind", async () => {
    const memory = await openOnTier();
    await atEveryTurn(
      () => prepare(memory, call),
      () => run(memory, call),
      () => tryFree(memory),
      async (outcome, freed) => {
        expectNoLeak(memory);
        if (freed === "pinned") {
          expect(call).toBe("acquire");
          memory.free("a");
        }
        const isSaved = call.startsWith("save") && outcome === "stored";
        if (isSaved) await expectFilled(memory, "a", 5000, 1);
        else if (!call.startsWith("save")) expect(await memory.acquire("a")).toBeNull();
        await memory.delete("a");
        expect(memory.stats().tier.objectCount).toBe(0);
      },
    );
  });

  it("delete leaves nothing behind", async () => {
    const memory = await openOnTier();
    await atEveryTurn(
      () => prepare(memory, call),
      () => run(memory, call),
      () => outcomeOf(memory.delete("a")),
      async (_outcome, deleted) => {
        expectNoLeak(memory);
        if (deleted === "pinned") {
          expect(call).toBe("acquire");
          await memory.delete("a");
        }
        expect(await memory.acquire("a")).toBeNull();
        expect(memory.stats().tier.objectCount).toBe(0);
      },
    );
  });

  it("a pinned tensor is never freed", async () => {
    const memory = await openOnTier();
    await atEveryTurn(
      () => prepare(memory, call),
      () => run(memory, call),
      async () => {
        const pin = memory.tryAcquire("a", { access: "read" });
        if (pin === null) return;
        expect(tryFree(memory)).toBe("pinned");
        expect(await outcomeOf(memory.delete("a"))).toBe("pinned");
        // Whoever gets the block now would overwrite it.
        allocateFilled(memory, "b", 5000, 9).free();
        expect(pin.bytes.findIndex((byte, index) => byte !== ((index * 7 + 1) & 0xff))).toBe(-1);
        pin[Symbol.dispose]();
      },
      async () => {
        expectNoLeak(memory);
        await expectFilled(memory, "a", 5000, 1);
        await memory.delete("a");
      },
    );
  });

  it("the id may be used again at once", async () => {
    const memory = await openOnTier();
    await atEveryTurn(
      () => prepare(memory, call),
      () => run(memory, call),
      async () => {
        if (tryFree(memory) === "pinned") await turns(10);
        tryFree(memory);
        allocateFilled(memory, "a", 7000, 2);
        const moved = await outcomeOf(memory.swapOut("a"));
        // The save of the first may have gone over to the second.
        expect(["stored", "busy", "pinned"]).toContain(moved);
      },
      async () => {
        expectNoLeak(memory);
        await expectFilled(memory, "a", 7000, 2);
        await memory.delete("a");
        expect(memory.stats().tier.objectCount).toBe(0);
      },
    );
  });

  it("close waits for it, and never hangs", async () => {
    let memory: TensorMemory;
    await atEveryTurn(
      async () => {
        memory = await openMemory({ budgets: { ram: "4MiB" }, seams: { tier: memoryTier() } });
        abandon(memory);
        await prepare(memory, call);
      },
      () => run(memory, call),
      () => memory.close(),
      (outcome) => {
        expect([undefined, "stored", "leased", "closed"]).toContain(outcome);
      },
    );
  });
});

describe("acquire", () => {
  it("is not robbed of its tensor by evictions that need no waiting", async () => {
    const memory = await openMemory({ budgets: { ram: "8MiB" }, seams: { tier: memoryTier() } });
    allocateFilled(memory, "a", 5000, 1);
    await memory.swapOut("a");
    const evict = () => {
      const tensors = [];
      for (const byteLength of [2 ** 20, 2 ** 18]) {
        for (;;) {
          const tensor = memory.tryAllocate({ kind: "KV_CACHE", byteLength });
          if (tensor === null) break;
          tensors.push(tensor);
        }
      }
      for (const tensor of tensors) tensor.free();
    };
    await atEveryTurn(
      () => memory.swapOut("a"),
      () => Promise.all([run(memory, "acquire"), run(memory, "acquire")]),
      async () => {
        for (let turn = 0; turn < 5; turn++) {
          evict();
          await Promise.resolve();
        }
      },
      (outcome) => {
        expect(outcome).toEqual(["leased", "leased"]);
      },
    );
    await expectFilled(memory, "a", 5000, 1);
  });

  it("may be aborted in every turn", async () => {
    const memory = await openOnTier();
    let controller = new AbortController();
    allocateFilled(memory, "a", 5000, 1);
    await atEveryTurn(
      () => memory.swapOut("a"),
      async () => {
        controller = new AbortController();
        const lease: Pin | null = await memory.acquire("a", { signal: controller.signal });
        lease?.[Symbol.dispose]();
        return "leased";
      },
      () => controller.abort(),
      async (outcome) => {
        expect(["leased", "aborted"]).toContain(outcome);
        await turns(100);
        expectNoLeak(memory);
        expect(memory.stats().pools[0]?.pinnedCount).toBe(0);
      },
    );
  });
});

describe("in every turn of a store into a full tier that is swept", () => {
  // The second write comes behind the delete, and is not told that the tensor was freed.
  it.each(["swapOut", "save"] as const)("%s: what is deleted stays deleted", async (call) => {
    let memory: TensorMemory;
    await atEveryTurn(
      async () => {
        // The swapped-out copy of a killed process fills the tier.
        const tier = memoryTier({ capacityBytes: 8000 });
        const killed = await openMemory({ budgets: { ram: "4MiB" }, seams: { tier } });
        abandon(killed);
        allocateFilled(killed, "orphan", 5000, 3);
        await killed.swapOut("orphan");
        memory = await openMemory({ budgets: { ram: "4MiB" }, seams: { tier } });
        abandon(memory);
        allocateFilled(memory, "a", 5000, 1);
      },
      () => memory[call]("a"),
      () => memory.delete("a"),
      async () => {
        expectNoLeak(memory);
        expect(await memory.acquire("a")).toBeNull();
      },
    );
  });
});
