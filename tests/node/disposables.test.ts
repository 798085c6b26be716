// Tensors that may be dropped under pressure: which are, when, and what their owner sees of it.
import { describe, expect, it } from "vitest";
import { admitAll } from "../../src/policy/admit-all.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier } from "../../src/testing/index.js";
import { allocateFilled, collect, expectFilled } from "../support/filled.js";
import { openMemory } from "../support/oracle.js";

const MIB = 2 ** 20;

function allocateDisposable(memory: TensorMemory, id: string, byteLength = MIB, value = 1) {
  const tensor = memory.allocate({ kind: "KV_CACHE", byteLength, id, disposable: true });
  using pin = tensor.pin();
  pin.bytes.fill(value);
  return tensor;
}

/** Wants an id, and makes it again when it is gone. @returns Whether it was found. */
async function findOrMake(memory: TensorMemory, id: string, value: number): Promise<boolean> {
  using lease = await memory.acquire(id, { access: "read" });
  if (lease !== null) {
    expect(lease.bytes.every((byte) => byte === value)).toBe(true);
    return true;
  }
  await memory.reserve({ kind: "KV_CACHE", bytes: MIB });
  allocateDisposable(memory, id, MIB, value);
  return false;
}

describe("a disposable tensor", () => {
  it("is dropped where nothing can be written, and acquire gives null", async () => {
    const memory = await openMemory();
    const events = memory.events();
    const tensors = [0, 1, 2, 3].map((index) => allocateDisposable(memory, `t${index}`));
    allocateFilled(memory, "kept", MIB, 7);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 10 });
    const [first, second] = tensors;
    expect(first?.isFreed).toBe(true);
    expect(await memory.acquire("t0")).toBeNull();
    expect(memory.tryAcquire("t0")).toBeNull();
    expect(memory.tensor("t0")).toBeNull();
    expect(() => first?.pin()).toThrowError(expect.objectContaining({ code: "not-resident" }));
    const { droppedCount, droppedBytes } = memory.stats().disposables;
    expect(droppedCount).toBeGreaterThan(0);
    expect(droppedBytes).toBe(droppedCount * MIB);
    await expectFilled(memory, "kept", MIB, 7);
    const dropped: unknown[] = [];
    while (dropped.length < droppedCount) {
      const { value } = await events.next();
      if (value?.type === "drop") dropped.push(value);
    }
    expect(dropped[0]).toEqual({ type: "drop", id: "t0", bytes: MIB });
    await events.return();
    first?.free();
    if (second?.isFreed === true) second.free();
  });

  it("is what its owner says from then on", async () => {
    const memory = await openMemory();
    const made = allocateDisposable(memory, "made");
    const given = allocateFilled(memory, "given", MIB, 7);
    expect([made.isDisposable, given.isDisposable]).toEqual([true, false]);
    made.isDisposable = false;
    given.isDisposable = true;
    expect([made.isDisposable, given.isDisposable]).toEqual([false, true]);
    using fillers = memory.scope("fillers");
    const fill = () => {
      for (;;) fillers.allocate({ kind: "KV_CACHE", byteLength: MIB });
    };
    expect(fill).toThrowError(expect.objectContaining({ code: "out-of-memory" }));
    expect([made.isFreed, given.isFreed]).toEqual([false, true]);
    made.free();
    const gone = expect.objectContaining({ code: "freed" });
    expect(() => {
      made.isDisposable = true;
    }).toThrowError(gone);
    const anonymous = memory.allocate({ kind: "KV_CACHE", byteLength: 64 });
    expect(() => {
      anonymous.isDisposable = true;
    }).toThrowError(expect.objectContaining({ code: "unsupported" }));
    anonymous.free();
  });

  it("may become so while it is cold, and leaves the tier when there is need", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier({ capacityBytes: 2.5 * MIB }) } });
    for (const id of ["a", "b"]) allocateFilled(memory, id, MIB, 1);
    for (const id of ["a", "b"]) expect(await memory.swapOut(id)).toBe("stored");
    const third = allocateFilled(memory, "c", MIB, 3);
    expect(await memory.swapOut("c")).toBe("no-space");
    const [a, b] = ["a", "b"].map((id) => memory.tensor(id));
    if (a == null || b == null) throw new Error("a tensor is unknown");
    a.isDisposable = true;
    b.isDisposable = true;
    a.isDisposable = false;
    expect(await memory.swapOut("c")).toBe("stored");
    expect(await memory.acquire("b")).toBeNull();
    await expectFilled(memory, "a", MIB, 1);
    third.free();
  });

  it("is dropped by a synchronous allocation only where there is no tier", async () => {
    for (const tier of [undefined, memoryTier()]) {
      const memory = await openMemory(tier && { seams: { tier } });
      const disposable = allocateDisposable(memory, "d");
      const taken: { free(): void }[] = [];
      const take = () => memory.tryAllocate({ kind: "KV_CACHE", byteLength: MIB });
      for (let tensor = take(); tensor !== null; tensor = take()) taken.push(tensor);
      expect(disposable.isFreed).toBe(tier === undefined);
      for (const tensor of taken) tensor.free();
    }
  });

  it("leaves a full tier for what is saved, the longest unused first", async () => {
    const tier = memoryTier({ capacityBytes: 4 * MIB });
    const memory = await openMemory({ codecs: { default: "raw" }, seams: { tier } });
    for (const id of ["a", "b", "c"]) {
      allocateDisposable(memory, id);
      await memory.swapOut(id);
    }
    (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]();
    await memory.swapOut("a");
    allocateFilled(memory, "precious", MIB, 1);
    expect(await memory.save("precious")).toBe("stored");
    expect(await memory.acquire("b")).toBeNull();
    expect(memory.tensor("a")).not.toBeNull();
    expect(memory.stats().disposables.droppedCount).toBe(1);
  });

  it("stays while it is pinned, and once it was saved", async () => {
    const admissionPolicy = { ...admitAll, admit: () => false };
    const memory = await openMemory({ seams: { tier: memoryTier(), admissionPolicy } });
    const pinned = allocateDisposable(memory, "pinned");
    using _pin = pinned.pin({ access: "read" });
    allocateDisposable(memory, "saved");
    await memory.save("saved");
    (await memory.acquire("saved"))?.[Symbol.dispose]();
    for (let count = 6; memory.tensor("saved")?.isResident === true; count++) {
      await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count });
    }
    expect(memory.stats().disposables.droppedCount).toBe(0);
    expect(memory.tensor("saved")).not.toBeNull();
    expect(pinned.isResident).toBe(true);
    _pin[Symbol.dispose]();
  });

  it("may be made again under its id, and freed or deleted when it is gone", async () => {
    const memory = await openMemory();
    const dropAll = () => {
      using scope = memory.scope();
      while (memory.tensor("t") !== null) scope.allocate({ kind: "KV_CACHE", byteLength: MIB });
    };
    for (const forget of [
      async () => memory.free("t"),
      () => memory.delete("t"),
      async (tensor: { free(): void }) => tensor.free(),
    ]) {
      const tensor = allocateDisposable(memory, "t", MIB, 3);
      dropAll();
      expect(tensor.isFreed).toBe(true);
      await forget(tensor);
      expect(() => memory.free("t")).toThrowError(expect.objectContaining({ code: "unknown-id" }));
    }
    allocateDisposable(memory, "t", MIB, 4);
    dropAll();
    expect(await findOrMake(memory, "t", 5)).toBe(false);
    expect(await findOrMake(memory, "t", 5)).toBe(true);
    expect((await collect(memory.list())).map(({ id }) => id)).toEqual(["t"]);
    expect(memory.stats().tensors.count).toBe(1);
  });

  it("needs an id", async () => {
    const memory = await openMemory();
    const options = { kind: "KV_CACHE", byteLength: 1, disposable: true } as const;
    expect(() => memory.allocate(options)).toThrowError(
      expect.objectContaining({ code: "bad-option" }),
    );
    const wrong = { ...options, id: "a", disposable: 1 as unknown as boolean };
    expect(() => memory.allocate(wrong)).toThrowError(
      expect.objectContaining({ code: "bad-option" }),
    );
  });
});

describe("admission", () => {
  it("is asked for disposable tensors alone", async () => {
    const asked: number[] = [];
    const admissionPolicy = {
      ...admitAll,
      admit: ({ index }: { readonly index: number }) => {
        asked.push(index);
        return false;
      },
    };
    const memory = await openMemory({ seams: { tier: memoryTier(), admissionPolicy } });
    for (let index = 0; index < 4; index++) allocateFilled(memory, `only${index}`, MIB, index);
    for (let index = 0; index < 4; index++) allocateDisposable(memory, `d${index}`);
    await memory.reserve({ kind: "KV_CACHE", bytes: MIB, count: 12 });
    expect(asked).toHaveLength(memory.stats().disposables.refusedCount);
    expect(memory.stats().disposables.droppedCount).toBeGreaterThan(0);
    for (let index = 0; index < 4; index++) await expectFilled(memory, `only${index}`, MIB, index);
  });

  it("saves the writes of what does not come back, by default, and keeps what does", async () => {
    const run = async (admissionPolicy?: typeof admitAll) => {
      const tier = memoryTier({ capacityBytes: 24 * MIB });
      const seams = admissionPolicy === undefined ? { tier } : { tier, admissionPolicy };
      const memory = await openMemory({ codecs: { default: "raw" }, seams });
      let found = 0;
      for (let step = 0; step < 400; step++) {
        // Once in four a tensor of a few; the others come once.
        const id = step % 4 === 0 ? `again${(step / 4) % 6}` : `once${step}`;
        if (await findOrMake(memory, id, step % 4 === 0 ? 1 : 2)) found += 1;
      }
      return { found, written: memory.stats().tier.bytesWritten };
    };
    const automatic = await run();
    const all = await run(admitAll);
    expect(all.written).toBeGreaterThan(50 * MIB);
    expect(automatic.written).toBeLessThan(all.written / 2);
    expect(automatic.found).toBeGreaterThanOrEqual(all.found - 16);
    expect(automatic.found).toBeGreaterThan(40);
  });
});
