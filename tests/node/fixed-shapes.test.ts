// Pools of one shape: blocks and views are used again, stale holders are refused, idle blocks give way.
import { describe, expect, it } from "vitest";
import { FIXED_SHAPES } from "../../src/index.js";
import { seededRandom } from "../../src/random.js";
import { abandon, openMemory, SEED, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;
const page = { kind: "KV_CACHE", shape: [64, 64], dtype: "f32" } as const;

describe("a pool of a fixed shape", () => {
  it("uses block and view again", async () => {
    const memory = await openMemory();
    const pool = memory.fixedShapePool(page);
    const first = pool.allocate();
    const { view } = first;
    expect([view.length, first.byteLength]).toEqual([4096, 16_384]);
    expect(first).toMatchObject({ ...page, isFreed: false });
    first.free();
    const second = pool.allocate();
    expect(second.view).toBe(view);
    expect(second).not.toBe(first);
    expect(pool.stats()).toEqual({
      liveCount: 1,
      idleCount: 0,
      heldBytes: 16_384,
      allocationCount: 2,
      reuseCount: 1,
    });
    second.free();
    pool[Symbol.dispose]();
    expect(memory.stats().pools[0]?.liveCount).toBe(0);
  });

  it("refuses a stale holder, who cannot reach the next tenant", async () => {
    const memory = await openMemory();
    using pool = memory.fixedShapePool(page);
    const stale = pool.allocate();
    stale.free();
    using tenant = pool.allocate();
    expect(() => stale.free()).toThrowError("freed before");
    expect(() => stale.view).toThrowError("freed");
    stale[Symbol.dispose]();
    expect(tenant.isFreed).toBe(false);
    expect(memory.verify().isSound).toBe(true);
  });

  it("counts in the budget of its kind and gives idle blocks back under pressure", async () => {
    const memory = await openMemory({ pools: { KV_CACHE: { budget: "4MiB" } } });
    const pool = memory.fixedShapePool({ kind: "KV_CACHE", shape: [MIB / 2], dtype: "u8" });
    const tensors = Array.from({ length: 8 }, () => pool.allocate());
    expect(pool.tryAllocate()).toBeNull();
    expect(() => pool.allocate()).toThrowError("do not fit");
    for (const tensor of tensors) tensor.free();
    expect(pool.stats().idleCount).toBe(8);
    const other = memory.allocate({ kind: "KV_CACHE", byteLength: MIB });
    expect(pool.stats()).toMatchObject({ idleCount: 0, heldBytes: 0 });
    other.free();
    pool.allocate().free();
    expect(memory.trim()).toBeGreaterThan(0);
    expect(pool.stats().heldBytes).toBe(0);
  });

  it("gives way to another kind of tensor", async () => {
    const memory = await openMemory({ budgets: { ram: "16MiB" } });
    const pool = memory.fixedShapePool({ kind: "KV_CACHE", shape: [MIB], dtype: "u8" });
    const held = [];
    for (let next = pool.tryAllocate(); next !== null; next = pool.tryAllocate()) held.push(next);
    expect(held.length).toBeGreaterThan(8);
    expect(memory.tryAllocate({ kind: "GRADIENTS", byteLength: MIB })).toBeNull();
    for (const tensor of held) tensor.free();
    const gradients = memory.allocate({ kind: "GRADIENTS", byteLength: MIB });
    gradients.free();
  });

  it("is not moved: its views stay true through a compaction", async () => {
    await withSeed("fixed shapes under compaction", async () => {
      const random = seededRandom(SEED);
      const memory = await openMemory();
      using pool = memory.fixedShapePool({ kind: "ACTIVATIONS", shape: [1000], dtype: "i32" });
      const live = new Map<number, ReturnType<typeof pool.allocate>>();
      const others = [];
      for (let step = 0; step < 2000; step++) {
        if (random.uint32() % 2 === 0) {
          const tensor = pool.allocate();
          tensor.view.fill(step);
          live.set(step, tensor);
          others.push(memory.allocate({ kind: "ACTIVATIONS", byteLength: 3000 }));
        } else if (live.size > 0) {
          const [mark, tensor] = [...live][random.uint32() % live.size] as [number, never];
          (tensor as ReturnType<typeof pool.allocate>).free();
          live.delete(mark);
          others.splice(random.uint32() % others.length, 1)[0]?.free();
        }
        if (step % 500 === 499) memory.compact();
      }
      for (const [mark, tensor] of live) {
        expect(tensor.view.every((value) => value === mark)).toBe(true);
        tensor.free();
      }
      for (const other of others) other.free();
      expect(memory.verify().isSound).toBe(true);
    });
  });

  it("refuses what is no shape, and everything once it is closed", async () => {
    const memory = await openMemory();
    const make = (options: object) => () => memory.fixedShapePool(options as never);
    expect(make({ ...page, shape: [0] })).toThrowError("dimension");
    expect(make({ ...page, kind: "x" })).toThrowError("kind");
    expect(make({ ...page, dtype: "x" })).toThrowError("dtype");
    expect(make({ ...page, size: 1 })).toThrowError("unknown option");
    expect(make({ ...page, alignment: 3 })).toThrowError("alignment");
    const pool = memory.fixedShapePool(page);
    const tensor = pool.allocate();
    pool[Symbol.dispose]();
    expect(() => pool.allocate()).toThrowError("closed");
    expect(() => pool.tryAllocate()).toThrowError("closed");
    tensor.free();
    expect(memory.stats().pools[0]?.liveCount).toBe(0);
    const late = memory.fixedShapePool(page);
    abandon(memory);
    const last = late.allocate();
    await memory.close();
    expect(() => late.allocate()).toThrowError("closed");
    expect(() => last.free()).toThrowError("closed");
    last[Symbol.dispose]();
    late[Symbol.dispose]();
  });

  it("knows the shapes that tierheap was made for", async () => {
    const memory = await openMemory({ budgets: { ram: "256MiB" } });
    const dtypes = { attention: "f32", kv: "f16", vision: "f32", activations: "f32" } as const;
    for (const [name, shape] of Object.entries(FIXED_SHAPES)) {
      const dtype = dtypes[name as keyof typeof dtypes];
      using pool = memory.fixedShapePool({ kind: "ACTIVATIONS", shape, dtype });
      using tensor = pool.allocate();
      expect(tensor.view.length).toBe(
        shape.reduce((product: number, length) => product * length, 1),
      );
    }
  });
});
