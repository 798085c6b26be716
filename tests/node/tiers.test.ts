// A memory over several tiers, on real directories: what is found where, what a restart finds, what
// expires, what namespaces hide, what deletion reaches, and whether loading is worth it.
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { TensorMemoryOptions } from "../../src/memory/options.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { manualClock, memoryTier, seededRandom } from "../../src/testing/index.js";
import type { Tier } from "../../src/tier/tier.js";
import { closeMemory, openMemory, withSeed } from "../support/oracle.js";
import { flipByte } from "../support/tiers.js";

const MIB = 2 ** 20;
const code = (name: string) => expect.objectContaining({ code: name });
const parents: string[] = [];

afterEach(async () => {
  for (const parent of parents.splice(0)) await rm(parent, { recursive: true, force: true });
});

async function places() {
  const parent = await mkdtemp(join(tmpdir(), "tierheap-tiers-"));
  parents.push(parent);
  return { ssd: { directory: join(parent, "ssd") }, hdd: { directory: join(parent, "hdd") } };
}

const openTiers = (options: TensorMemoryOptions) =>
  openMemory({
    // Every level gets as many bytes as there are.
    codecs: { default: "raw" },
    ...options,
    budgets: { ram: "16MiB", warm: "2MiB", ssd: "4MiB", hdd: "32MiB", ...options.budgets },
  });

function fill(memory: TensorMemory, id: string, byteLength: number, value: number): void {
  const tensor = memory.allocate({ kind: "KV_CACHE", id, byteLength });
  using pin = tensor.pin();
  pin.view.fill(value);
}

async function holds(memory: TensorMemory, id: string, value: number): Promise<boolean> {
  using lease = await memory.acquire(id, { access: "read" });
  if (lease === null) return false;
  return lease.view.every((byte) => byte === value);
}

async function idsOf(memory: TensorMemory): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of memory.list()) ids.push(id);
  return ids.sort();
}

describe("a memory over RAM, SSD and HDD", () => {
  it("holds records in fewer bytes in its warm tier, unless told not to", async () => {
    const bytesIn = async (options: TensorMemoryOptions) => {
      const memory = await openMemory({
        ...(await places()),
        ...options,
        budgets: { ram: "16MiB", warm: "2MiB", ssd: "4MiB" },
      });
      fill(memory, "chat/1", MIB / 4, 7);
      expect(await memory.swapOut("chat/1")).toBe("stored");
      expect(await holds(memory, "chat/1", 7)).toBe(true);
      const warm = memory.stats().tiers[1];
      expect(warm).toMatchObject({ name: "warm", objectCount: 1 });
      return warm?.storedBytes ?? 0;
    };
    expect(await bytesIn({})).toBeLessThan(MIB / 32);
    expect(await bytesIn({ codecs: { default: "raw" } })).toBeGreaterThan(MIB / 4);
  });

  it("finds everything again, inside every budget, and counts where", async () => {
    const memory = await openTiers(await places());
    const count = 80;
    for (let index = 0; index < count; index++) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB / 4 });
      fill(memory, `chat/${index}`, MIB / 4, index + 1);
    }
    for (let index = 0; index < count; index++) await memory.swapOut(`chat/${index}`);
    for (let index = 0; index < count; index++) {
      expect(await holds(memory, `chat/${index}`, index + 1), `chat/${index}`).toBe(true);
    }
    const { tiers, lookups, transfers, budget } = memory.stats();
    expect(tiers.map(({ name }) => name)).toEqual(["ram", "warm", "ssd", "hdd"]);
    expect(tiers.map(({ priority }) => priority)).toEqual([0, 1, 2, 3]);
    for (const { name, physicalBytes, capacityBytes, objectCount } of tiers) {
      expect(physicalBytes, name).toBeLessThanOrEqual(capacityBytes);
      if (name !== "ram") expect(objectCount, name).toBeGreaterThan(0);
    }
    expect(budget.byCategory.warm).toBe(2 * MIB);
    // Each lookup was a hit in RAM, or a load from exactly one of the tiers.
    const [ram, ...below] = tiers;
    const loads = below.reduce((sum, tier) => sum + tier.loads, 0);
    expect((ram?.hits ?? 0) + loads).toBe(lookups.lookups);
    expect(loads).toBe(transfers.swapInCount);
    expect(below.at(-1)?.loads).toBeGreaterThan(0);
    for (const { name, demotions } of below.slice(0, -1)) {
      expect(demotions, name).toBeGreaterThan(5);
    }
    expect(memory.report()).toContain("hdd");
  });

  it("finds saved and swapped-out tensors after a restart", async () => {
    const where = await places();
    const first = await openTiers(where);
    for (let index = 0; index < 12; index++) {
      fill(first, `chat/${index}`, MIB / 2, index + 1);
      if (index % 2 === 0) await first.save(`chat/${index}`, { mode: "durable" });
      await first.swapOut(`chat/${index}`);
    }
    await closeMemory(first);
    const second = await openTiers(where);
    for (let index = 0; index < 12; index++) {
      expect(await holds(second, `chat/${index}`, index + 1), `chat/${index}`).toBe(true);
    }
  });

  it("deletes from every tier", async () => {
    const where = await places();
    const memory = await openTiers(where);
    for (let index = 0; index < 12; index++) {
      fill(memory, `chat/${index}`, MIB / 2, 1);
      await memory.save(`chat/${index}`);
      await memory.swapOut(`chat/${index}`);
    }
    for (let index = 0; index < 12; index++)
      expect(await memory.delete(`chat/${index}`)).toBe(true);
    for (let index = 0; index < 12; index++) {
      expect(await memory.acquire(`chat/${index}`)).toBe(null);
    }
    expect(
      memory
        .stats()
        .tiers.slice(1)
        .map((tier) => tier.objectCount),
    ).toEqual([0, 0, 0]);
    await closeMemory(memory);
    for (const { directory } of [where.ssd, where.hdd]) {
      expect((await readdir(directory)).filter((name) => name.endsWith(".tensor"))).toEqual([]);
    }
    const again = await openTiers(where);
    expect(await idsOf(again)).toEqual([]);
  });

  it("gives the right bytes to many at once, whatever moves meanwhile", async () => {
    const where = await places();
    await withSeed("many at once", async (seed) => {
      const random = seededRandom(seed);
      const draw = (count: number) => random.uint32() % count;
      const memory = await openTiers({ ...where, budgets: { ssd: "3MiB" } });
      const values = new Map<string, number>();
      const ids = Array.from({ length: 60 }, (_, index) => `chat/${index}`);
      for (const id of ids) {
        const byteLength = 1000 + draw(300_000);
        await memory.reserve({ kind: "KV_CACHE", bytes: byteLength });
        fill(memory, id, byteLength, 1);
        values.set(id, 1);
      }
      const work = async (id: string) => {
        for (let round = 0; round < 12; round++) {
          const kind = draw(10);
          if (kind < 5) expect(await holds(memory, id, values.get(id) ?? 0), id).toBe(true);
          else if (kind < 7) {
            using lease = await memory.acquire<"u8">(id);
            const value = 1 + draw(200);
            lease?.view.fill(value);
            values.set(id, value);
          } else if (kind < 8) await memory.save(id, { mode: draw(2) === 0 ? "cache" : "durable" });
          else await memory.swapOut(id);
        }
      };
      await Promise.all(ids.map(work));
      const moved = memory.stats().tiers.map(({ demotions, promotions }) => demotions + promotions);
      expect(moved.slice(1).reduce((sum, count) => sum + count)).toBeGreaterThan(30);
      for (const { name, physicalBytes, capacityBytes } of memory.stats().tiers) {
        expect(physicalBytes, name).toBeLessThanOrEqual(capacityBytes);
      }
      await closeMemory(memory);
      const again = await openTiers({ ...where, budgets: { ssd: "3MiB" } });
      let foundCount = 0;
      for (const id of ids) {
        // What was hot and neither saved nor swapped out is gone.
        using lease = await again.acquire(id, { access: "read" });
        if (lease !== null) foundCount += 1;
      }
      expect(foundCount).toBeGreaterThan(30);
    });
  });

  it("moves nothing that does not fit its digest", async () => {
    const { hdd } = await places();
    const inner = memoryTier({ name: "ssd", capacityBytes: 2 * MIB });
    let isFlipping = false;
    let flipCount = 0;
    const tier: Tier = {
      ...inner,
      capabilities: {
        isPersistent: true,
        hasDurableCommit: true,
        needsReadBack: false,
        readsInPlace: false,
      },
      openRead: async (key) => {
        const reader = await inner.openRead(key);
        if (reader === null) return null;
        const read: typeof reader.read = async (offset, ...targets) => {
          const count = await reader.read(offset, ...targets);
          if (isFlipping && count > 1000) {
            flipCount += 1;
            flipByte(targets, 1000);
          }
          return count;
        };
        return { ...reader, read };
      },
    };
    const memory = await openMemory({
      budgets: { ram: "16MiB", hdd: "32MiB" },
      hdd,
      seams: { tier },
    });
    const swapOut = async (from: number, to: number) => {
      for (let index = from; index < to; index++) {
        fill(memory, `chat/${index}`, MIB / 4, index + 1);
        await memory.swapOut(`chat/${index}`);
      }
    };
    await swapOut(0, 6);
    isFlipping = true;
    await swapOut(6, 16);
    isFlipping = false;
    expect(flipCount).toBeGreaterThan(3);
    for (let index = 0; index < 16; index++) {
      expect(await holds(memory, `chat/${index}`, index + 1), `chat/${index}`).toBe(true);
    }
  });

  it("is what it was with an SSD alone", async () => {
    const { ssd } = await places();
    const memory = await openMemory({ budgets: { ram: "16MiB", ssd: "4MiB" }, ssd });
    fill(memory, "a", MIB, 7);
    await memory.swapOut("a");
    expect(await holds(memory, "a", 7)).toBe(true);
    expect(memory.stats().tier.name).toBe("ssd");
    const [ram, below] = memory.stats().tiers;
    expect([ram?.hits, below?.name, below?.hits, below?.misses]).toEqual([0, "ssd", 1, 0]);
  });

  it("refuses budgets that do not fit, and tiers that are nothing", async () => {
    await expect(openMemory({ budgets: { ram: "8MiB", warm: "8MiB" } })).rejects.toEqual(
      code("bad-size"),
    );
    await expect(openMemory({ budgets: { remote: "8MiB" } })).rejects.toEqual(code("bad-option"));
    await expect(openMemory({ hdd: { directory: "" } })).rejects.toEqual(code("bad-option"));
    await expect(openMemory({ remote: {} as never })).rejects.toEqual(code("bad-option"));
  });
});

describe("what expires", () => {
  it("is not found any more, resident or after a restart", async () => {
    const where = await places();
    const clock = manualClock({ sleeping: "skip" });
    const seams = { clock };
    const first = await openTiers({ ...where, seams });
    fill(first, "short", 1000, 1);
    fill(first, "long", 1000, 2);
    await first.save("short", { ttlMs: 5000 });
    await first.save("long", { ttlMs: 50_000 });
    await first.swapOut("short");
    expect(await holds(first, "short", 1)).toBe(true);
    await first.swapOut("short");
    clock.advance(5000);
    expect(await first.acquire("short")).toBe(null);
    expect(await idsOf(first)).toEqual(["long"]);
    // The tensor lives on while it is resident.
    fill(first, "resident", 1000, 3);
    await first.save("resident", { ttlMs: 10 });
    clock.advance(20);
    expect(await holds(first, "resident", 3)).toBe(true);
    await closeMemory(first);
    const second = await openTiers({ ...where, seams });
    expect(await idsOf(second)).toEqual(["long"]);
    expect(await second.acquire("resident")).toBe(null);
    expect(await holds(second, "long", 2)).toBe(true);
    clock.advance(50_000);
    await second.swapOut("long");
    expect(await second.acquire("long")).toBe(null);
    expect(second.stats().tier.objectCount).toBe(0);
  });

  it("is saved anew when the time changes, and refused when it is no time", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const memory = await openTiers({ ...(await places()), seams: { clock } });
    fill(memory, "a", 1000, 1);
    await memory.save("a", { ttlMs: 1000 });
    await memory.save("a");
    await memory.swapOut("a");
    clock.advance(10_000);
    expect(await holds(memory, "a", 1)).toBe(true);
    for (const ttlMs of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      await expect(memory.save("a", { ttlMs })).rejects.toEqual(code("bad-size"));
    }
  });
});

describe("namespaces", () => {
  it("never see each other's tensors in one pair of directories", async () => {
    const where = await places();
    const namespaces = [
      { tenant: "one", fingerprint: "model@1" },
      { tenant: "two", fingerprint: "model@1" },
      { tenant: "one", fingerprint: "model@2" },
      { tenant: "onemodel@1", fingerprint: "" },
    ];
    for (const [index, namespace] of namespaces.entries()) {
      const memory = await openTiers({ ...where, namespace });
      expect(await idsOf(memory)).toEqual([]);
      expect(await memory.acquire("chat")).toBe(null);
      expect(await memory.delete("chat")).toBe(false);
      fill(memory, "chat", MIB, index + 1);
      await memory.save("chat");
      await memory.swapOut("chat");
      await closeMemory(memory);
    }
    for (const [index, namespace] of namespaces.entries()) {
      const memory = await openTiers({ ...where, namespace });
      expect(await holds(memory, "chat", index + 1)).toBe(true);
      await closeMemory(memory);
    }
  });
});

describe("loading or computing again", () => {
  it("is decided by what was measured", async () => {
    const clock = manualClock({ sleeping: "skip" });
    const inner = memoryTier({ capacityBytes: 32 * MIB });
    let msPerRead = 0;
    const tier = {
      ...inner,
      openRead: async (key: string) => {
        const reader = await inner.openRead(key);
        if (reader === null) return null;
        const read: typeof reader.read = async (offset, ...targets) => {
          clock.advance(msPerRead);
          return reader.read(offset, ...targets);
        };
        return { ...reader, read };
      },
    };
    const memory = await openMemory({ seams: { clock, tier } });
    fill(memory, "a", MIB, 1);
    expect(await memory.estimateRestore("a")).toMatchObject({ restoreMs: 0, byteLength: MIB });
    expect(await memory.estimateRestore("nobody")).toBe(null);
    await memory.swapOut("a");
    // Nothing was measured: it is loaded, and so measured.
    expect((await memory.estimateRestore("a"))?.restoreMs).toBe(null);
    msPerRead = 20;
    (await memory.acquire("a", { access: "read", recomputeMs: 1 }))?.[Symbol.dispose]();
    await memory.swapOut("a");
    const estimate = await memory.estimateRestore("a");
    expect(estimate?.restoreMs).toBeGreaterThan(20);
    const restoreMs = estimate?.restoreMs ?? 0;
    expect(await memory.acquire("a", { recomputeMs: restoreMs * 0.9 })).toBe(null);
    expect(memory.tensor("a")?.isResident).toBe(false);
    const lease = await memory.acquire("a", { access: "read", recomputeMs: restoreMs * 1.1 });
    expect(lease).not.toBe(null);
    lease?.[Symbol.dispose]();
    // What is resident costs nothing.
    (await memory.acquire("a", { access: "read", recomputeMs: 0 }))?.[Symbol.dispose]();
    expect(memory.stats().lookups.declined).toBe(1);
    await expect(memory.acquire("a", { recomputeMs: -1 })).rejects.toEqual(code("bad-option"));
    await expect(memory.acquire("a", { recomputeMs: Number.NaN })).rejects.toEqual(
      code("bad-option"),
    );
  });
});
