// Bytes are seen through pins alone: whatever moves, no view shows another tensor's bytes.
import { describe, expect, it } from "vitest";
import type { Pin } from "../../src/memory/pin.js";
import type { Tensor } from "../../src/memory/tensor.js";
import type { TensorMemory } from "../../src/tensor-memory.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import { collecting, openMemory, withSeed } from "../support/oracle.js";

const code = (name: string) => expect.objectContaining({ code: name });

/** Long enough for runs: pages move when a slab is emptied. */
const PAIR_BYTES = 65536;

function pair(memory: TensorMemory) {
  const low = memory.allocate({ kind: "ACTIVATIONS", byteLength: PAIR_BYTES });
  const high = memory.allocate({ kind: "ACTIVATIONS", byteLength: PAIR_BYTES });
  return { low, high };
}

describe("a pin", () => {
  it("keeps its block where it is", async () => {
    const memory = await openMemory();
    const { low, high } = pair(memory);
    const pin = high.pin();
    pin.view.fill(7);
    const { byteOffset } = pin.bytes;
    low.free();
    expect(memory.compact()).toEqual({ movedBytes: 0, isFinished: true });
    expect(pin.bytes.byteOffset).toBe(byteOffset);
    pin[Symbol.dispose]();
    expect(memory.compact()).toEqual({ movedBytes: PAIR_BYTES, isFinished: true });
    using again = high.pin();
    expect(again.bytes.byteOffset).not.toBe(byteOffset);
    expect(again.view.every((byte) => byte === 7)).toBe(true);
  });

  it("shows nothing once it is disposed, and may be disposed again", async () => {
    const memory = await openMemory();
    const pin = memory.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "a" }).pin();
    pin[Symbol.dispose]();
    pin[Symbol.dispose]();
    expect(() => pin.view).toThrowError(code("unpinned"));
    expect(() => pin.bytes).toThrowError(code("unpinned"));
  });

  it("keeps its tensor from being freed, through every door", async () => {
    const memory = await openMemory();
    const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "a" });
    {
      using _pin = tensor.pin({ access: "read" });
      expect(() => tensor.free()).toThrowError(code("pinned"));
      expect(() => memory.free("a")).toThrowError(code("pinned"));
      await expect(memory.delete("a")).rejects.toThrowError(code("pinned"));
      expect(() => tensor[Symbol.dispose]()).toThrowError(code("pinned"));
    }
    tensor.free();
    tensor[Symbol.dispose]();
    expect(() => tensor.pin()).toThrowError(code("freed"));
    expect(tensor).toMatchObject({ isFreed: true, isResident: false });
  });

  it("counts: 65,535 at once and no more", async () => {
    const memory = await openMemory();
    const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength: 8 });
    const pins: Pin[] = [];
    try {
      for (;;) pins.push(tensor.pin({ access: "read" }));
    } catch (error) {
      expect(error).toMatchObject({ code: "pin-limit" });
    }
    expect(pins.length).toBeGreaterThanOrEqual(65_535 - 1);
    for (const pin of pins) pin[Symbol.dispose]();
    tensor.free();
  });

  it("for reading keeps a tensor clean, for writing makes it dirty", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength: 8, id: "a" });
    await memory.save("a");
    tensor.pin({ access: "read" })[Symbol.dispose]();
    await memory.swapOut("a");
    expect(memory.stats().transfers).toMatchObject({ cleanEvictionCount: 1, swapOutCount: 0 });
    (await memory.acquire("a"))?.[Symbol.dispose]();
    await memory.swapOut("a");
    expect(memory.stats().transfers).toMatchObject({ cleanEvictionCount: 1, swapOutCount: 1 });
  });

  it("shows zeros when zeros were asked for, also where others were", async () => {
    const memory = await openMemory();
    const used = memory.allocate({ kind: "ACTIVATIONS", byteLength: 4096 });
    used.pin()[Symbol.dispose]();
    {
      using pin = used.pin();
      pin.view.fill(9);
    }
    used.free();
    using pin = memory.allocate({ kind: "ACTIVATIONS", byteLength: 4096, zero: true }).pin();
    expect(pin.view.every((byte) => byte === 0)).toBe(true);
  });

  it("in debug mode shows freed bytes overwritten", async () => {
    const memory = await openMemory({ debug: true });
    const tensor = memory.allocate({ kind: "ACTIVATIONS", byteLength: 64 });
    const pin = tensor.pin();
    const kept = pin.view;
    kept.fill(1);
    pin[Symbol.dispose]();
    tensor.free();
    expect(kept.every((byte) => byte === 0xa5)).toBe(true);
  });
});

interface Held {
  readonly tensor: Tensor;
  readonly stamp: number;
}

describe("views", () => {
  it("are never stale, whatever is forced between two calls", async () => {
    await withSeed("stale views", async (seed) => {
      const random = seededRandom(seed);
      const memory = await openMemory({
        budgets: { ram: "8MiB" },
        debug: true,
        seams: { tier: memoryTier() },
      });
      const held: Held[] = [];
      const pins: { readonly pin: Pin; readonly stamp: number }[] = [];
      const forced = { move: 0, swap: 0, drop: 0 };
      let reads = 0;
      const check = (pin: Pin, stamp: number) => {
        reads += 1;
        const bytes = pin.bytes;
        const isIntact =
          bytes[0] === stamp && bytes.at(-1) === stamp && bytes[bytes.length >> 1] === stamp;
        if (!isIntact) throw new Error(`a stale read of ${pin.id}`);
      };
      const force = async () => {
        forced.move += memory.compact().movedBytes > 0 ? 1 : 0;
        if (random.uint32() % 16 === 0) forced.drop += memory.trim() > 0 ? 1 : 0;
        const victim = held[random.uint32() % Math.max(1, held.length)];
        const id = victim?.tensor.id;
        if (id === null || id === undefined || pins.some(({ pin }) => pin.id === id)) return;
        await memory.swapOut(id);
        forced.swap += 1;
      };
      for (let step = 0; step < 4000; step++) {
        const choice = random.uint32() % 10;
        if (choice < 4 && held.length < 200) {
          const byteLength = 1 + (random.uint32() % (step % 50 === 0 ? 1_500_000 : 20_000));
          const stamp = random.uint32() & 0xff;
          await collecting(() => memory.reserve({ kind: "KV_CACHE", bytes: byteLength }));
          const tensor = memory.allocate({ kind: "KV_CACHE", byteLength, id: `t${step}` });
          using pin = tensor.pin();
          pin.bytes.fill(stamp);
          held.push({ tensor, stamp });
        } else if (choice < 6 && held.length > 0) {
          const index = random.uint32() % held.length;
          const { tensor } = held[index] as Held;
          if (!pins.some(({ pin }) => pin.id === tensor.id)) {
            tensor.free();
            held.splice(index, 1);
          }
        } else if (choice < 8 && held.length > 0 && pins.length < 8) {
          const { tensor, stamp } = held[random.uint32() % held.length] as Held;
          const access = random.uint32() % 2 === 0 ? "read" : "write";
          const pin = await collecting(() => memory.acquire(tensor.id as string, { access }));
          pins.push({ pin: pin as Pin, stamp });
        } else if (pins.length > 0) {
          pins.shift()?.pin[Symbol.dispose]();
        }
        await force();
        for (const { pin, stamp } of pins) check(pin, stamp);
        if (step % 100 === 0) expect(memory.verify().problems).toEqual([]);
      }
      for (const { pin } of pins) pin[Symbol.dispose]();
      for (const { tensor, stamp } of held) {
        const id = tensor.id as string;
        using pin = (await collecting(() => memory.acquire(id, { access: "read" }))) as Pin;
        check(pin, stamp);
      }
      expect(forced.move, "compactions that moved").toBeGreaterThan(100);
      expect(forced.swap, "swap-outs").toBeGreaterThan(500);
      expect(forced.drop, "arena drops").toBeGreaterThan(5);
      expect(reads, "reads").toBeGreaterThan(2000);
    });
  });
});
