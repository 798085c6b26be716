// Typed arrays out of one arena: views are the right ones whatever moved, and are used again.
import { describe, expect, it } from "vitest";
import { ViewAllocator, type ViewBlock } from "../../src/index.js";
import { seededRandom } from "../../src/random.js";
import { countingMemory } from "../../src/testing/index.js";
import { withSeed } from "../support/oracle.js";

const MIB = 2 ** 20;

const codeOf = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "none";
};

describe("a view allocator", () => {
  it.each([
    ["plain", MIB],
    ["with slabs", 8 * MIB],
  ])("%s: keeps every element under allocation, frees and compaction", (_name, totalBytes) =>
    withSeed("the view allocator", async (seed) => {
      const random = seededRandom(seed + totalBytes);
      const below = (bound: number) => random.uint32() % bound;
      const allocator = await ViewAllocator.create({ totalBytes, dtype: "f32" });
      expect(allocator.capacityBytes).toBe(totalBytes);
      const live: { readonly block: ViewBlock<"f32">; readonly mark: number }[] = [];
      const counts = { refused: 0, movedBytes: 0, compactions: 0 };
      const check = () => {
        let elementCount = 0;
        for (const { block, mark } of live) {
          const { view } = block;
          elementCount += view.length;
          if (view.some((value) => value !== mark)) throw new Error(`block ${mark} has changed`);
        }
        expect(elementCount * 4).toBeLessThanOrEqual(totalBytes);
        expect(allocator.liveCount).toBe(live.length);
        expect(allocator.verify()).toBeNull();
      };
      for (let step = 1; step <= 4000; step++) {
        const draw = below(100);
        if (draw < 60) {
          const block = allocator.tryAllocate(1 + below(2 ** (1 + below(16))));
          if (block === null) {
            counts.refused += 1;
            for (const { block: freed } of live.splice(0, live.length / 2)) freed.free();
          } else {
            block.view.fill(step);
            live.push({ block, mark: step });
          }
        } else if (draw < 99) live.splice(below(live.length), 1)[0]?.block.free();
        else {
          counts.movedBytes += allocator.compact();
          counts.compactions += 1;
          check();
        }
      }
      check();
      expect(counts.refused).toBeGreaterThan(5);
      expect(counts.compactions).toBeGreaterThan(10);
      expect(counts.movedBytes).toBeGreaterThan(totalBytes / 2);
      for (const { block } of live) block[Symbol.dispose]();
      expect(allocator.liveCount).toBe(0);
      expect(allocator.tryAllocate(totalBytes / 4)?.view.length).toBe(totalBytes / 4);
    }),
  );

  it("gives a block that comes back the view that it had", async () => {
    const allocator = await ViewAllocator.create({ totalBytes: 8 * MIB, dtype: "bf16" });
    const first = allocator.tryAllocate(576) as ViewBlock<"bf16">;
    const { view } = first;
    expect(view).toBeInstanceOf(Uint16Array);
    expect(view.length).toBe(576);
    first.free();
    expect(allocator.tryAllocate(576)?.view).toBe(view);
    // Another length in the same block is another view.
    const longer = allocator.tryAllocate(570);
    longer?.free();
    const again = allocator.tryAllocate(571);
    expect(again?.view.length).toBe(571);
  });

  it("refuses a stale holder, who cannot reach the next tenant", async () => {
    const allocator = await ViewAllocator.create({ totalBytes: MIB, dtype: "i8" });
    const stale = allocator.tryAllocate(100) as ViewBlock<"i8">;
    stale.free();
    const tenant = allocator.tryAllocate(100) as ViewBlock<"i8">;
    expect([stale.isFreed, tenant.isFreed]).toEqual([true, false]);
    expect(codeOf(() => stale.free())).toBe("freed");
    expect(codeOf(() => stale.view)).toBe("freed");
    stale[Symbol.dispose]();
    expect(allocator.liveCount).toBe(1);
    tenant[Symbol.dispose]();
    expect(allocator.liveCount).toBe(0);
  });

  it("refuses bad options and lengths before anything changes", async () => {
    const create = (options: object) => ViewAllocator.create(options as never);
    const refusal = (options: object) => create(options).catch(({ code }) => code);
    expect(await refusal({ totalBytes: MIB, dtype: "f8" })).toBe("bad-dtype");
    expect(await refusal({ totalBytes: 0, dtype: "f32" })).toBe("bad-size");
    expect(await refusal({ totalBytes: MIB, dtype: "f32", growing: true })).toBe("bad-option");
    // The probe, the control plane, and then the arena itself.
    const { createMemory } = countingMemory((request) => request === 3);
    expect(await refusal({ totalBytes: MIB, dtype: "f32", createMemory })).toBe("out-of-memory");
    const allocator = await ViewAllocator.create({ totalBytes: MIB, dtype: "f64" });
    for (const length of [0, -1, 1.5, Number.NaN, 2 ** 30]) {
      expect(codeOf(() => allocator.tryAllocate(length))).toBe("bad-size");
    }
    expect(allocator.tryAllocate(2 ** 29 - 1)).toBeNull();
    expect(allocator.liveCount).toBe(0);
  });
});
