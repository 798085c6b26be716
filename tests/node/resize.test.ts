// Resizing: the handle stays, the first bytes stay, and what is refused has changed nothing.
import { describe, expect, it } from "vitest";
import { BuddyAllocator } from "../../src/index.js";
import { seededRandom } from "../../src/random.js";
import { memoryTier } from "../../src/testing/index.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

describe("tensor.resize", () => {
  it("keeps the first bytes in place and elsewhere", async () => {
    const memory = await openMemory();
    const tensor = memory.allocate({ kind: "ACTIVATIONS", shape: [4, 256], dtype: "f32" });
    const other = memory.allocate({ kind: "ACTIVATIONS", shape: [1024], dtype: "f32" });
    {
      using pin = tensor.pin();
      pin.view.set(pin.view.map((_, index) => index));
    }
    for (const shape of [[8, 256], [300_000], [7], [1024, 64], [3, 3, 3]]) {
      tensor.resize({ shape });
      expect(tensor.shape).toEqual(shape);
      using pin = tensor.pin();
      expect(pin.view.length).toBe(shape.reduce((product, length) => product * length, 1));
      expect(tensor.byteLength).toBe(pin.view.byteLength);
      expect([...pin.view.subarray(0, 7)]).toEqual([0, 1, 2, 3, 4, 5, 6]);
    }
    expect(memory.stats().tensors.hotBytes).toBe(27 * 4 + 4096);
    tensor.free();
    other.free();
  });

  it("refuses what is pinned, cold, freed or badly shaped, and changes nothing", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "KV_CACHE", shape: [64], dtype: "f16", id: "a" });
    const code = (work: () => void) => {
      try {
        work();
      } catch (error) {
        return (error as { code: string }).code;
      }
      return "none";
    };
    {
      using _pin = tensor.pin();
      expect(code(() => tensor.resize({ shape: [32] }))).toBe("pinned");
      expect(code(() => tensor.resize({ shape: [MIB] }))).toBe("pinned");
    }
    expect(code(() => tensor.resize({ shape: [] }))).toBe("bad-shape");
    expect(code(() => tensor.resize({ shape: [0] }))).toBe("bad-shape");
    expect(code(() => tensor.resize({ shape: [2 ** 40] }))).toBe("bad-size");
    expect(code(() => tensor.resize({ size: [1] } as never))).toBe("bad-option");
    expect(code(() => tensor.resize({ shape: [64 * MIB] }))).toBe("out-of-memory");
    expect([tensor.shape, tensor.byteLength]).toEqual([[64], 128]);
    await memory.swapOut("a");
    expect(code(() => tensor.resize({ shape: [32] }))).toBe("not-resident");
    tensor.free();
    expect(code(() => tensor.resize({ shape: [32] }))).toBe("freed");
  });

  it("makes copies in colder tiers stale", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "KV_CACHE", shape: [64], dtype: "u8", id: "a" });
    {
      using pin = tensor.pin();
      pin.view.fill(7);
    }
    await memory.swapOut("a");
    (await memory.acquire("a", { access: "read" }))?.[Symbol.dispose]();
    tensor.resize({ shape: [32] });
    await memory.swapOut("a");
    const lease = await memory.acquire<"u8">("a");
    expect([...(lease?.view ?? [])]).toEqual(new Array(32).fill(7));
    lease?.[Symbol.dispose]();
  });

  it("is refused while the tensor is saved", async () => {
    const memory = await openMemory({ seams: { tier: memoryTier() } });
    const tensor = memory.allocate({ kind: "KV_CACHE", shape: [64], dtype: "u8", id: "a" });
    const saving = memory.save("a");
    expect(() => tensor.resize({ shape: [1] })).toThrowError("pinned");
    await saving;
    tensor.resize({ shape: [1] });
    expect(await memory.save("a")).toBe("stored");
  });

  it("grows a tensor past its arena and back", async () => {
    const memory = await openMemory({ budgets: { ram: "64MiB" } });
    const tensor = memory.allocate({ kind: "PARAMETERS", shape: [MIB], dtype: "u8" });
    {
      using pin = tensor.pin();
      pin.view.fill(5);
    }
    tensor.resize({ shape: [20 * MIB] });
    tensor.resize({ shape: [19 * MIB] });
    tensor.resize({ shape: [MIB] });
    using pin = tensor.pin();
    expect(pin.view.every((value) => value === 5)).toBe(true);
  });
});

describe("BuddyAllocator.tryResize", () => {
  it.each([
    ["plain", MIB],
    ["with slabs", 16 * MIB],
  ])("%s: keeps bytes under every handle", async (_name, totalBytes) => {
    await withSeed("the resize fuzzer", async () => {
      const random = seededRandom(SEED + totalBytes);
      const below = (bound: number) => random.uint32() % bound;
      const buddy = await BuddyAllocator.create({ totalBytes });
      const bytes = new Uint8Array(totalBytes);
      const move = (source: number, target: number, length: number) => {
        bytes.copyWithin(target, source, source + length);
      };
      const live: { handle: number; length: number; mark: number }[] = [];
      const counts = { resized: 0, refused: 0 };
      for (let step = 1; step <= 6000; step++) {
        const length = 1 + below(2 ** (1 + below(18)));
        const draw = below(8);
        const block = live[below(live.length)];
        if (block === undefined || draw < 2) {
          const handle = buddy.tryAllocate(length);
          if (handle !== 0) {
            const offset = buddy.offsetOf(handle);
            bytes.fill(step, offset, offset + length);
            live.push({ handle, length, mark: step & 255 });
          }
          continue;
        }
        if (draw < 3) {
          buddy.free(block.handle);
          live.splice(live.indexOf(block), 1);
          continue;
        }
        const isResized = buddy.tryResize(block.handle, length, draw < 6 ? { move } : {});
        const kept = isResized ? Math.min(block.length, length) : block.length;
        const offset = buddy.offsetOf(block.handle);
        for (let index = 0; index < kept; index++) {
          if (bytes[offset + index] !== block.mark) throw new Error(`step ${step}: a byte is gone`);
        }
        counts[isResized ? "resized" : "refused"] += 1;
        if (!isResized) continue;
        block.length = length;
        bytes.fill(block.mark, offset, offset + length);
      }
      expect(counts.resized).toBeGreaterThan(500);
      expect(counts.refused).toBeGreaterThan(50);
      expect(buddy.verify()).toBeNull();
      expect(buddy.stats().requestedBytes).toBe(live.reduce((sum, { length }) => sum + length, 0));
    });
  });

  it("leaves the block alone when move throws or comes back in", async () => {
    const buddy = await BuddyAllocator.create({ totalBytes: MIB });
    const handle = buddy.tryAllocate(64);
    buddy.tryAllocate(64);
    const fail = () => {
      throw new Error("no copy");
    };
    expect(() => buddy.tryResize(handle, 1024, { move: fail })).toThrowError("no copy");
    const again = () => {
      buddy.tryResize(handle, 1024, { move: fail });
    };
    expect(() => buddy.tryResize(handle, 1024, { move: again })).toThrowError("being moved");
    expect(buddy.stats()).toMatchObject({ requestedBytes: 128, liveCount: 2 });
    buddy.free(handle);
    expect(() => buddy.tryResize(handle, 64)).toThrowError("freed");
    expect(() => buddy.tryResize(handle, 64, { move: 1 as never })).toThrowError("function");
    expect(buddy.verify()).toBeNull();
  });
});
