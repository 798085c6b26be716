// Who leaves when room is needed, and what a memory shows of what is stored.
import { describe, expect, it } from "vitest";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { allocateFilled, collect, expectFilled, onMemory } from "../support/filled.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";

const MIB = 2 ** 20;

describe("pressure", () => {
  it("demotes in LRU order when room is reserved", async () => {
    const memory = await onMemory();
    for (let index = 0; index < 10; index++) allocateFilled(memory, `t${index}`, MIB, index);
    for (const id of ["t0", "t3"]) memory.tryAcquire(id, { access: "read" })?.[Symbol.dispose]();
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 8 });
    const left = Array.from({ length: 10 }, (_, index) => `t${index}`).filter(
      (id) => memory.tensor(id)?.isResident,
    );
    expect(left.length).toBeGreaterThan(1);
    expect(left.length).toBeLessThan(10);
    expect(left).toEqual(
      ["t0", "t3", ...["t9", "t8", "t7", "t6", "t5", "t4"].slice(0, left.length - 2)].sort(),
    );
    for (let index = 0; index < 10; index++) await expectFilled(memory, `t${index}`, MIB, index);
  });

  it("takes a chain's tail before its head", async () => {
    const memory = await onMemory();
    const chain = Array.from({ length: 6 }, (_, index) => `chain/${index}`);
    for (const id of chain) allocateFilled(memory, id, MIB, 1);
    const leases = await memory.acquireChain(chain, { access: "read" });
    for (const lease of leases ?? []) lease[Symbol.dispose]();
    memory.touchChain(chain);
    const gone: string[] = [];
    for (let count = 7; gone.length < 6; count++) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count });
      for (const id of chain) {
        if (!memory.tensor(id)?.isResident && !gone.includes(id)) gone.push(id);
      }
    }
    expect(gone).toEqual([...chain].reverse());
  });

  it("gives a chain back whole or not at all", async () => {
    const memory = await onMemory();
    allocateFilled(memory, "a", 10, 1);
    expect(await memory.acquireChain(["a", "missing"])).toBeNull();
    memory.free("a");
  });

  it("says what would help when there is no tier, or a full one", async () => {
    for (const tier of [undefined, memoryTier({ capacityBytes: 3 * MIB })]) {
      const memory = await openMemory(tier && { seams: { tier } });
      for (let index = 0; index < 8; index++) allocateFilled(memory, `t${index}`, MIB, index);
      const error = await memory
        .reserve({ kind: "KV_CACHE", bytes: MIB, count: 12 })
        .catch((reason) => reason);
      expect(error).toMatchObject({ code: "out-of-memory", requestedBytes: MIB });
      expect(error.advice).toMatch(/full or switched off/);
      expect(error.remediesTried).toContain("demote");
      for (let index = 0; index < 8; index++) {
        if (memory.tensor(`t${index}`)?.isResident)
          await expectFilled(memory, `t${index}`, MIB, index);
      }
    }
  });

  it("leaves pinned tensors and anonymous ones alone", async () => {
    const memory = await onMemory();
    const named = allocateFilled(memory, "a", MIB, 1);
    const anonymous = memory.allocate({ kind: "KV_CACHE", byteLength: MIB });
    using _pin = named.pin();
    await expect(
      memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 100 }),
    ).rejects.toMatchObject({ code: "out-of-memory", pinnedBytes: MIB });
    expect(named.isResident && anonymous.isResident).toBe(true);
    _pin[Symbol.dispose]();
    anonymous.free();
  });
});

describe("list and namespaces", () => {
  it("lists by prefix: tensors first, then records", async () => {
    const files = memoryFileSystem();
    const first = await openOn(files);
    for (const id of ["chat/1/a", "chat/1/b", "chat/2/a"]) allocateFilled(first, id, 10, 1);
    await first.save("chat/1/a");
    await first.save("chat/2/a");
    await closeMemory(first);
    const second = await openOn(files);
    allocateFilled(second, "chat/1/new", 10, 1);
    const listed = await collect(second.list({ prefix: "chat/1/" }));
    expect(listed.map(({ id, isResident, isSaved }) => [id, isResident, isSaved])).toEqual([
      ["chat/1/new", true, false],
      ["chat/1/a", false, true],
    ]);
  });

  it("shows a namespace nothing of another", async () => {
    const files = memoryFileSystem();
    const spaces = [
      { tenant: "a", fingerprint: "bc" },
      { tenant: "ab", fingerprint: "c" },
      { tenant: "", fingerprint: "abc" },
      { tenant: "A", fingerprint: "bc" },
    ];
    for (const [index, namespace] of spaces.entries()) {
      const memory = await openOn(files, { namespace });
      expect(await memory.acquire("x")).toBeNull();
      expect(await collect(memory.list())).toEqual([]);
      allocateFilled(memory, "x", 100, index);
      await memory.save("x");
      await closeMemory(memory);
    }
    for (const [index, namespace] of spaces.entries()) {
      const memory = await openOn(files, { namespace });
      await expectFilled(memory, "x", 100, index);
      await closeMemory(memory);
    }
  });
});
