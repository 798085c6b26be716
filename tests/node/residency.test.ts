// Where tensors are and how they get there: swapping, saving, joining, aborting, evicting.
import { describe, expect, it } from "vitest";
import { memoryFileSystem, memoryTier } from "../../src/testing/index.js";
import { DTYPE_NAMES, dtypeTraits } from "../../src/types.js";
import { allocateFilled, expectFilled, onMemory } from "../support/filled.js";
import { closeMemory, openMemory, openOn } from "../support/oracle.js";
import { gatedTier } from "../support/tiers.js";

const MIB = 2 ** 20;

describe("swapOut and acquire", () => {
  it.each(DTYPE_NAMES)("round-trip %s", async (dtype) => {
    const memory = await onMemory();
    const tensor = memory.allocate({
      kind: "ACTIVATIONS",
      dtype,
      shape: [3, 5],
      id: "a",
      layout: "nhwc",
    });
    {
      using pin = tensor.pin();
      pin.bytes.forEach((_byte, index, bytes) => {
        bytes[index] = index + 1;
      });
    }
    expect(await memory.swapOut("a")).toBe("stored");
    expect(tensor.isResident).toBe(false);
    expect(() => tensor.pin()).toThrowError(expect.objectContaining({ code: "not-resident" }));
    expect(memory.tryAcquire("a")).toBeNull();
    using lease = await memory.acquire("a");
    expect(lease?.view.constructor).toBe(dtypeTraits(dtype).View);
    expect(lease?.view.length).toBe(15);
    expect([...(lease?.bytes ?? [])]).toEqual(
      Array.from({ length: 15 * dtypeTraits(dtype).elementBytes }, (_, index) => index + 1),
    );
    expect(tensor).toMatchObject({ isResident: true, layout: "nhwc", shape: [3, 5] });
  });

  it.each([1, 239, 240, 256, 65535, 65536, 524_288, 524_289, 3 * MIB + 1])(
    "round-trip %i bytes",
    async (byteLength) => {
      const memory = await onMemory();
      allocateFilled(memory, "a", byteLength, 3);
      await memory.swapOut("a");
      await expectFilled(memory, "a", byteLength, 3);
    },
  );

  it("writes nothing when the tensor is clean, and again after a write", async () => {
    const memory = await onMemory();
    allocateFilled(memory, "a", 1000, 1);
    await memory.swapOut("a");
    const { bytesWritten } = memory.stats().tier;
    await expectFilled(memory, "a", 1000, 1);
    await memory.swapOut("a");
    expect(memory.stats().tier.bytesWritten).toBe(bytesWritten);
    expect(memory.stats().transfers).toMatchObject({ swapOutCount: 1, cleanEvictionCount: 1 });
    (await memory.acquire("a", { access: "write" }))?.[Symbol.dispose]();
    await memory.swapOut("a");
    expect(memory.stats().tier.bytesWritten).toBe(2 * bytesWritten);
    expect(memory.stats().transfers).toMatchObject({ swapOutCount: 2, cleanEvictionCount: 1 });
  });

  it("refuses a pinned tensor and leaves a tensor without room where it is", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier({ capacityBytes: 2000 }) } });
    allocateFilled(memory, "a", 1000, 1);
    allocateFilled(memory, "b", 1000, 2);
    {
      using _pin = memory.tryAcquire("a");
      await expect(memory.swapOut("a")).rejects.toMatchObject({ code: "pinned" });
    }
    expect(await memory.swapOut("a")).toBe("stored");
    expect(await memory.swapOut("b")).toBe("no-space");
    expect(memory.tensor("b")?.isResident).toBe(true);
    await expectFilled(memory, "b", 1000, 2);
    memory.free("a");
  });

  it("may be asked for by many at once", async () => {
    const memory = await openOn(memoryFileSystem());
    allocateFilled(memory, "a", 100_000, 1);
    const outcomes = await Promise.all([
      memory.swapOut("a"),
      memory.save("a"),
      memory.swapOut("a"),
      memory.save("a"),
      memory.save("a", { mode: "durable" }),
    ]);
    expect(outcomes).toEqual(Array(5).fill("stored"));
    await expectFilled(memory, "a", 100_000, 1);
  });
});

describe("lookups", () => {
  it("join one load, however many ask", async () => {
    const memory = await onMemory();
    allocateFilled(memory, "a", 100_000, 1);
    await memory.swapOut("a");
    const leases = await Promise.all(Array.from({ length: 100 }, () => memory.acquire("a")));
    expect(memory.stats().transfers.swapInCount).toBe(1);
    expect(memory.stats().lookups).toMatchObject({ lookups: 100, hits: 0, joins: 99, misses: 1 });
    for (const lease of leases) lease?.[Symbol.dispose]();
    memory.tryAcquire("a")?.[Symbol.dispose]();
    expect(await memory.acquire("unknown")).toBeNull();
    expect(memory.stats().lookups).toMatchObject({ lookups: 102, hits: 1, joins: 99, misses: 2 });
  });

  it("adopt one record of an earlier process, however many ask", async () => {
    const files = memoryFileSystem();
    const first = await openOn(files);
    allocateFilled(first, "a", 5000, 1);
    await first.save("a");
    await closeMemory(first);
    const second = await openOn(files);
    const leases = await Promise.all(
      Array.from({ length: 50 }, () => second.acquire("a", { access: "read" })),
    );
    expect(second.stats().transfers.swapInCount).toBe(1);
    expect(second.stats().tensors.count).toBe(1);
    for (const lease of leases) lease?.[Symbol.dispose]();
    await expectFilled(second, "a", 5000, 1);
  });

  it("leave the others alone when one waiter aborts", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    allocateFilled(memory, "a", 5000, 1);
    await memory.swapOut("a");
    gate.close("read");
    const controller = new AbortController();
    const aborted = memory.acquire("a", { signal: controller.signal });
    const other = memory.acquire("a");
    await gate.waiting;
    controller.abort("enough");
    await expect(aborted).rejects.toMatchObject({ code: "aborted", cause: "enough" });
    gate.open();
    (await other)?.[Symbol.dispose]();
    await expectFilled(memory, "a", 5000, 1);
    await expect(memory.acquire("a", { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "aborted",
    });
  });

  it("remember no failure", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    allocateFilled(memory, "a", 5000, 1);
    await memory.swapOut("a");
    gate.failNext("read");
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => memory.acquire("a")));
    expect(results[0]).toMatchObject({ status: "rejected", reason: { code: "io" } });
    for (const result of results)
      if (result.status === "fulfilled") result.value?.[Symbol.dispose]();
    await expectFilled(memory, "a", 5000, 1);
  });
});

describe("save", () => {
  it("outlives the tensor and the memory", async () => {
    const files = memoryFileSystem();
    const first = await openOn(files);
    allocateFilled(first, "a", 5000, 1);
    allocateFilled(first, "b", 5000, 2);
    await first.save("a");
    await first.swapOut("b");
    await first.save("b");
    first.free("a");
    await closeMemory(first);
    const second = await openOn(files);
    await expectFilled(second, "a", 5000, 1);
    await expectFilled(second, "b", 5000, 2);
  });

  it("is refused while a write pin is open, and busy when one was opened meanwhile", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    // Longer than a staging buffer: not all of it is copied when the first write waits.
    const tensor = allocateFilled(memory, "a", 2 * MIB, 1);
    {
      using _pin = tensor.pin();
      await expect(memory.save("a")).rejects.toMatchObject({ code: "pinned" });
    }
    for (const move of [memory.save.bind(memory), memory.swapOut.bind(memory)]) {
      gate.close("write");
      const moved = move("a");
      await gate.waiting;
      tensor.pin()[Symbol.dispose]();
      gate.open();
      await expect(moved).rejects.toMatchObject({ code: "busy" });
      expect(tensor.isResident).toBe(true);
    }
    expect(await memory.save("a")).toBe("stored");
    await expectFilled(memory, "a", 2 * MIB, 1);
  });

  it("lets readers in while it writes", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    allocateFilled(memory, "a", 5000, 1);
    gate.close("write");
    const saved = memory.save("a");
    await gate.waiting;
    await expectFilled(memory, "a", 5000, 1);
    gate.open();
    expect(await saved).toBe("stored");
  });

  it("tells when the tier is off or full", async () => {
    const memory = await openMemory();
    allocateFilled(memory, "a", 5000, 1);
    expect(await memory.save("a")).toBe("no-space");
    expect(await memory.swapOut("a")).toBe("no-space");
    await expectFilled(memory, "a", 5000, 1);
  });
});

describe("free and delete", () => {
  it("take an owned cold copy along", async () => {
    const files = memoryFileSystem();
    const memory = await openOn(files);
    const tensor = allocateFilled(memory, "a", 5000, 1);
    await memory.swapOut("a");
    expect(memory.stats().tier.objectCount).toBe(1);
    tensor.free();
    expect(() => tensor.free()).toThrowError(expect.objectContaining({ code: "freed" }));
    expect(await memory.acquire("a")).toBeNull();
    expect(memory.stats().tier.objectCount).toBe(0);
    await closeMemory(memory);
    expect(files.files().size).toBe(0);
  });

  it("delete takes the record too, from this memory or an earlier one", async () => {
    const files = memoryFileSystem();
    const first = await openOn(files);
    allocateFilled(first, "a", 10, 1);
    allocateFilled(first, "b", 10, 1);
    await first.save("a");
    await first.save("b");
    expect(await first.delete("a")).toBe(true);
    expect(await first.delete("a")).toBe(false);
    await closeMemory(first);
    const second = await openOn(files);
    expect(await second.acquire("a")).toBeNull();
    expect(await second.delete("b")).toBe(true);
    await closeMemory(second);
    expect(files.files().size).toBe(0);
  });

  it.each(["swapOut", "save"] as const)("may come during %s", async (call) => {
    const files = memoryFileSystem();
    const memory = await openOn(files);
    for (let turns = 0; turns < 40; turns++) {
      allocateFilled(memory, "a", 5000, turns);
      const moved = memory[call]("a");
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      if (memory.tensor("a") !== null) memory.free("a");
      await moved.catch((error) => expect(error.code).toMatch(/unknown-id|busy/));
      if (call === "swapOut") expect(await memory.acquire("a"), `turn ${turns}`).toBeNull();
      await memory.delete("a");
    }
    await closeMemory(memory);
    expect(files.files().size).toBe(0);
  });

  it("may come during a load, and the id may be used again at once", async () => {
    const gate = gatedTier(memoryTier());
    const memory = await openMemory({ seams: { tier: gate.tier } });
    for (const stage of ["read", "write"] as const) {
      allocateFilled(memory, "a", 5000, 1);
      if (stage === "read") await memory.swapOut("a");
      gate.close(stage);
      const first = stage === "read" ? memory.prefetch(["a"]) : memory.swapOut("a");
      await gate.waiting;
      memory.free("a");
      allocateFilled(memory, "a", 7000, 2);
      const second = memory.swapOut("a");
      gate.open();
      await first;
      expect(await second, stage).toBe("stored");
      await expectFilled(memory, "a", 7000, 2);
      memory.free("a");
    }
  });

  it("keep the order of calls on one id", async () => {
    const memory = await onMemory();
    for (let round = 0; round < 200; round++) {
      allocateFilled(memory, "a", 300, round);
      await memory.swapOut("a");
      memory.free("a");
      allocateFilled(memory, "a", 300, round + 1);
      expect(await memory.swapOut("a")).toBe("stored");
      await expectFilled(memory, "a", 300, round + 1);
      memory.free("a");
    }
  });
});
