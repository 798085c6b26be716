// The map of blocks says what the books say, whatever was allocated, freed, moved or demoted before.
import { describe, expect, it } from "vitest";
import type { MappedArena, MemoryMap, TensorMemory } from "../../src/index.js";
import type { Tensor } from "../../src/memory/tensor.js";
import { memoryTier, seededRandom } from "../../src/testing/index.js";
import type { TensorKind } from "../../src/types.js";
import { openMemory, withSeed } from "../support/oracle.js";

const KINDS: readonly TensorKind[] = ["KV_CACHE", "ACTIVATIONS", "PARAMETERS"];

function bytesOf({ blocks }: MappedArena): number {
  return blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** Compares the map with the counters, and every named tensor with its block. */
async function checkMap(memory: TensorMemory, named: ReadonlyMap<string, Tensor>): Promise<number> {
  const { arenas } = await memory.map();
  const { pools } = memory.stats();
  for (const { kind, grantedBytes, capacityBytes, arenaCount, liveCount, pinnedCount } of pools) {
    const own = arenas.filter((arena) => arena.kind === kind);
    expect(own.length).toBe(arenaCount);
    expect(own.reduce((sum, { byteLength }) => sum + byteLength, 0)).toBe(capacityBytes);
    expect(own.reduce((sum, arena) => sum + bytesOf(arena), 0)).toBe(grantedBytes);
    expect(own.flatMap(({ blocks }) => blocks).length).toBe(liveCount);
    const pinned = own.flatMap(({ blocks }) => blocks).filter(({ isPinned }) => isPinned);
    expect(pinned.length).toBe(pinnedCount);
  }
  const found = new Map<string, [offset: number, byteLength: number]>();
  for (const { blocks, byteLength, kind } of arenas) {
    let end = 0;
    for (const block of blocks) {
      expect(block.offset).toBeGreaterThanOrEqual(end);
      expect(block.byteLength).toBeGreaterThanOrEqual(block.requestedBytes);
      expect(block.kind).toBe(kind);
      end = block.offset + block.byteLength;
      if (block.id !== null) found.set(block.id, [block.offset, block.requestedBytes]);
    }
    expect(end).toBeLessThanOrEqual(byteLength);
  }
  const resident = [...named].filter(([, tensor]) => tensor.isResident);
  // An arena's memory begins where its offsets begin.
  const places = resident.map(([id, tensor]) => {
    using pin = tensor.pin({ access: "read" });
    return [id, [pin.bytes.byteOffset, tensor.byteLength]] as const;
  });
  expect(found).toEqual(new Map(places));
  return found.size;
}

describe("memory.map", () => {
  it("agrees with the counters under churn, compaction and demotion", async () => {
    await withSeed("map", async (seed) => {
      const memory = await openMemory({ seams: { tier: memoryTier() } });
      const random = seededRandom(seed);
      const draw = (count: number) => random.uint32() % count;
      const named = new Map<string, Tensor>();
      const anonymous: Tensor[] = [];
      let seenCount = 0;
      for (let round = 0; round < 12; round++) {
        for (let step = 0; step < 40; step++) {
          const kind = KINDS[draw(KINDS.length)] as TensorKind;
          const byteLength = 1 + draw(draw(2) === 0 ? 2000 : 200_000);
          const id = `t${round}-${step}`;
          if (draw(2) === 0) anonymous.push(memory.allocate({ kind, byteLength }));
          else named.set(id, memory.allocate({ kind, byteLength, id }));
        }
        for (const [id, tensor] of [...named]) {
          if (draw(3) === 0) tensor.free();
          if (tensor.isFreed) named.delete(id);
          else if (draw(8) === 0) await memory.swapOut(id);
        }
        for (const tensor of anonymous.splice(0, draw(anonymous.length + 1))) tensor.free();
        if (draw(2) === 0) memory.compact({ bytesMovedMax: 200_000 });
        using _pin = anonymous[0]?.pin();
        seenCount += await checkMap(memory, named);
      }
      expect(seenCount).toBeGreaterThan(200);
    });
  });

  it("shows blocks together after compaction, and is plain data", async () => {
    const memory = await openMemory();
    const tensors = Array.from({ length: 64 }, (_, index) =>
      memory.allocate({ kind: "KV_CACHE", byteLength: 65_536, id: `kv/${index}` }),
    );
    for (const tensor of tensors.filter((_, index) => index % 2 === 0)) tensor.free();
    const spread = await memory.map();
    expect(JSON.parse(JSON.stringify(spread))).toEqual(spread);
    memory.compact();
    const together = await memory.map();
    const blocksOf = ({ arenas }: MemoryMap) => arenas.flatMap(({ blocks }) => blocks);
    const idsOf = (map: MemoryMap) => new Set(blocksOf(map).map(({ id }) => id));
    expect(idsOf(together)).toEqual(idsOf(spread));
    expect(idsOf(together).size).toBe(32);
    expect(blocksOf(together)).not.toEqual(blocksOf(spread));
  });

  it("names no tensor for blocks that belong to none", async () => {
    const memory = await openMemory();
    const pool = memory.fixedShapePool({ kind: "ACTIVATIONS", dtype: "f32", shape: [256] });
    pool.allocate().free();
    const { arenas } = await memory.map();
    const [block] = arenas.flatMap(({ blocks }) => blocks);
    expect(block).toMatchObject({ id: null, kind: "ACTIVATIONS", isPinned: true });
    memory.trim();
  });

  it("is refused after the memory was closed", async () => {
    const memory = await openMemory();
    await memory.close();
    await expect(memory.map()).rejects.toMatchObject({ code: "closed" });
  });
});
