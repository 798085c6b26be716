// Alignment, end to end: every kind of arena, every power of two that is promised, and the limits.
import { describe, expect, it } from "vitest";
import { BuddyAllocator } from "../../src/index.js";
import { seededRandom } from "../../src/random.js";
import { openMemory, SEED, withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;
const ALIGNMENTS = [1, 8, 64, 128, 256, 512, 4096, 16_384, 65_536];

describe("alignment", () => {
  it.each([
    ["plain arenas", "16MiB"],
    ["slab arenas", "64MiB"],
  ])("of tensors holds in %s, through compaction and resizing", async (_name, ram) => {
    await withSeed("aligned tensors", async () => {
      const memory = await openMemory({ budgets: { ram } });
      const random = seededRandom(SEED);
      const below = (bound: number) => random.uint32() % bound;
      const live: { tensor: ReturnType<typeof memory.allocate>; alignment: number }[] = [];
      const check = () => {
        for (const { tensor, alignment } of live) {
          using pin = tensor.pin({ access: "read" });
          if (pin.view.byteOffset % alignment !== 0) throw new Error(`not aligned to ${alignment}`);
        }
      };
      for (let step = 0; step < 600; step++) {
        const alignment = ALIGNMENTS[below(ALIGNMENTS.length)] as number;
        const byteLength = 1 + below(2 ** (4 + below(15)));
        const tensor = memory.tryAllocate({ kind: "ACTIVATIONS", byteLength, alignment });
        if (tensor !== null) live.push({ tensor, alignment });
        if (live.length > 60) live.splice(below(live.length), 1)[0]?.tensor.free();
        if (step % 7 === 0) live[below(live.length)]?.tensor.resize({ shape: [1 + below(99_999)] });
        if (step % 100 === 99) {
          check();
          memory.compact();
          check();
        }
      }
      for (const { tensor } of live) tensor.free();
    });
  });

  it("of a tensor with an arena of its own", async () => {
    const memory = await openMemory({ budgets: { ram: "64MiB" } });
    const options = { kind: "PARAMETERS", byteLength: 20 * MIB, alignment: 65_536 } as const;
    using tensor = memory.allocate(options);
    using pin = tensor.pin();
    expect(pin.view.byteOffset % 65_536).toBe(0);
  });

  it("of fixed shapes", async () => {
    const memory = await openMemory();
    memory.allocate({ kind: "KV_CACHE", byteLength: 100, id: "first" });
    const shape = { kind: "KV_CACHE", shape: [100], dtype: "f32" } as const;
    using pool = memory.fixedShapePool({ ...shape, alignment: 4096 });
    using tensor = pool.allocate();
    expect(tensor.view.byteOffset % 4096).toBe(0);
  });

  it.each([
    ["a plain tree", 3 * MIB, 64],
    ["long granules", 4 * MIB, 4096],
    ["slabs", 16 * MIB, 64],
    ["4 GiB", 2 ** 32, 64],
  ])("of blocks in %s", async (_name, totalBytes, granuleBytes) => {
    const buddy = await BuddyAllocator.create({ totalBytes, granuleBytes, blockCountMax: 4096 });
    for (const alignment of ALIGNMENTS) {
      for (const bytes of [1, 100, 5000, 70_000]) {
        const handle = buddy.tryAllocate(bytes, alignment);
        expect(handle).toBeGreaterThan(0);
        expect(buddy.offsetOf(handle) % alignment).toBe(0);
      }
    }
    expect(buddy.verify()).toBeNull();
  });

  it("is a power of two up to 64 KiB", async () => {
    const memory = await openMemory();
    for (const alignment of [0, 3, -64, 1.5, 131_072, Number.NaN, "64"]) {
      const options = { kind: "KV_CACHE", byteLength: 64, alignment: alignment as number } as const;
      expect(() => memory.allocate(options)).toThrowError(
        "alignment is a power of two up to 65536",
      );
    }
  });
});
