// Where the map draws what: arenas as tiles in a grid, the bytes of an arena as rows of its tile, and a
// viewport over all that. Pure arithmetic; lengths are CSS pixels unless they say bytes.
import type { MappedArena, MappedBlock } from "tierheap";

export const TITLE_HEIGHT = 18;
const TILE_GAP = 10;
const ROW_HEIGHT_MIN = 8;
const TILE_WIDTH_MIN = 150;
/** Tiles are to be about this many times as wide as high. */
const TILE_ASPECT = 2.2;
export const ZOOM_MAX = 64;

export interface Grid {
  readonly columns: number;
  readonly tileWidth: number;
  readonly tileHeight: number;
  /** Rows of bytes in a tile. */
  readonly rowCount: number;
  readonly rowHeight: number;
}

/** The grid whose tiles come nearest to the wanted aspect. */
export function layGrid(tileCount: number, width: number, height: number): Grid {
  let best: Grid | null = null;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (let columns = 1; columns <= Math.max(1, tileCount); columns++) {
    const lines = Math.ceil(tileCount / columns);
    const tileWidth = (width - TILE_GAP * (columns - 1)) / columns;
    const tileHeight = (height - TILE_GAP * (lines - 1)) / Math.max(1, lines);
    if (best !== null && tileWidth < TILE_WIDTH_MIN) break;
    const distance = Math.abs(Math.log(tileWidth / Math.max(1, tileHeight) / TILE_ASPECT));
    if (best !== null && distance >= bestDistance) continue;
    const bodyHeight = Math.max(ROW_HEIGHT_MIN, tileHeight - TITLE_HEIGHT);
    const rowCount = Math.max(1, Math.floor(bodyHeight / ROW_HEIGHT_MIN));
    bestDistance = distance;
    best = { columns, tileWidth, tileHeight, rowCount, rowHeight: bodyHeight / rowCount };
  }
  return best as Grid;
}

/** The upper left corner of a tile. */
export function tileOrigin(grid: Grid, index: number): { readonly x: number; readonly y: number } {
  return {
    x: (index % grid.columns) * (grid.tileWidth + TILE_GAP),
    y: Math.floor(index / grid.columns) * (grid.tileHeight + TILE_GAP),
  };
}

/** What part of the map the canvas shows: a place of the map is drawn at `place * zoom - offset`. */
export class Viewport {
  zoom = 1;
  x = 0;
  y = 0;
  #width = 1;
  #height = 1;

  resize(width: number, height: number): void {
    this.#width = width;
    this.#height = height;
    this.#clamp();
  }

  /** Zooms, and leaves what lies under the given point of the canvas there. */
  zoomAt(factor: number, atX = this.#width / 2, atY = this.#height / 2): void {
    const zoom = Math.min(ZOOM_MAX, Math.max(1, this.zoom * factor));
    this.x = (this.x + atX) * (zoom / this.zoom) - atX;
    this.y = (this.y + atY) * (zoom / this.zoom) - atY;
    this.zoom = zoom;
    this.#clamp();
  }

  pan(byX: number, byY: number): void {
    this.x += byX;
    this.y += byY;
    this.#clamp();
  }

  fit(): void {
    this.zoom = 1;
    this.#clamp();
  }

  #clamp(): void {
    this.x = Math.min(Math.max(0, this.x), this.#width * (this.zoom - 1));
    this.y = Math.min(Math.max(0, this.y), this.#height * (this.zoom - 1));
  }
}

/** Which tile and which byte of its arena lie under a place of the map; null beside the rows. */
export function placeAt(
  grid: Grid,
  x: number,
  y: number,
): { readonly tile: number; readonly row: number; readonly ratio: number } | null {
  const column = Math.floor(x / (grid.tileWidth + TILE_GAP));
  const line = Math.floor(y / (grid.tileHeight + TILE_GAP));
  const tile = line * grid.columns + column;
  const origin = tileOrigin(grid, tile);
  const row = Math.floor((y - origin.y - TITLE_HEIGHT) / grid.rowHeight);
  const ratio = (x - origin.x) / grid.tileWidth;
  const isInside = column < grid.columns && row >= 0 && row < grid.rowCount && ratio < 1;
  return isInside ? { tile, row, ratio } : null;
}

/** The block at an offset, or the free stretch around it. */
export function blockAt(
  { blocks, byteLength }: MappedArena,
  offset: number,
): MappedBlock | { readonly freeOffset: number; readonly freeBytes: number } {
  let low = 0;
  let high = blocks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((blocks[middle] as MappedBlock).offset <= offset) low = middle + 1;
    else high = middle;
  }
  const before = blocks[low - 1];
  const freeOffset = before === undefined ? 0 : before.offset + before.byteLength;
  if (before !== undefined && offset < freeOffset) return before;
  return { freeOffset, freeBytes: (blocks[low]?.offset ?? byteLength) - freeOffset };
}

/** The longest free stretch of an arena. */
export function longestFreeBytes({ blocks, byteLength }: MappedArena): number {
  let longest = 0;
  let end = 0;
  for (const block of blocks) {
    longest = Math.max(longest, block.offset - end);
    end = block.offset + block.byteLength;
  }
  return Math.max(longest, byteLength - end);
}

/** Bytes of each kind, of what is pinned and of what is free, by the names that the legend has for them. */
export function sumByColour(arenas: readonly MappedArena[]): Map<string, number> {
  const sums = new Map<string, number>();
  const add = (name: string, bytes: number) => sums.set(name, (sums.get(name) ?? 0) + bytes);
  for (const { blocks, byteLength } of arenas) {
    let liveBytes = 0;
    for (const block of blocks) {
      add(block.kind, block.byteLength);
      if (block.isPinned) add("pinned", block.byteLength);
      liveBytes += block.byteLength;
    }
    add("free", byteLength - liveBytes);
  }
  return sums;
}
