// Conformance suite of the seam `arena/arena.ts`.
import type { Arena, ArenaFactory } from "../arena/arena.js";
import { DTYPE_NAMES, dtypeTraits } from "../types.js";
import { assert, assertBytes, assertEqual, type ConformanceCase } from "./conformance.js";

const CAPACITY_BYTES = 65536;

function opened(createArena: ArenaFactory): Arena {
  const arena = createArena(CAPACITY_BYTES);
  assert(arena !== null, "an arena of 64 KiB is refused");
  return arena;
}

/** @param make Gives the factory under test. */
export function arenaConformance(make: () => Promise<ArenaFactory>): ConformanceCase[] {
  return [
    {
      name: "has exactly the capacity that was asked for",
      run: async () => {
        const arena = opened(await make());
        assertEqual(arena.capacityBytes, CAPACITY_BYTES, "capacityBytes");
        assertEqual(arena.bytes(0, CAPACITY_BYTES).byteLength, CAPACITY_BYTES, "the whole view");
      },
    },
    {
      name: "refuses by null what the platform has no room for",
      run: async () => {
        const createArena = await make();
        assertEqual(createArena(2 ** 53 - 65536), null, "an arena of 8 PiB");
      },
    },
    {
      name: "shows the same bytes through every view",
      run: async () => {
        const arena = opened(await make());
        arena.bytes(128, 8).set([1, 2, 3, 4, 5, 6, 7, 8]);
        for (const dtype of DTYPE_NAMES) {
          const view = arena.view(dtype, 128, 8);
          const { elementBytes } = dtypeTraits(dtype);
          assertEqual(view.length, 8 / elementBytes, `length of the ${dtype} view`);
          const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
          assertBytes(bytes, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), `the ${dtype} view`);
        }
      },
    },
    {
      name: "moves overlapping ranges in both directions",
      run: async () => {
        const arena = opened(await make());
        const pattern = Uint8Array.from({ length: 100 }, (_, index) => index + 1);
        arena.bytes(1000, 100).set(pattern);
        arena.move(1000, 960, 100);
        assertBytes(arena.bytes(960, 100), pattern, "the range moved down");
        arena.move(960, 990, 100);
        assertBytes(arena.bytes(990, 100), pattern, "the range moved up");
      },
    },
    {
      name: "keeps its views while other arenas come and go",
      run: async () => {
        const createArena = await make();
        const arena = opened(createArena);
        const view = arena.bytes(0, 16);
        view.fill(7);
        for (let index = 0; index < 8; index++) opened(createArena).bytes(0, 16).fill(9);
        assertEqual(view.byteLength, 16, "length of the old view");
        assertBytes(arena.bytes(0, 16), new Uint8Array(16).fill(7), "the old view");
      },
    },
    {
      name: "has an anchor that its views keep alive",
      run: async () => {
        const arena = opened(await make());
        assertEqual(arena.anchor, arena.bytes(0, 1).buffer as object, "the anchor");
      },
    },
  ];
}
