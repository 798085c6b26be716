// The arithmetic behind the demo's map: tiles, viewport, and what lies under a place.
import { describe, expect, it } from "vitest";
import {
  blockAt,
  layGrid,
  longestFreeBytes,
  placeAt,
  sumByColour,
  TITLE_HEIGHT,
  tileOrigin,
  Viewport,
  ZOOM_MAX,
} from "../../examples/demo/map-layout.js";
import type { MappedArena } from "../../src/index.js";
import { seededRandom } from "../../src/testing/index.js";
import { withSeed } from "../support/oracle.js";

const block = (offset: number, byteLength: number) => ({
  ...{ offset, byteLength, requestedBytes: byteLength, id: null, isPinned: false },
  kind: "KV_CACHE" as const,
});
const ARENA: MappedArena = {
  id: 1,
  kind: "KV_CACHE",
  byteLength: 1000,
  blocks: [block(100, 50), block(150, 100), block(700, 200)],
};

describe("the grid", () => {
  it("fits every number of tiles into every canvas, without overlap", () => {
    for (const [width, height] of [
      [900, 384],
      [300, 416],
      [1400, 384],
    ] as const) {
      for (let count = 1; count <= 40; count++) {
        const grid = layGrid(count, width, height);
        const last = tileOrigin(grid, count - 1);
        expect(last.y + grid.tileHeight).toBeLessThanOrEqual(height + 1e-6);
        expect(tileOrigin(grid, grid.columns - 1).x + grid.tileWidth).toBeLessThanOrEqual(
          width + 1e-6,
        );
        expect(grid.rowCount).toBeGreaterThan(0);
      }
    }
  });

  it("finds the tile, row and byte under each place of a row", () => {
    const grid = layGrid(5, 900, 384);
    for (let tile = 0; tile < 5; tile++) {
      const { x, y } = tileOrigin(grid, tile);
      for (let row = 0; row < grid.rowCount; row++) {
        const middle = y + TITLE_HEIGHT + (row + 0.5) * grid.rowHeight;
        expect(placeAt(grid, x + grid.tileWidth / 4, middle)).toMatchObject({ tile, row });
        expect(placeAt(grid, x + grid.tileWidth / 4, middle)?.ratio).toBeCloseTo(0.25);
      }
      expect(placeAt(grid, x + 1, y + TITLE_HEIGHT / 2)).toBeNull();
      expect(placeAt(grid, x + grid.tileWidth + 2, y + TITLE_HEIGHT + 1)).toBeNull();
    }
  });
});

describe("what lies at an offset", () => {
  it("is a block, or the free stretch around it", () => {
    expect(blockAt(ARENA, 0)).toEqual({ freeOffset: 0, freeBytes: 100 });
    expect(blockAt(ARENA, 100)).toMatchObject({ offset: 100 });
    expect(blockAt(ARENA, 149)).toMatchObject({ offset: 100 });
    expect(blockAt(ARENA, 150)).toMatchObject({ offset: 150 });
    expect(blockAt(ARENA, 250)).toEqual({ freeOffset: 250, freeBytes: 450 });
    expect(blockAt(ARENA, 999)).toEqual({ freeOffset: 900, freeBytes: 100 });
    expect(longestFreeBytes(ARENA)).toBe(450);
    expect(longestFreeBytes({ ...ARENA, blocks: [] })).toBe(1000);
  });
});

describe("the legend", () => {
  it("says how much there is of each colour", () => {
    const pinned = { ...block(0, 300), kind: "ACTIVATIONS" as const, isPinned: true };
    const other = { ...ARENA, id: 2, byteLength: 400, blocks: [pinned] };
    expect(Object.fromEntries(sumByColour([ARENA, other]))).toEqual({
      ...{ ACTIVATIONS: 300, KV_CACHE: 350 },
      ...{ free: 750, pinned: 300 },
    });
    expect(sumByColour([]).size).toBe(0);
  });
});

describe("the viewport", () => {
  it("keeps what is under the pointer there, and never shows beyond the map", async () => {
    await withSeed("viewport", (seed) => {
      const random = seededRandom(seed);
      const draw = (most: number) => (random.uint32() / 2 ** 32) * most;
      const view = new Viewport();
      view.resize(800, 400);
      for (let step = 0; step < 2000; step++) {
        const [atX, atY] = [draw(800), draw(400)];
        const before = (view.x + atX) / view.zoom;
        if (draw(1) < 0.5) {
          const from = view.zoom;
          view.zoomAt(0.5 + draw(2), atX, atY);
          // At an edge it is the edge that stays.
          const isFree = view.x > 0 && view.x < 800 * (view.zoom - 1);
          if (isFree && view.zoom > from) {
            expect((view.x + atX) / view.zoom).toBeCloseTo(before, 6);
          }
        } else view.pan(draw(400) - 200, draw(400) - 200);
        expect(view.zoom).toBeGreaterThanOrEqual(1);
        expect(view.zoom).toBeLessThanOrEqual(ZOOM_MAX);
        expect(view.x).toBeGreaterThanOrEqual(0);
        expect(view.x).toBeLessThanOrEqual(800 * (view.zoom - 1) + 1e-6);
        expect(view.y).toBeLessThanOrEqual(400 * (view.zoom - 1) + 1e-6);
      }
      view.fit();
      expect([view.zoom, view.x, view.y]).toEqual([1, 0, 0]);
    });
  });
});
