// Leases on a whole chain, where those that came first are in the way of the last.
import { describe, expect, it } from "vitest";
import { leaseAll } from "../../src/cache/chain-leases.js";
import { createTensorMemory, OutOfMemoryError } from "../../src/node.js";
import { temporaryDirectory } from "../support/directories.js";

const full = () =>
  new OutOfMemoryError({
    ...{ requestedBytes: 1, freeBytes: 2, largestFreeBlockBytes: 0, pinnedBytes: 1 },
    ...{ budgetBytes: 4, remediesTried: [], advice: "none" },
  });

describe("leases on a chain", () => {
  /** Ids that are leased now. */
  const leased = new Set<string>();
  const leaseOf = (id: string) => {
    leased.add(id);
    return { [Symbol.dispose]: () => void leased.delete(id) };
  };

  it("are tried again once the tensors were brought in one by one", async () => {
    const brought: string[] = [];
    const lease = async (id: string) => {
      if (id === "c" && brought.length === 0) throw full();
      return leaseOf(id);
    };
    const bringIn = async (id: string) => {
      expect(leased.size).toBe(0);
      brought.push(id);
    };
    expect(await leaseAll(["a", "b", "c"], lease, bringIn)).toHaveLength(3);
    expect(brought).toEqual(["a", "b", "c"]);
    expect([...leased]).toEqual(["a", "b", "c"]);
    leased.clear();
  });

  it("are given back when there is no room at all, and tried a few times only", async () => {
    let count = 0;
    const lease = async (id: string) => {
      if (id === "b") throw full();
      return leaseOf(id);
    };
    const trying = leaseAll(["a", "b"], lease, async () => {
      count += 1;
    });
    await expect(trying).rejects.toBeInstanceOf(OutOfMemoryError);
    expect(leased.size).toBe(0);
    expect(count).toBeLessThanOrEqual(6);
  });

  it("are none when one is unknown", async () => {
    const lease = async (id: string) => (id === "b" ? null : leaseOf(id));
    expect(await leaseAll(["a", "b"], lease, async () => {})).toBeNull();
    expect(leased.size).toBe(0);
  });
});

it("a chain that fits comes in, wherever its tensors were pinned before", async () => {
  const directory = await temporaryDirectory();
  const budgets = { ram: "16MiB", ssd: "64MiB" };
  const memory = await createTensorMemory({ budgets, ssd: { directory } });
  try {
    // Eight of these fit, but not when six arenas have one in their middle.
    const byteLength = 734_208;
    const chains = [0, 1, 2].map((chain) =>
      Array.from({ length: 8 }, (_, index) => `${chain}/${index}`),
    );
    for (const ids of chains) {
      for (const id of ids) {
        await memory.reserve({ kind: "KV_CACHE", bytes: byteLength });
        memory.allocate({ kind: "KV_CACHE", id, byteLength });
      }
      for (let filler = 0; filler < 5; filler++) {
        const bytes = 100_000 + 50_000 * filler;
        await memory.reserve({ kind: "KV_CACHE", bytes });
        memory.allocate({ kind: "KV_CACHE", id: `${ids[0]}-${filler}`, byteLength: bytes });
      }
    }
    for (let round = 0; round < 12; round++) {
      const leases = await memory.acquireChain(chains[round % 3] as string[], { access: "read" });
      expect(leases).toHaveLength(8);
      for (const lease of leases ?? []) lease[Symbol.dispose]();
    }
    expect(memory.verify().problems).toEqual([]);
  } finally {
    await memory.close();
  }
});
